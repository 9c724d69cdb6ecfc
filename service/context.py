"""What the routes share, made once per application."""

from dataclasses import dataclass
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from service.artifacts import Artifacts
from service.catalogue import Catalogue
from service.jobs import Jobs, connect
from service.queue import Queue
from service.settings import Settings
from service.waiting import Endings


@dataclass(frozen=True)
class Context:
    """The parts of the service."""

    settings: Settings
    jobs: Jobs
    queue: Queue
    artifacts: Artifacts
    catalogue: Catalogue
    endings: Endings
    # A picture of 40 megapixels takes half a gigabyte while it is decoded: one at a time, the others wait.
    decoders: CapacityLimiter


def make_context(settings: Settings) -> Context:
    """Connect everything; nothing is asked of the broker yet."""
    jobs = Jobs(connect(settings))
    return Context(
        settings,
        jobs,
        Queue(settings),
        Artifacts(settings.store_url),
        Catalogue(settings.weights, jobs),
        Endings(settings),
        CapacityLimiter(1),
    )


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


ContextOf = Annotated[Context, Depends(_context)]
