"""What happens to a job, as it happens: server-sent events that resume without a gap, or a list."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool

from service.callers import CallerOf
from service.context import Context, ContextOf
from service.errors import Problem
from service.jobs import Event
from service.routes.finding import NOT_FOUND, find_job
from service.schemas import JobEvent
from service.waiting import END

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

KEEP_ALIVE_S = 15.0
START = "0-0"
_ID = r"^[0-9]{1,20}(-[0-9]{1,20})?$"


@router.get(
    "/events",
    response_class=Response,
    summary="Follow a job",
    responses={
        **NOT_FOUND,
        200: {
            "content": {
                "text/event-stream": {},
                "application/json": {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/JobEvent"}}},
            }
        },
    },
)
async def job_events(
    job_id: str,
    context: ContextOf,
    caller: CallerOf,
    accept: Annotated[str, Header()] = "text/event-stream",
    last_event_id: Annotated[str | None, Header(description="go on after this event", pattern=_ID)] = None,
) -> Response:
    """All events from the first, or from after `Last-Event-ID`, until the job has ended; as JSON those so far."""
    await run_in_threadpool(find_job, context, caller, job_id)
    after = last_event_id or START
    if any(int(part) >= 1 << 64 for part in after.split("-")):
        raise Problem(422, "this is no event's id", field="last-event-id")
    if "application/json" in accept and "text/event-stream" not in accept:
        events = await run_in_threadpool(_since, context, job_id, after)
        return Response(json.dumps([event.model_dump() for event in events]), media_type="application/json")
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(context, job_id, after), headers=headers, media_type="text/event-stream")


async def _stream(context: Context, job_id: str, after: str) -> AsyncIterator[bytes]:
    with context.signals.subscribe(job_id) as happened:
        while True:
            happened.clear()
            # the record first: of a job that had ended before, all events are there to be read
            job = await run_in_threadpool(context.jobs.get, job_id)
            for event in await run_in_threadpool(_since, context, job_id, after):
                yield format_sse_event(data_str=json.dumps(event.data), event=event.event, id=event.id)
                after = event.id
                if event.event == END:
                    return
            if job is None or job.ended:
                # removed, or its events are kept no more: there is nothing left to wait for
                yield format_sse_event(data_str=json.dumps({"status": job.status if job else "deleted"}), event=END, id=after)
                return
            if context.signals.ending:
                return  # without an `end`: the client asks again, from its last event on, and another process answers
            try:
                await asyncio.wait_for(happened.wait(), KEEP_ALIVE_S)
            except TimeoutError:
                yield format_sse_event(comment="still here")


def _since(context: Context, job_id: str, after: str) -> list[JobEvent]:
    found = [_event(event) for event in context.jobs.events(job_id, after)]
    if after != START and context.jobs.misses(job_id, after):
        found.insert(0, JobEvent(id=after, event="gap", data={"after": after}))
    return found


def _event(event: Event) -> JobEvent:
    kind: Any = event.kind
    return JobEvent(id=event.id, event=kind, data=event.data)
