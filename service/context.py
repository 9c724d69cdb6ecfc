"""What the routes share, made once per application."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.artifacts import Artifacts
from service.decoding import Decoders
from service.jobs import Jobs, connect
from service.metrics import Metrics
from service.models import Models
from service.queue import Queue
from service.settings import Settings
from service.waiting import JobSignals

PROBE_WITHIN_S = 2.0


@dataclass(frozen=True)
class Context:
    """The parts of the service; `probe` is a second client of the broker, for questions that must not wait for it."""

    settings: Settings
    jobs: Jobs
    probe: Jobs
    queue: Queue
    artifacts: Artifacts
    models: Models
    signals: JobSignals
    metrics: Metrics
    decoders: Decoders


def make_context(settings: Settings) -> Context:
    """Connect everything; nothing is asked of the broker yet."""
    jobs = Jobs(connect(settings))
    artifacts = Artifacts(settings.store_url)
    return Context(
        settings,
        jobs,
        Jobs(connect(settings, PROBE_WITHIN_S)),
        Queue(settings),
        artifacts,
        Models(settings, jobs, artifacts),
        JobSignals(settings),
        Metrics(),
        Decoders(),
    )


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


ContextOf = Annotated[Context, Depends(_context)]
