"""POST /v1/trainings: a configuration in, a checkpoint with its evaluation out."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from sdfsrn.config import METHODS, SyntheticData, check_supervision
from service.callers import CallerOf, may_see
from service.context import Context, ContextOf
from service.errors import Problem
from service.jobs import Job, new_id, now
from service.logs import current_trace
from service.queue import TRAINING
from service.registry import VIEWS_FILE
from service.routes.submission import CREATED, PREFER, Asked, IdempotencyKey, asked_before, submit
from service.schemas import TrainingRequest, UploadedDataset
from service.webhooks import check_url

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
    openapi_extra={"parameters": [PREFER]},
    summary="Train a model",
)
async def create_training(
    request: Request,
    context: ContextOf,
    caller: CallerOf,
    wanted: Annotated[TrainingRequest, Body()],
    idempotency_key: IdempotencyKey = "",
) -> Response:
    """Check everything, queue the job."""
    _check(wanted)
    if wanted.webhook_url is not None:
        check_url(wanted.webhook_url, caller, context.settings)
    asked = Asked.of(request, caller, idempotency_key, wanted.model_dump(mode="json"))
    if before := await asked_before(context, asked):
        return await submit(context, asked, before)
    model, source = await run_in_threadpool(_start, context, caller, wanted)
    data = await run_in_threadpool(_uploaded, context, caller, wanted)
    job = Job(
        id=new_id(),
        type="training",
        queue=TRAINING,
        created_at=now(),
        owner=caller,
        trace=current_trace(),
        metadata=wanted.metadata,
        model=model,
        source=source,
        data=data,
        webhook=wanted.webhook_url,
        expires_after=wanted.expires_after_s,
        params=wanted.model_dump(mode="json", exclude={"metadata", "webhook_url", "expires_after_s"}, exclude_unset=True),
    )
    return await submit(context, asked, job)


def _check(wanted: TrainingRequest) -> None:
    """What no single field shows: the library looks at the whole."""
    parts: dict[str, tuple[type, set[str]]] = {"config": (METHODS[wanted.method], set())}
    if not isinstance(wanted.dataset, UploadedDataset):
        parts["dataset"] = (SyntheticData, {"type"})
    for part, (make, without) in parts.items():
        try:
            make(**getattr(wanted, part).model_dump(exclude=without))
        except ValueError as error:
            raise Problem(422, str(error), field=f"{part}.{str(error).split()[0]}") from None
    if not isinstance(wanted.dataset, UploadedDataset):
        _check_supervision(wanted, wanted.dataset.n_shapes, wanted.dataset.n_shapes * wanted.dataset.views_per_shape)


def _check_supervision(wanted: TrainingRequest, objects: int, pictures: int) -> None:
    try:
        check_supervision(wanted.model_dump()["config"].get("supervision", "own"), objects, pictures)
    except ValueError as error:
        raise Problem(422, str(error), field="config.supervision") from None


def _start(context: Context, caller: str, wanted: TrainingRequest) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The model that a training starts from, if any, whose networks must be as large as this training's."""
    start = wanted.from_checkpoint
    if start is None:
        return None, None
    name = start.model if start.model is not None else f"job:{start.job}"
    field = "from_checkpoint.model" if start.model is not None else "from_checkpoint.job"
    model, card = context.models.resolve(name, field, caller)
    for size, needed in card.networks.items():
        if (asked := getattr(wanted.config, size)) != needed:
            raise Problem(422, f"{name} has {size} {needed}, this training {asked}; give both the same", field=f"config.{size}")
    return model, card.source


def _uploaded(context: Context, caller: str, wanted: TrainingRequest) -> dict[str, Any] | None:
    """Where the views of an uploaded data set lie."""
    if not isinstance(wanted.dataset, UploadedDataset):
        return None
    job = context.jobs.get(wanted.dataset.id)
    if job is None or job.type != "dataset" or not may_see(caller, job):
        raise Problem(422, "there is no such data set; upload one with POST /v1/datasets", field="dataset.id")
    for file in job.files if not job.expired else ():
        if file["name"] == VIEWS_FILE:
            if {"objects", "pictures"} <= job.metrics.keys():  # data sets of earlier versions do not say
                _check_supervision(wanted, job.metrics["objects"], job.metrics["pictures"])
            return {name: file[name] for name in ("key", "bytes", "sha256")}
    reason = (job.error or {}).get("detail", "wait until it has succeeded")
    raise Problem(422, f"that data set is {job.status}: {reason}", field="dataset.id")
