"""How a request becomes a job, and its answer: 202 at once, or 200 after the wait that was preferred."""

import asyncio
import re
from typing import Any

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from service.context import Context
from service.jobs import Job
from service.schemas import JobEnvelope, ProblemDocument

MAX_WAIT_S = 60
RETRY_AFTER_S = "1"

PREFER: dict[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "example": "wait=30"},
    "description": f"wait=N: answer when the job has ended, or after N seconds (at most {MAX_WAIT_S}), whichever is first",
}
CREATED: dict[int | str, dict[str, Any]] = {
    200: {"model": JobEnvelope, "description": "the job ended within the preferred wait (Prefer: wait=N)"},
    202: {"model": JobEnvelope, "description": "the job is queued; its address is in Location"},
    413: {"model": ProblemDocument},
    415: {"model": ProblemDocument},
    422: {"model": ProblemDocument},
    503: {"model": ProblemDocument},
}


async def submit(context: Context, request: Request, job: Job) -> Response:
    """Write the record, wake a worker, and answer."""
    wait_s = _preferred_wait_s(request)
    with context.endings.of(job.id) as ended:
        await run_in_threadpool(context.jobs.create, job)
        await run_in_threadpool(context.queue.wake, job.queue, job.id)
        if wait_s:
            await _wait(ended, wait_s)
    found = await run_in_threadpool(context.jobs.get, job.id) or job
    headers = {"Location": f"/v1/jobs/{job.id}"}
    if found.ended and wait_s:
        return _envelope(found, 200, headers | {"Preference-Applied": f"wait={wait_s}"})
    return _envelope(found, 202, headers | {"Retry-After": RETRY_AFTER_S})


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
