"""How a request becomes a job, and its answer: 202 at once, or 200 after the wait that was preferred."""

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Header, Request, Response
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from service.context import Context
from service.errors import Problem
from service.jobs import Conflict, Full, Job
from service.routes.finding import discard
from service.routes.quotas import over_quota
from service.schemas import JobEnvelope, ProblemDocument

MAX_WAIT_S = 60
RETRY_AFTER_S = "1"

PREFER: dict[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "example": "wait=1"},
    "description": f"wait=N: answer when the job has ended, or after N seconds (at most {MAX_WAIT_S}), whichever is first",
}
CREATED: dict[int | str, dict[str, Any]] = {
    200: {"model": JobEnvelope, "description": "the job ended within the preferred wait (Prefer: wait=N)"},
    202: {"model": JobEnvelope, "description": "the job is queued; its address is in Location"},
    413: {"model": ProblemDocument},
    415: {"model": ProblemDocument},
    422: {"model": ProblemDocument},
    429: {
        "model": ProblemDocument,
        "description": "you have as much as one caller may, or files that wait; Retry-After says when to try again",
    },
    503: {"model": ProblemDocument},
}


IdempotencyKey = Annotated[
    str,
    Header(
        max_length=255,
        description="the same key and the same request, within 24 hours, get the first job instead of another one",
    ),
]


@dataclass(frozen=True)
class Asked:
    """A request that is to become a job: `digest` tells it from another one under the same idempotency `key`."""

    request: Request
    caller: str
    key: str
    digest: str

    @classmethod
    def of(cls, request: Request, caller: str, key: str, resolved: dict[str, Any]) -> "Asked":
        """`resolved` is what the request comes to, with all defaults and the digests of its files, however it was spelt out."""
        text = json.dumps([request.url.path, resolved], sort_keys=True, default=str)
        return cls(request, caller, key, hashlib.sha256(text.encode()).hexdigest())


async def asked_before(context: Context, asked: Asked) -> str | None:
    """The first job, if the same was asked under the same key before: before anything else is looked at."""
    try:
        return await run_in_threadpool(context.jobs.asked_before, asked.caller, asked.key, asked.digest) if asked.key else None
    except Conflict:
        raise _conflict() from None


async def check_quota(context: Context, caller: str) -> None:
    """Raise a Problem if another job of the caller would be refused: before the work that it would cost to take one in."""
    try:
        await run_in_threadpool(context.jobs.check_room, caller, context.settings.quotas)
    except Full as full:
        raise over_quota(full, context.settings) from None


async def submit(context: Context, asked: Asked, job: Job | str) -> Response:
    """Write the record, wake a worker, and answer; of a job that was asked for before, by its id, answer alone."""
    if isinstance(job, str):
        return await _answer(context, asked.request, job)
    settings = context.settings
    job = replace(job, expires_if_failed=settings.retention_s)
    try:
        job_id = await run_in_threadpool(context.jobs.create, job, settings.quotas, asked.key, asked.digest)
    except Conflict:
        raise _conflict() from None
    except Full as full:
        raise over_quota(full, settings) from None
    return await _answer(context, asked.request, job_id, queue=job.queue if job_id == job.id else None)


async def submit_with_input(context: Context, asked: Asked, job: Job | str) -> Response:
    """As `submit`, for a job whose input lies in the store already: it is removed again unless this job is to read it."""
    if isinstance(job, str):
        return await submit(context, asked, job)
    try:
        answer = await submit(context, asked, job)
    except Exception:
        if await run_in_threadpool(context.jobs.get, job.id) is None:
            await run_in_threadpool(discard, context, job.id)
        raise
    if not answer.headers["location"].endswith(job.id):  # an earlier job's
        await run_in_threadpool(discard, context, job.id)
    return answer


def _conflict() -> Problem:
    return Problem(422, "this Idempotency-Key was used for another request; take a new one for each", field="idempotency-key")


async def _answer(context: Context, request: Request, job_id: str, queue: str | None = None) -> Response:
    """The job's envelope, at its end if that was preferred; a worker of its `queue` is woken, if it is new."""
    wait_s = _preferred_wait_s(request)
    with context.signals.subscribe(job_id, only_end=True) as ended:
        wake = BackgroundTask(context.queue.wake, queue, job_id) if queue else None
        if wake and wait_s:
            await wake()
        found = await run_in_threadpool(context.jobs.get, job_id)
        if found is None:
            raise Problem(404, "the job was removed in the meantime")
        if wait_s and not found.ended:
            await _wait(ended, wait_s)
            found = await run_in_threadpool(context.jobs.get, job_id) or found
    headers = {"Location": f"/v1/jobs/{job_id}"}
    if found.ended and wait_s:
        return _envelope(found, 200, headers | {"Preference-Applied": f"wait={wait_s}"})
    answer = _envelope(found, 202, headers | {"Retry-After": RETRY_AFTER_S})
    answer.background = wake if not wait_s else None  # nobody need wait for a worker to hear of it
    return answer


def _preferred_wait_s(request: Request) -> int:
    preferences = ",".join(request.headers.getlist("prefer"))
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,9})", preferences, re.IGNORECASE)
    return min(int(found[1]), MAX_WAIT_S) if found else 0


async def _wait(ended: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(ended.wait(), seconds)
    except TimeoutError:
        return


def _envelope(job: Job, status: int, headers: dict[str, str]) -> Response:
    return Response(JobEnvelope.of(job).model_dump_json(), status, headers, media_type="application/json")
