"""POST /v1/reconstructions: an image in, silhouettes at new angles out."""

import dataclasses
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from sdfsrn.config import MAX_VIEWS, ReconstructionConfig, View, ring
from service.artifacts import job_key
from service.callers import CallerOf
from service.context import Context, ContextOf
from service.errors import Problem, problem_of_validation
from service.forms import Form, received_form
from service.jobs import Job, new_id, now
from service.logs import current_trace
from service.queue import RECONSTRUCTION
from service.routes.submission import CREATED, PREFER, Asked, IdempotencyKey, asked_before, check_quota, submit_with_input
from service.schemas import ReconstructionForm, Ring
from service.webhooks import check_url

router = APIRouter(prefix="/v1", tags=["reconstruction"])

FILES = ("image", "mask")
TEXTS = ("model", "frame", "mesh_format", "background", "outputs", "webhook_url")
LISTS = ("views", "outputs")
NOT_OF_CONFIG = {"model", "metadata", "webhook_url", "expires_after_s"}


def _form_schema() -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    schema = ReconstructionForm.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    schema["properties"] = {
        "image": file
        | {
            "description": "PNG, JPEG or WebP, up to 20 MB and 40 megapixels; its alpha is the mask, "
            "else `background` says how the object is found"
        },
        "mask": file
        | {"description": "the object's mask, of the image's size, 255 on the object; it goes before the image's alpha"},
        **schema["properties"],
    }
    return schema | {"required": ["image"]}


@router.post(
    "/reconstructions",
    status_code=202,
    responses=CREATED,
    summary="Reconstruct the object in a picture",
    openapi_extra={
        "parameters": [PREFER],
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _form_schema()}}},
    },
)
async def create_reconstruction(
    request: Request, context: ContextOf, caller: CallerOf, idempotency_key: IdempotencyKey = ""
) -> Response:
    """Check everything, store the picture, queue the job."""
    asked, job = await _taken_in(request, context, caller, idempotency_key)
    return await submit_with_input(context, asked, job)


async def _taken_in(request: Request, context: Context, caller: str, idempotency_key: str) -> tuple[Asked, Job | str]:
    """The job, its picture stored, or the id of the one that was asked for before; form and picture are let go by then."""
    if not idempotency_key:  # else this may be a repetition, which is answered all the same
        await check_quota(context, caller)
    async with received_form(request, names=ReconstructionForm.model_fields, files=FILES, texts=TEXTS, lists=LISTS) as form:
        fields, said, config = _checked(form)
        if "image" not in form.files:
            raise Problem(422, "image is missing: send a PNG, JPEG or WebP as the part `image`", field="image")
        if fields.webhook_url is not None:
            check_url(fields.webhook_url, caller, context.settings)
        digests = {name: await run_in_threadpool(form.digest, name) for name in form.files}
        others = fields.model_dump(mode="json", include=NOT_OF_CONFIG)
        asked = Asked.of(request, caller, idempotency_key, {"config": dataclasses.asdict(config), "files": digests, **others})
        if before := await asked_before(context, asked):
            return asked, before
        await check_quota(context, caller)
        model, card = await run_in_threadpool(context.models.resolve, fields.model, "model", caller)
        job_id = new_id()
        async with context.decoders.turn(caller):
            sent = {name: await run_in_threadpool(form.content, name) for name in form.files}
            picture = await context.decoders.picture(sent["image"], sent.get("mask"), config.background)
            del sent
        stored = await run_in_threadpool(context.artifacts.put, job_key(job_id, "input", "input.png"), picture)
    job = Job(
        id=job_id,
        type="reconstruction",
        queue=RECONSTRUCTION,
        created_at=now(),
        owner=caller,
        trace=current_trace(),
        webhook=fields.webhook_url,
        expires_after=fields.expires_after_s or context.settings.retention_s,
        params={name: dataclasses.asdict(config)[name] for name in said},
        metadata=fields.metadata,
        model=model,
        source=card.source,
        input_digest=f"sha-256:{stored['sha256']}",
        bytes=stored["bytes"],
    )
    return asked, job


def _checked(form: Form) -> tuple[Any, set[str], ReconstructionConfig]:
    """All fields, the names of those of the configuration that were sent, and the configuration."""
    try:
        fields = ReconstructionForm.model_validate(form.values)
    except ValidationError as error:
        raise problem_of_validation(error) from None
    values = fields.model_dump(exclude={*NOT_OF_CONFIG, "views", "input_view"}, exclude_unset=True)
    for name in ("views", "input_view"):
        if name in fields.model_fields_set:
            values[name] = _views(getattr(fields, name))
    try:
        return fields, set(values), ReconstructionConfig(**values)
    except ValueError as error:
        raise Problem(422, str(error), field=str(error).split()[0]) from None


def _views(sent: Any) -> Any:
    if isinstance(sent, Ring):
        # One more than is allowed already says too many; a billion need not be made to be counted.
        return ring(min(sent.count, MAX_VIEWS + 1), sent.elevation_deg)
    if isinstance(sent, tuple):
        return tuple(View(**view.model_dump()) for view in sent)
    return View(**sent.model_dump()) if sent is not None else None
