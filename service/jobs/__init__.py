"""The job record: one hash per job in Valkey, and the truth about it.

Every change is one command of `commands.lua`, so it happens wholly or not at all. A claim takes a fence number; whoever
writes for a job shows its fence, and a worker that lost its claim changes nothing. A sorted set per queue holds what waits,
callers in turn, a stream per job what happened to it.
"""

from service.jobs.ids import first_id_at, is_id, new_id, now, rfc3339
from service.jobs.jobs import EVENTS_CHANNEL, Conflict, Event, Full, Jobs, Publication, connect
from service.jobs.record import ENDED, SCHEMA, TYPES, Job, Status, Verdict

__all__ = [
    "ENDED",
    "EVENTS_CHANNEL",
    "SCHEMA",
    "TYPES",
    "Conflict",
    "Event",
    "Full",
    "Job",
    "Jobs",
    "Publication",
    "Status",
    "Verdict",
    "connect",
    "first_id_at",
    "is_id",
    "new_id",
    "now",
    "rfc3339",
]
