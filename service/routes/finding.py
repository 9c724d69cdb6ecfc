"""A caller's job, or the answer that there is none; a page of them; and what is left of one."""

import logging
from collections.abc import Callable
from typing import Any

from service.artifacts import StorageError
from service.callers import may_see
from service.context import Context
from service.errors import Problem
from service.jobs import Job, is_id
from service.registry import EVERYBODY
from service.schemas import ProblemDocument

_log = logging.getLogger(__name__)

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ProblemDocument}}


def find_job(context: Context, caller: str, job_id: str) -> Job:
    """The job; somebody else's is answered as one that does not exist."""
    job = context.jobs.get(job_id)
    if job is None or not may_see(caller, job):
        raise Problem(404, "there is no such job")
    return job


def find_own_job(context: Context, caller: str, job_id: str) -> Job:
    """A job that the caller may change: with keys, one made before there were any is only looked at."""
    job = find_job(context, caller, job_id)
    if job.owner != caller:
        raise Problem(403, "this job is everybody's: it was made when there were no keys")
    return job


def page_of_jobs(
    context: Context,
    caller: str,
    wanted: Callable[[Job], bool],
    limit: int,
    cursor: str | None,
    since: str | None = None,
    files: bool = False,
) -> tuple[list[Job], str | None]:
    """The caller's jobs and everybody's that are `wanted`, newest first, and the cursor of the next page."""
    if cursor is not None and not is_id(cursor):
        raise Problem(422, "this is no cursor of ours", field="cursor")
    owners = dict.fromkeys((EVERYBODY, caller))
    pages = [context.jobs.newest_first(owner, cursor, since, wanted, limit, files) for owner in owners]
    # Each list goes on before its own last id: together they are complete down to the highest of these.
    goes_on = [before for _, before in pages if before is not None]
    floor = max(goes_on, default="")
    found = sorted((job for page, _ in pages for job in page if job.id >= floor), key=lambda job: job.id, reverse=True)
    if len(found) > limit:
        found, floor = found[:limit], found[limit - 1].id
    return found, floor or None


def discard(context: Context, job_id: str) -> None:
    """Remove the files of a job that has no record; what cannot be removed now, the keeper sweeps."""
    try:
        context.artifacts.remove_job(job_id)
    except StorageError as error:
        _log.warning("the files of job %s are left to the keeper: %s", job_id, error)
