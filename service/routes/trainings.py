"""POST /v1/trainings: a configuration in, a checkpoint with its evaluation out."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from sdfsrn.config import METHODS, SyntheticData
from service.context import Context, ContextOf
from service.errors import Problem
from service.jobs import Job, new_id, now
from service.queue import TRAINING
from service.routes.submission import CREATED, submit
from service.schemas import CheckpointSource, TrainingRequest

router = APIRouter(prefix="/v1", tags=["training"])


def _json_only(request: Request) -> None:
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise Problem(415, "send application/json", field="content-type")


@router.post(
    "/trainings",
    status_code=202,
    responses=CREATED,
    dependencies=[Depends(_json_only)],
    summary="Train a model",
)
async def create_training(request: Request, context: ContextOf, body: Annotated[TrainingRequest | None, Body()] = None) -> Response:
    """Check everything, queue the job."""
    wanted = body or TrainingRequest()
    _check(wanted)
    model, source = await run_in_threadpool(_start, context, wanted.from_checkpoint)
    job = Job(
        id=new_id(),
        type="training",
        queue=TRAINING,
        created_at=now(),
        metadata=wanted.metadata,
        model=model,
        source=source,
        params=wanted.model_dump(mode="json", exclude={"metadata"}),
    )
    return await submit(context, request, job)


def _check(wanted: TrainingRequest) -> None:
    """What no single field shows: the library looks at the whole."""
    parts = {"dataset": (SyntheticData, {"type"}), "config": (METHODS[wanted.method], set())}
    for part, (make, without) in parts.items():
        try:
            make(**getattr(wanted, part).model_dump(exclude=without))
        except ValueError as error:
            raise Problem(422, str(error), field=f"{part}.{str(error).split()[0]}") from None


def _start(context: Context, start: CheckpointSource | None) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    if start is None:
        return None, None
    name = start.model if start.model is not None else f"job:{start.job}"
    field = "from_checkpoint.model" if start.model is not None else "from_checkpoint.job"
    return context.catalogue.resolve(name, field)
