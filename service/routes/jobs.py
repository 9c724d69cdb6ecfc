"""Jobs: look at them, cancel them, remove them, fetch what they made."""

from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from service.artifacts import StorageError
from service.context import Context, ContextOf
from service.errors import Problem
from service.jobs import Job, JobType, Status, first_id_at, is_id
from service.routes.submission import RETRY_AFTER_S
from service.schemas import Artifact, JobEnvelope, JobPage, ProblemDocument

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ProblemDocument}}


@router.get("", summary="List jobs, newest first")
def list_jobs(
    context: ContextOf,
    kind: Annotated[JobType | None, Query(alias="type")] = None,
    status: Status | None = None,
    model: Annotated[str | None, Query(max_length=200)] = None,
    created_after: Annotated[AwareDatetime | None, Query(description="RFC 3339 with its offset from UTC")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
) -> JobPage:
    """One page; `next_cursor` leads to the next."""
    if cursor is not None and not is_id(cursor):
        raise Problem(422, "this is no cursor of ours", field="cursor")
    since = first_id_at((created_after - _EPOCH).total_seconds()) if created_after else None
    found = (
        job
        for job in context.jobs.newest_first(cursor, since)
        if (kind is None or job.type == kind)
        and (status is None or job.status == status)
        and (model is None or (job.model or {}).get("name") == model)
    )
    page = list(islice(found, limit + 1))
    next_cursor = page[limit - 1].id if len(page) > limit else None
    return JobPage(items=[JobEnvelope.of(job) for job in page[:limit]], next_cursor=next_cursor)


@router.get("/{job_id}", responses=_NOT_FOUND, summary="Look at a job")
def get_job(job_id: str, context: ContextOf, response: Response) -> JobEnvelope:
    """The envelope."""
    job = _found(context, job_id)
    if not job.ended:
        response.headers["Retry-After"] = RETRY_AFTER_S
    return JobEnvelope.of(job)


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    summary="Cancel a job",
    responses={
        **_NOT_FOUND,
        200: {"model": JobEnvelope, "description": "it had been cancelled already"},
        409: {"model": ProblemDocument},
    },
)
def cancel_job(job_id: str, context: ContextOf, response: Response) -> JobEnvelope:
    """A waiting job ends at once, a running one at its next step."""
    _found(context, job_id)
    before = context.jobs.cancel(job_id)
    if before in ("succeeded", "failed"):
        raise Problem(409, f"the job has ended already, its status is {before}")
    if before in ("cancelled", "cancelling"):
        response.status_code = 200
    return JobEnvelope.of(_found(context, job_id))


@router.delete("/{job_id}", status_code=204, responses=_NOT_FOUND, summary="End a job and remove what it made")
def delete_job(job_id: str, context: ContextOf) -> None:
    """The record goes first: whatever remains is then nobody's, and swept."""
    if not is_id(job_id) or not context.jobs.delete(job_id):
        raise _unknown()
    try:
        context.artifacts.remove_job(job_id)
    except OSError as error:
        raise StorageError(f"cannot remove the artifacts of {job_id}: {error}") from error


@router.get("/{job_id}/artifacts", responses=_NOT_FOUND, summary="List what a job made")
def list_artifacts(job_id: str, context: ContextOf) -> list[Artifact]:
    """Empty until the job has succeeded."""
    return [
        Artifact(
            **{name: file[name] for name in ("name", "kind", "media_type", "bytes", "sha256", "view")},
            href=f"/v1/jobs/{job_id}/artifacts/{file['name']}",
        )
        for file in _found(context, job_id).files
    ]


@router.get(
    "/{job_id}/artifacts/{name}",
    response_class=Response,
    summary="Fetch a file",
    responses={**_NOT_FOUND, 200: {"content": {"*/*": {}}}, 304: {"description": "the ETag is the one you have"}},
)
def get_artifact(job_id: str, name: str, context: ContextOf, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """The bytes, with a strong ETag."""
    file = next((file for file in _found(context, job_id).files if file["name"] == name), None)
    if file is None:
        raise Problem(404, "the job has no such artifact")
    etag = f'"{file["sha256"]}"'
    headers = {"ETag": etag, "X-Content-Type-Options": "nosniff", "Cache-Control": "private, no-cache"}
    if if_none_match and (if_none_match.strip() == "*" or etag in if_none_match):
        return Response(status_code=304, headers=headers)
    try:
        chunks = context.artifacts.chunks(file["key"])
    except FileNotFoundError:
        raise Problem(404, "the file is gone from the store") from None
    except OSError as error:
        raise StorageError(f"cannot read {file['key']}: {error}") from error
    headers["Content-Length"] = str(file["bytes"])
    return StreamingResponse(chunks, headers=headers, media_type=file["media_type"])


def _found(context: Context, job_id: str) -> Job:
    job = context.jobs.get(job_id)
    if job is None:
        raise _unknown()
    return job


def _unknown() -> Problem:
    return Problem(404, "there is no such job")
