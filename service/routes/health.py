"""Whether the process lives, whether the service can do its work, and figures of it."""

import redis
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.artifacts import StorageError
from service.context import Context, ContextOf
from service.queue import QUEUES

router = APIRouter()


@router.get("/healthz", tags=["service"], summary="Does the process live?")
async def healthz() -> dict[str, str]:
    """It answers, so it lives; in no thread, as all of them may be waiting for the broker."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    tags=["service"],
    summary="May it be sent traffic?",
    responses={503: {"description": "broker or storage is not ok"}},
)
def readyz(context: ContextOf, response: Response) -> dict[str, str]:
    """`ok` or what is wrong, for broker, storage, keeper and each queue's workers; 503 if broker or storage is not ok.

    Keeper and workers are named and do not decide: what is sent without them waits in its queue. Where the disk has no room
    for uploads, this is told as `uploads`.
    """
    report = {"broker": _broker(context), "storage": _storage(context)}
    if set(report.values()) != {"ok"}:
        response.status_code = 503
    report |= _processes(context, broker_answers=report["broker"] == "ok")
    return report if context.artifacts.has_room() else report | {"uploads": "the disk is nearly full"}


@router.get("/metrics", tags=["service"], summary="Figures for Prometheus", response_class=Response)
def metrics(context: ContextOf) -> Response:
    """Requests of this process; jobs and workers as the broker knows them, and whether it answers."""
    return Response(context.metrics.text(context.probe), media_type=CONTENT_TYPE_LATEST)


def _broker(context: Context) -> str:
    try:
        context.probe.ping()
    except redis.RedisError:
        return "cannot be reached"
    return "ok"


def _storage(context: Context) -> str:
    try:
        context.artifacts.probe()
    except StorageError:
        return "cannot be written"
    return "ok"


def _processes(context: Context, *, broker_answers: bool) -> dict[str, str]:
    names = {"keeper": "keeper"} | {f"{queue}_worker": queue for queue in QUEUES}
    unknown = "unknown: the broker cannot be reached"
    if not broker_answers:
        return dict.fromkeys(names, unknown)
    try:
        return {name: "ok" if context.probe.lives(process) else "none is ready" for name, process in names.items()}
    except redis.RedisError:
        return dict.fromkeys(names, unknown)
