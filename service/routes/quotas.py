"""What a caller hears who has as much as one may have."""

from service.errors import Problem
from service.jobs import Full
from service.settings import Settings

_RETRY_AFTER_S = "30"
_DETAILS = {
    "unfinished": "you have {has} unfinished jobs, {limit} is what one caller may have; wait for some or cancel them",
    "jobs": "you have {has} jobs on record, ended ones too unless they expired, {limit} is what one caller may have; delete those "
    "you need no more (DELETE /v1/jobs/ID), or let them expire (expires_after_s)",
    "bytes": "your jobs and models keep {has} bytes, this does not fit into the {limit} that one caller may have; delete jobs, "
    "data sets or models you need no more, or let jobs expire (expires_after_s)",
    "versions": "you have {has} versions of models, those included that your unfinished trainings are to be, {limit} is what one "
    "caller may have; remove those you need no more (DELETE /v1/models/NAME/versions/N), or cancel trainings",
}


def over_quota(full: Full, settings: Settings) -> Problem:
    """Which quota, how much of it is used, and what to do."""
    detail = _DETAILS[full.quota].format(has=full.has, limit=settings.quotas[full.quota])
    return Problem(429, detail, headers={"Retry-After": _RETRY_AFTER_S})
