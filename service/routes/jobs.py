"""Jobs: look at them, cancel, pause and resume them, remove them."""

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, BeforeValidator

from service.callers import CallerOf
from service.context import ContextOf
from service.errors import Problem
from service.jobs import Job, Status, first_id_at
from service.routes.finding import NOT_FOUND, discard, find_job, find_own_job, page_of_jobs
from service.routes.submission import RETRY_AFTER_S
from service.schemas import JobEnvelope, JobPage, ProblemDocument

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?)(?:[Zz]|[+-]\d\d:\d\d| (\d\d:\d\d))")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _timestamp(value: object) -> object:
    """RFC 3339 alone, though pydantic knows more; a `+` that was not percent-encoded arrives as a space."""
    if not isinstance(value, str):
        return value
    found = _RFC_3339.fullmatch(value)
    if not found:
        raise ValueError("must be a date and a time with its offset from UTC, like 2026-01-31T12:00:00Z")
    return f"{found[1]}+{found[2]}" if found[2] else value


_CONFLICT = {**NOT_FOUND, 409: {"model": ProblemDocument}}


@router.get("", summary="List jobs, newest first")
def list_jobs(
    context: ContextOf,
    caller: CallerOf,
    kind: Annotated[str | None, Query(alias="type", max_length=100)] = None,
    status: Status | None = None,
    model: Annotated[str | None, Query(max_length=200)] = None,
    created_after: Annotated[
        Annotated[AwareDatetime, BeforeValidator(_timestamp)] | None, Query(description="RFC 3339 with its offset from UTC")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
) -> JobPage:
    """One page; `next_cursor` leads to the next, also from a page that is short because few of many jobs were wanted."""
    since = first_id_at((created_after - _EPOCH).total_seconds()) if created_after else None

    def wanted(job: Job) -> bool:
        return (
            (kind is None or job.type == kind)
            and (status is None or job.status == status)
            and (model is None or (job.model or {}).get("name") == model)
        )

    found, next_cursor = page_of_jobs(context, caller, wanted, limit, cursor, since)
    return JobPage(items=[JobEnvelope.of(job) for job in found], next_cursor=next_cursor)


@router.get("/{job_id}", responses=NOT_FOUND, summary="Look at a job")
def get_job(job_id: str, context: ContextOf, caller: CallerOf, response: Response) -> JobEnvelope:
    """The envelope."""
    job = find_job(context, caller, job_id)
    if not job.ended:
        response.headers["Retry-After"] = RETRY_AFTER_S
    return JobEnvelope.of(job)


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    summary="Cancel a job",
    responses={**_CONFLICT, 200: {"model": JobEnvelope, "description": "it had been cancelled already"}},
)
def cancel_job(job_id: str, context: ContextOf, caller: CallerOf, response: Response) -> JobEnvelope:
    """A waiting job ends at once, a running one at its next step."""
    find_own_job(context, caller, job_id)
    before = context.jobs.cancel(job_id)
    if before in ("succeeded", "failed"):
        raise Problem(409, f"the job has ended already, its status is {before}")
    if before in ("cancelled", "cancelling"):
        response.status_code = 200
    return JobEnvelope.of(find_job(context, caller, job_id))


@router.post(
    "/{job_id}/pause",
    status_code=202,
    summary="Pause a training",
    responses={**_CONFLICT, 200: {"model": JobEnvelope, "description": "it had been paused already"}},
)
def pause_job(job_id: str, context: ContextOf, caller: CallerOf, response: Response) -> JobEnvelope:
    """A running training stops at its next step and leaves a checkpoint; a waiting one leaves the queue."""
    _training(find_own_job(context, caller, job_id))
    before = context.jobs.pause(job_id)
    if before in ("succeeded", "failed", "cancelled", "cancelling"):
        raise Problem(409, f"a training that is {before} cannot be paused")
    if before in ("paused", "pausing"):
        response.status_code = 200
    return JobEnvelope.of(find_job(context, caller, job_id))


@router.post(
    "/{job_id}/resume",
    status_code=202,
    summary="Resume a paused training",
    responses={**_CONFLICT, 200: {"model": JobEnvelope, "description": "it is not paused"}},
)
def resume_job(job_id: str, context: ContextOf, caller: CallerOf, response: Response) -> JobEnvelope:
    """It is queued again and goes on from its checkpoint."""
    job = _training(find_own_job(context, caller, job_id))
    before = context.jobs.resume(job_id)
    if before in ("succeeded", "failed", "cancelled", "cancelling"):
        raise Problem(409, f"a training that is {before} cannot be resumed")
    if before == "paused":
        context.queue.wake(job.queue, job_id)
    elif before != "pausing":
        response.status_code = 200
    return JobEnvelope.of(find_job(context, caller, job_id))


@router.delete("/{job_id}", status_code=204, responses=NOT_FOUND, summary="End a job and remove what it made")
def delete_job(job_id: str, context: ContextOf, caller: CallerOf) -> None:
    """The record goes first: whatever remains is then nobody's, and swept."""
    find_own_job(context, caller, job_id)
    context.jobs.delete(job_id)
    discard(context, job_id)


def _training(job: Job) -> Job:
    if job.type != "training":
        raise Problem(409, f"only trainings can be paused and resumed, this is a {job.type}")
    return job
