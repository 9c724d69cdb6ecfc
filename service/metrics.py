"""What operators watch: requests of this process, and jobs, queues and workers as the broker knows them."""

import logging
import time
from collections.abc import Iterator

import redis
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.jobs import Jobs
from service.queue import QUEUES

# Anybody can send any word as a method: each would be a series of its own, kept for ever.
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_log = logging.getLogger(__name__)


class Metrics:
    """One registry per application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("sdfsrn_http_requests", "answered requests", labels, registry=self._registry)
        self.seconds = Histogram(
            "sdfsrn_http_seconds", "time to the start of the answer", ("method", "route"), registry=self._registry
        )

    def text(self, jobs: Jobs) -> bytes:
        """All figures in Prometheus' text format."""
        registry = CollectorRegistry()
        registry.register(_Broker(jobs))
        return generate_latest(self._registry) + generate_latest(registry)


class _Broker:
    """Asked anew at every scrape. While it is away its figures are missing, and `sdfsrn_broker_up` is 0."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def collect(self) -> Iterator[Metric]:
        """Queues, claims, ends and signs of life."""
        try:
            found = self._figures()
        except redis.RedisError as error:
            _log.warning("the broker does not answer: %s", error)
            found = []
        yield GaugeMetricFamily("sdfsrn_broker_up", "1 if the broker answers, 0 if not", value=float(bool(found)))
        yield from found

    def _figures(self) -> list[Metric]:
        waiting = GaugeMetricFamily("sdfsrn_jobs_waiting", "jobs in a queue", labels=("queue",))
        lives = GaugeMetricFamily("sdfsrn_alive", "1 while a process of the kind shows itself", labels=("process",))
        for queue in QUEUES:
            waiting.add_metric((queue,), self._jobs.waiting(queue))
            lives.add_metric((f"{queue} worker",), float(self._jobs.lives(queue)))
        lives.add_metric(("keeper",), float(self._jobs.lives("keeper")))
        ended = CounterMetricFamily("sdfsrn_jobs_ended", "jobs that ended", labels=("type", "status"))
        for (kind, status), count in sorted(self._jobs.ended().items()):
            ended.add_metric((kind, status), count)
        running = GaugeMetricFamily("sdfsrn_jobs_running", "claimed jobs", value=self._jobs.running())
        return [waiting, running, ended, lives]


class Measured:
    """Counts and times requests by route, not by path: ids would make a series each."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and look at the start of its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def seen(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._metrics.requests.labels(method, route, message["status"]).inc()
                self._metrics.seconds.labels(method, route).observe(time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, seen)
