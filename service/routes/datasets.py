"""Data sets of one's own: a zip of pictures, masks and cameras in, something to train on out.

A data set is the job that checked it: what the job made is the data set, and removing one removes the other.
"""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Query, Request, Response
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from sdfsrn.data.archive import Archive, BadDataset
from sdfsrn.data.sizes import check_sizes
from service.artifacts import job_key
from service.callers import CallerOf
from service.context import Context, ContextOf
from service.errors import Problem, field_errors
from service.forms import open_form, received_body
from service.jobs import Job, new_id, now
from service.logs import current_trace
from service.queue import DATASET
from service.routes.finding import NOT_FOUND, discard, find_job, find_own_job, page_of_jobs
from service.routes.submission import CREATED, PREFER, Asked, IdempotencyKey, asked_before, check_quota, submit_with_input
from service.schemas import DatasetCard, DatasetOptions, DatasetPage, Metadata
from service.webhooks import check_url

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

ZIP_TYPES = ("application/zip", "application/x-zip-compressed", "application/octet-stream")
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"schema": {"type": "object", "properties": {"archive": {"type": "string", "format": "binary"}}, "required": ["archive"]}}
_CHUNK = 1 << 20
_LOOKED_AT_S = 3.0  # of computing: what strangers send must not keep other requests waiting
_METADATA: TypeAdapter[dict[str, Any]] = TypeAdapter(Metadata)


@router.post(
    "",
    status_code=202,
    responses=CREATED,
    summary="Upload a data set",
    openapi_extra={
        "parameters": [PREFER],
        "requestBody": {"required": True, "content": {"application/zip": _BINARY, "multipart/form-data": _FORM}},
    },
)
async def create_dataset(
    request: Request,
    context: ContextOf,
    caller: CallerOf,
    options: Annotated[DatasetOptions, Query()],
    idempotency_key: IdempotencyKey = "",
) -> Response:
    """A zip with, for each object, a folder: `transforms.json` with its pictures, or `cameras.npz`, `image/` and `mask/`.

    What is no zip, or too large, is refused at once. The job checks the rest, and names every file that is bad.
    """
    asked, job = await _taken_in(request, context, caller, options, idempotency_key)
    return await submit_with_input(context, asked, job)


async def _taken_in(
    request: Request, context: Context, caller: str, options: DatasetOptions, idempotency_key: str
) -> tuple[Asked, Job | str]:
    """The job, its archive stored, or the id of the one that was asked for before; the upload is let go by then."""
    metadata = _metadata(options)
    if options.webhook_url is not None:
        check_url(options.webhook_url, caller, context.settings)
    if not idempotency_key:  # else this may be a repetition, which is answered all the same
        await check_quota(context, caller)
    async with _received(request) as archive:
        digest = await run_in_threadpool(_digest, archive)
        said = {"files": {"archive": digest}, **options.model_dump(), "metadata": metadata}
        asked = Asked.of(request, caller, idempotency_key, said)
        if before := await asked_before(context, asked):
            return asked, before
        await check_quota(context, caller)
        await run_in_threadpool(_check, archive, skip_bad=options.skip_bad)
        job_id = new_id()
        stored = await run_in_threadpool(context.artifacts.put_stream, job_key(job_id, "input", "archive.zip"), archive)
        job = Job(
            id=job_id,
            type="dataset",
            queue=DATASET,
            created_at=now(),
            owner=caller,
            trace=current_trace(),
            params={"name": options.name, "skip_bad": options.skip_bad, "recentre": options.recentre},
            metadata=metadata,
            webhook=options.webhook_url,
            input_digest=f"sha-256:{digest}",
            bytes=stored["bytes"],
        )
    return asked, job


@router.get("", summary="List data sets, newest first")
def list_datasets(
    context: ContextOf,
    caller: CallerOf,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
) -> DatasetPage:
    """Your own and everybody's, those that are still being checked and those that were refused included."""
    found, next_cursor = page_of_jobs(context, caller, lambda job: job.type == "dataset", limit, cursor, files=True)
    return DatasetPage(items=[DatasetCard.of(job) for job in found], next_cursor=next_cursor)


@router.get("/{dataset_id}", responses=NOT_FOUND, summary="Look at a data set")
def get_dataset(dataset_id: str, context: ContextOf, caller: CallerOf) -> DatasetCard:
    """How much it holds, its digest, and where to see it."""
    return DatasetCard.of(_dataset(find_job(context, caller, dataset_id)))


@router.delete("/{dataset_id}", status_code=204, responses=NOT_FOUND, summary="Remove a data set")
def delete_dataset(dataset_id: str, context: ContextOf, caller: CallerOf) -> None:
    """With its job. A training that has not begun yet and needs it will fail."""
    _dataset(find_own_job(context, caller, dataset_id))
    context.jobs.delete(dataset_id)
    discard(context, dataset_id)


def _dataset(job: Job) -> Job:
    if job.type != "dataset":
        raise Problem(404, "there is no such data set")
    return job


@asynccontextmanager
async def _received(request: Request) -> AsyncIterator[BinaryIO]:
    """The zip as a file without a name: nothing of it is left behind, whatever happens."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with open_form(request, max_files=1, max_fields=1) as form:
            parts = form.multi_items()
            if len(parts) != 1 or not isinstance(parts[0][1], UploadFile):
                raise Problem(422, "send one file, the zip, and nothing beside it", field="archive")
            yield parts[0][1].file
    elif kind in ZIP_TYPES:
        async with received_body(request) as archive:
            yield archive
    else:
        raise Problem(415, "send the zip itself as application/zip, or as the file of multipart/form-data", field="content-type")


def _metadata(options: DatasetOptions) -> dict[str, Any]:
    """Raises a Problem unless it is a JSON object of the caller's own names and values."""
    try:
        return _METADATA.validate_python(json.loads(options.metadata)) if options.metadata else {}
    except ValidationError as error:
        errors = [{"field": "metadata", "message": each["message"]} for each in field_errors(error.errors())]
        raise Problem(422, f"metadata: {errors[0]['message']}", errors=errors) from None
    except (ValueError, RecursionError):
        raise Problem(422, "metadata must be a JSON object, as the text of a query parameter", field="metadata") from None


def _check(archive: BinaryIO, *, skip_bad: bool) -> None:
    """Raise a Problem for what no worker need look at: no zip, names that lead astray, too many files, too large ones.

    Only the list of members and the headers of pictures are read, as many as a few seconds allow; nothing is decoded.
    """
    try:
        with Archive(archive, "archive") as opened:
            check_sizes(opened, skip_bad=skip_bad, within_s=_LOOKED_AT_S)
    except BadDataset as error:
        errors = [{"field": name, "message": reason} for name, reason in error.files.items()]
        raise Problem(413 if error.too_large else 422, str(error), errors=errors) from None
    archive.seek(0)


def _digest(archive: BinaryIO) -> str:
    archive.seek(0)
    digest = hashlib.sha256()
    while chunk := archive.read(_CHUNK):
        digest.update(chunk)
    archive.seek(0)
    return digest.hexdigest()
