"""Whether the process lives, whether the service can do its work, and figures of it."""

import redis
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.artifacts import StorageError
from service.callers import KEYED
from service.context import Context, ContextOf
from service.queue import QUEUES

router = APIRouter()


@router.get("/healthz", tags=["service"], summary="Does the process live?")
async def healthz() -> dict[str, str]:
    """It answers, so it lives; in no thread, as all of them may be waiting for the broker."""
    return {"status": "ok"}


@router.get("/readyz", tags=["service"], summary="Can work be done?", responses={503: {"description": "not all is ok"}})
def readyz(context: ContextOf, response: Response) -> dict[str, str]:
    """`ok` or what is wrong, for broker, storage and each queue's workers; 503 unless all are ok.

    Where the disk has no room for uploads this is told as well; all else goes on.
    """
    report = {"broker": _broker(context), "storage": _storage(context)}
    report |= {f"{queue}_worker": _worker(context, queue) for queue in QUEUES}
    if set(report.values()) != {"ok"}:
        response.status_code = 503
    return report if context.artifacts.has_room() else report | {"uploads": "the disk is nearly full"}


@router.get("/metrics", tags=["service"], summary="Figures for Prometheus", response_class=Response, dependencies=KEYED)
def metrics(context: ContextOf) -> Response:
    """Requests of this process; jobs and workers as the broker knows them."""
    return Response(context.metrics.text(context.jobs), media_type=CONTENT_TYPE_LATEST)


def _broker(context: Context) -> str:
    try:
        context.jobs.ping()
    except redis.RedisError:
        return "cannot be reached"
    return "ok"


def _storage(context: Context) -> str:
    try:
        context.artifacts.probe()
    except StorageError:
        return "cannot be written"
    return "ok"


def _worker(context: Context, queue: str) -> str:
    try:
        return "ok" if context.jobs.lives(queue) else "none is ready"
    except redis.RedisError:
        return "unknown: the broker cannot be reached"
