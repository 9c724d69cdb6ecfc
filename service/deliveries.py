"""The keeper's side of webhooks: which ended jobs are told when, so that a deaf receiver keeps nobody else waiting.

Each host has a line of its own, with few deliveries under way at once. A host that does not answer is left alone for a
while, longer each time, and then asked with one delivery; deliveries that wait for it count as no attempt.
"""

import logging
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import redis

from service import logs, webhooks
from service.jobs import Jobs
from service.settings import Settings

HOSTS_AT_ONCE = 32
PER_HOST = 2
LOOKED_AT = 1_000  # due deliveries that one look considers, beside those that stand in a line already
LINE, LINE_FULL_S = 500, 10.0  # deliveries taken in for one host; what is due beyond them is put off, others stand behind it
RETRY_AT_LEAST_S = 60.0  # longer than any attempt takes
# Seconds for which a host is left alone after one, two, ... deliveries in a row that it did not answer; then the last.
HOST_WAITS_S = (2.0, 5.0, 15.0, 60.0)
GIVE_UP_AFTER_S = 24 * 3600.0  # from a job's end, where its receiver's host answers nobody

_log = logging.getLogger(__name__)


@dataclass
class Host:
    """One receiver's line. `busy` threads work on it; `failures` in a row let it alone until `until`, monotonic."""

    ids: deque[str] = field(default_factory=deque)
    busy: int = 0
    failures: int = 0
    until: float = 0.0

    @property
    def waits_s(self) -> float:
        """Seconds for which it is left alone."""
        return max(0.0, self.until - time.monotonic())

    @property
    def wants_thread(self) -> bool:
        """Whether one more thread may work on it."""
        return bool(self.ids) and self.busy < (1 if self.failures else PER_HOST)


class Deliveries:
    """Takes in what is due, and tells it in threads."""

    def __init__(self, settings: Settings, jobs: Jobs) -> None:
        self._settings, self._jobs = settings, jobs
        self._lock = threading.Lock()
        self._hosts: dict[str, Host] = {}
        self._taken: set[str] = set()
        self._threads = ThreadPoolExecutor(HOSTS_AT_ONCE * PER_HOST, thread_name_prefix="webhook")

    def look(self) -> None:
        """Take in what is due; what is due at a host that is left alone, or has a full line, is put off."""
        with self._lock:
            limit = LOOKED_AT + len(self._taken)
        for job_id, (url, finished_at) in self._jobs.webhooks_due(limit).items():
            if url is None:
                self._jobs.webhook_done(job_id)
            else:
                self._see_to(job_id, urlsplit(url).hostname or "", finished_at)
        with self._lock:
            self._hosts = {name: host for name, host in self._hosts.items() if host.busy or host.ids or host.failures}
            for name, host in self._hosts.items():
                while host.wants_thread:
                    host.busy += 1
                    self._threads.submit(self._work, name, host)

    def _see_to(self, job_id: str, name: str, finished_at: str | None) -> None:
        """Into its host's line; put off where that is full, or the host is left alone, which ends when the job is a day old."""
        with self._lock:
            host = self._hosts.setdefault(name, Host())
            if job_id in self._taken:
                return
            alone_s, is_full = host.waits_s, len(host.ids) >= LINE
            if not alone_s and not is_full:
                self._taken.add(job_id)
                host.ids.append(job_id)
                return
        if alone_s and host.failures and finished_at and webhooks.seconds_since(finished_at) > GIVE_UP_AFTER_S:
            _log.warning("the webhook of job %s was not told: its host does not answer, giving up", job_id)
            self._jobs.webhook_done(job_id)
        else:
            self._jobs.plan_webhook(job_id, alone_s or LINE_FULL_S)

    def _work(self, name: str, host: Host) -> None:
        """One delivery after another, until the line is empty or the host does not answer."""
        try:
            while job_id := self._next(host):
                try:
                    answered = self._deliver(job_id)
                finally:
                    with self._lock:
                        self._taken.discard(job_id)
                if answered is None:
                    continue
                with self._lock:
                    host.failures = 0 if answered else host.failures + 1
                if not answered:
                    wait_s = HOST_WAITS_S[min(host.failures, len(HOST_WAITS_S)) - 1]
                    _log.info("%s does not answer, it is left alone for %.0f s", name, wait_s)
                    self._dissolve(host, wait_s)
        except redis.RedisError as error:
            _log.warning("the broker does not answer: %s", error)
            self._dissolve(host, 0.0)
        except Exception:  # the rest of the line goes on with the next look
            _log.exception("a webhook to %s", name)
        finally:
            with self._lock:
                host.busy -= 1

    def _dissolve(self, host: Host, wait_s: float) -> None:
        """Nobody stands in the host's line any more; they are due still, and seen to at the next look."""
        with self._lock:
            host.until = time.monotonic() + wait_s
            self._taken -= set(host.ids)
            host.ids.clear()

    def _next(self, host: Host) -> str | None:
        with self._lock:
            return host.ids.popleft() if host.ids else None

    def _deliver(self, job_id: str) -> bool | None:
        """Whether the host answered; None if it was not asked, for another keeper told it, or the job was removed.

        The next attempt is written down before this one is made: a crash costs a repetition, never the message.
        """
        tries = self._jobs.begin_webhook(job_id, RETRY_AT_LEAST_S)
        job = self._jobs.get(job_id) if tries else None
        if job is None:
            return None
        with logs.about(job.id, job.trace):
            try:
                webhooks.send(job, self._settings)
                self._jobs.webhook_done(job.id)
                _log.info("told the webhook of job %s", job.id)
            except webhooks.NotSent as error:
                self._plan_next(job.id, tries, error)
                return not isinstance(error, webhooks.NoAnswer)
        return True

    def _plan_next(self, job_id: str, tries: int, error: webhooks.NotSent) -> None:
        if error.final or tries > len(webhooks.RETRIES_S):
            _log.warning("the webhook of job %s was not told in %s attempts, giving up: %s", job_id, tries, error)
            self._jobs.webhook_done(job_id)
            return
        wait_s = webhooks.RETRIES_S[tries - 1]
        _log.info("the webhook of job %s was not told, again in %.0f s: %s", job_id, wait_s, error)
        self._jobs.plan_webhook(job_id, wait_s)
