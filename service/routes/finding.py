"""A caller's job, or the answer that there is none."""

from typing import Any

from service.callers import may_see
from service.context import Context
from service.errors import Problem
from service.jobs import Job
from service.schemas import ProblemDocument

NOT_FOUND: dict[int | str, dict[str, Any]] = {401: {"model": ProblemDocument}, 404: {"model": ProblemDocument}}


def find_job(context: Context, caller: str, job_id: str) -> Job:
    """The job; somebody else's is answered as one that does not exist."""
    job = context.jobs.get(job_id)
    if job is None or not may_see(caller, job):
        raise Problem(404, "there is no such job")
    return job
