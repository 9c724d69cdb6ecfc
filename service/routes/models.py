"""Models by name: versions out of trainings or files, aliases for versions."""

from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Body, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from service.callers import CallerOf
from service.context import Context, ContextOf
from service.errors import Problem
from service.forms import received_body
from service.jobs import Full
from service.models import Model
from service.registry import EVERYBODY, Card
from service.routes.finding import NOT_FOUND
from service.routes.quotas import over_quota
from service.schemas import AliasTarget, ModelCard, ModelNameText, ModelPage, ModelVersion, ProblemDocument, VersionSource

router = APIRouter(prefix="/v1/models", tags=["models"])

Name = Annotated[ModelNameText, Path()]
Number = Annotated[int, Path(ge=1, le=10**9)]
_REFUSED: dict[int | str, dict[str, Any]] = {**NOT_FOUND, 409: {"model": ProblemDocument}}
MAX_ALIASES = 100
_OCTETS = "application/octet-stream"


@router.get("", summary="List the models that are served by name")
def list_models(
    context: ContextOf,
    caller: CallerOf,
    limit: Annotated[int, Query(ge=1, le=200)] = 200,
    cursor: Annotated[ModelNameText | None, Query()] = None,
) -> ModelPage:
    """Your own and everybody's, by name; `next_cursor` leads to the next page."""
    names = [name for name in context.models.names(caller) if cursor is None or name > cursor]
    items = [_model_card(model) for model in context.models.load(names[:limit], caller)]
    return ModelPage(items=items, next_cursor=names[limit - 1] if len(names) > limit else None)


@router.get("/{name}", responses=NOT_FOUND, summary="Look at a model")
def get_model(name: Name, context: ContextOf, caller: CallerOf) -> ModelCard:
    """Its latest version, with all numbers and aliases."""
    return _model_card(_found(context, name, caller))


@router.get("/{name}/versions/{number}", responses=NOT_FOUND, summary="Look at a version")
def get_version(name: Name, number: Number, context: ContextOf, caller: CallerOf) -> ModelVersion:
    """Its training, evaluation and digest."""
    model = _found(context, name, caller)
    if number not in model.versions:
        raise Problem(404, f"{name} has no version {number}")
    return _version(name, number, model.versions[number])


@router.post(
    "/{name}/versions",
    status_code=201,
    summary="Publish a version",
    responses={status: {"model": ProblemDocument} for status in (413, 415, 429)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": VersionSource.model_json_schema()},
                _OCTETS: {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
)
async def publish_version(name: Name, request: Request, context: ContextOf, caller: CallerOf, response: Response) -> ModelVersion:
    """From the checkpoint of a training, `{"job": id}`, or from an uploaded safetensors checkpoint; the same one twice is one."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    try:
        if kind == _OCTETS:
            async with received_body(request) as file:
                number = await _publish_file(context, name, file, caller)
        elif kind == "application/json":
            source = _source(await request.body())
            number = await run_in_threadpool(_publish_job, context, name, source.job, caller)
        else:
            raise Problem(415, f"send application/json or {_OCTETS}", field="content-type")
    except Full as full:
        raise over_quota(full, context.settings) from None
    response.headers["Location"] = f"/v1/models/{name}/versions/{number}"
    return await run_in_threadpool(get_version, name, number, context, caller)


@router.put("/{name}/aliases/{alias}", responses=_REFUSED, summary="Let an alias mean a version")
def put_alias(name: Name, alias: Name, target: Annotated[AliasTarget, Body()], context: ContextOf, caller: CallerOf) -> ModelCard:
    """`name@alias` is that version from now on."""
    model = _own(context, name, caller)
    if alias.isdecimal():
        raise Problem(422, "an alias must not be a number", field="alias")
    if alias not in model.aliases and len(model.aliases) >= MAX_ALIASES:
        raise Problem(409, f"{name} has {len(model.aliases)} aliases, as many as one model may; remove one first")
    first = context.models.first(model.owner, name)
    if target.version not in model.versions or not context.jobs.alias(model.owner, name, alias, target.version, first):
        raise Problem(404, f"{name} has no version {target.version}")
    return _model_card(_found(context, name, caller))


@router.delete("/{name}/aliases/{alias}", status_code=204, responses=NOT_FOUND, summary="Forget an alias")
def delete_alias(name: Name, alias: Name, context: ContextOf, caller: CallerOf) -> None:
    """The version stays."""
    if not context.jobs.drop_alias(_own(context, name, caller).owner, name, alias):
        raise Problem(404, f"{name} has no alias {alias}")


@router.delete("/{name}/versions/{number}", status_code=204, responses=_REFUSED, summary="Remove a version")
def delete_version(name: Name, number: Number, context: ContextOf, caller: CallerOf) -> None:
    """Its number is not given again."""
    model = _own(context, name, caller)
    if number not in model.versions:
        raise Problem(404, f"{name} has no version {number}")
    context.models.withdraw(model, number)


@router.delete("/{name}", status_code=204, responses=_REFUSED, summary="Remove a model")
def delete_model(name: Name, context: ContextOf, caller: CallerOf) -> None:
    """All its versions and aliases."""
    context.models.withdraw(_own(context, name, caller), None)


def _found(context: Context, name: str, caller: str) -> Model:
    model = context.models.find(name, caller)
    if model is None:
        raise Problem(404, "there is no such model")
    return model


def _own(context: Context, name: str, caller: str) -> Model:
    """A model that the caller may change."""
    model = _found(context, name, caller)
    if model.owner != caller:
        raise Problem(403, f"{name} is everybody's; publish a model of your own under that name, or another")
    return model


def _source(data: bytes) -> VersionSource:
    try:
        return VersionSource.model_validate_json(data)
    except ValueError:
        raise Problem(422, 'expected {"job": id} of a training that succeeded', field="body") from None


async def _publish_file(context: Context, name: str, file: BinaryIO, caller: str) -> int:
    """A checkpoint is in memory while it has its turn, and not while it waits for it."""
    async with context.decoders.turn(caller):
        facts = await context.decoders.checkpoint(await run_in_threadpool(file.read))

    def publish() -> int:
        file.seek(0)
        return context.models.publish_file(name, file, facts, caller)

    return await run_in_threadpool(publish)


def _publish_job(context: Context, name: str, job_id: str, caller: str) -> int:
    try:
        return context.models.publish_job(name, job_id, caller)
    except FileNotFoundError:
        raise Problem(422, "that training's checkpoint is gone from the store", field="job") from None


def _model_card(model: Model) -> ModelCard:
    card = model.versions[model.latest]
    return ModelCard(
        name=model.name,
        version=model.latest,
        digest=card.digest,
        bytes=card.bytes,
        evaluation=card.evaluation,
        versions=sorted(model.versions),
        aliases=model.aliases,
        shared=model.owner == EVERYBODY,
    )


def _version(name: str, number: int, card: Card) -> ModelVersion:
    return ModelVersion(
        name=name,
        version=number,
        digest=card.digest,
        bytes=card.bytes,
        evaluation=card.evaluation,
        networks=card.networks,
        job=card.job,
        created_at=card.created_at,
    )
