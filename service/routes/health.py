"""Whether the process lives, whether the service can do its work, and which models it has."""

import redis
from fastapi import APIRouter, Response

from service.artifacts import StorageError
from service.context import Context, ContextOf
from service.errors import Problem
from service.queue import QUEUES
from service.schemas import ModelCard, ProblemDocument

router = APIRouter()


@router.get("/healthz", tags=["service"], summary="Does the process live?")
def healthz() -> dict[str, str]:
    """It answers, so it lives."""
    return {"status": "ok"}


@router.get("/readyz", tags=["service"], summary="Can work be done?", responses={503: {"description": "not all is ok"}})
def readyz(context: ContextOf, response: Response) -> dict[str, str]:
    """`ok` or what is wrong, for broker, storage and each queue's workers; 503 unless all are ok."""
    report = {"broker": _broker(context), "storage": _storage(context)}
    report |= {f"{queue}_worker": _worker(context, queue) for queue in QUEUES}
    if set(report.values()) != {"ok"}:
        response.status_code = 503
    return report


@router.get("/v1/models", tags=["models"], summary="List the models that are served by name")
def list_models(context: ContextOf) -> dict[str, list[ModelCard]]:
    """With their evaluation."""
    return {"items": list(context.catalogue.cards.values())}


@router.get("/v1/models/{name}", tags=["models"], summary="Look at a model", responses={404: {"model": ProblemDocument}})
def get_model(name: str, context: ContextOf) -> ModelCard:
    """With its evaluation."""
    if name not in context.catalogue.cards:
        raise Problem(404, "there is no such model")
    return context.catalogue.cards[name]


def _broker(context: Context) -> str:
    try:
        context.jobs.ping()
    except redis.RedisError:
        return "cannot be reached"
    return "ok"


def _storage(context: Context) -> str:
    try:
        context.artifacts.probe()
    except (StorageError, OSError):
        return "cannot be written"
    return "ok"


def _worker(context: Context, queue: str) -> str:
    try:
        return "ok" if context.jobs.lives(queue) else "none is ready"
    except redis.RedisError:
        return "unknown: the broker cannot be reached"
