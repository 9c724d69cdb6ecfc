"""The job as its record has it: one hash in Valkey, JSON in the fields that hold more than a text."""

import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from service.jobs.ids import rfc3339

Status = Literal["queued", "running", "cancelling", "pausing", "paused", "succeeded", "failed", "cancelled"]
# The types of this version of the service. The store may hold others, of a newer version: they are shown as they are.
TYPES = ("reconstruction", "training", "dataset")
# How `params` are written. 0: with all defaults of the version that took the job in; 1: what the client said, and no more.
SCHEMA = 1
Verdict = Literal["ok", "cancel", "pause", "release", "lost"]

ENDED: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class Job:
    """`source` and `data` are where a worker finds the model and the data set; `files` is the manifest; `owner` "" is everybody.

    `params` are what the client said (of older jobs: with the defaults of their time); `resolved_params` fills in the rest.

    `bytes` is what it keeps in the store: its input, then its newest checkpoint, in the end its files.
    """

    id: str
    type: str
    queue: str
    created_at: str
    owner: str = ""
    trace: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] | None = None
    source: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    input_digest: str | None = None
    webhook: str | None = None
    expires_after: int | None = None
    expires_if_failed: int | None = None
    schema: int = SCHEMA
    bytes: int = 0
    status: Status = "queued"
    fence: int = 0
    attempt: int = 0
    progress: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)
    checkpoint: dict[str, Any] | None = None
    published: dict[str, Any] | None = None
    started_at: str | None = None
    finished_at: str | None = None
    expires_at: str | None = None
    expired: bool = False
    position: int | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in ENDED


_JSON = (
    *("params", "metadata", "model", "source", "data", "progress", "metrics"),
    *("error", "provenance", "files", "checkpoint", "published"),
)
_NUMBERS = ("fence", "attempt", "expires_after", "expires_if_failed", "bytes", "schema")
_TEXT = ("id", "type", "created_at", "trace", "input_digest", "webhook", "started_at", "finished_at")


# What `wanted` of a list may look at, and what a list shows: a manifest of hundreds of files is no part of it.
FILTERED = ("id", "type", "queue", "created_at", "status", "model")
LISTED = tuple(
    {"owner", "queue", "status", "expires_at", "expired", *_TEXT, *_JSON, *_NUMBERS} - {"files", "source", "data", "checkpoint"}
)


def fields_of_new(job: Job) -> list[Any]:
    """What is written as a job is created: names and values in turn; owner, queue and status are the script's."""
    values = {name: value for name in _TEXT if (value := getattr(job, name))}
    values |= {name: dump(getattr(job, name)) for name in _JSON}
    numbers = ("expires_after", "expires_if_failed", "schema")
    values |= {name: value for name in numbers if (value := getattr(job, name)) is not None}
    return flat(values)


def parse(record: dict[str, str], position: int | None) -> Job:
    """The job of a hash."""
    values: dict[str, Any] = {name: record[name] for name in (*_TEXT, "queue", "owner", "status") if name in record}
    values |= {name: json.loads(record[name]) for name in _JSON if name in record}
    values |= {name: int(record[name]) for name in _NUMBERS if name in record}
    values.setdefault("schema", 0)
    if "expires_at" in record:
        values["expires_at"] = rfc3339(float(record["expires_at"]))
    return Job(**values, expired=record.get("expired") == "1", position=position)


def flat(values: dict[str, Any]) -> list[Any]:
    """Names and values in turn."""
    return [part for item in values.items() for part in item]


def dump(value: Any) -> str:
    """JSON, which knows no NaN and no infinity: they become null. Half a surrogate, which is no text, becomes ?."""
    text = json.dumps(_finite(value), default=float, allow_nan=False, ensure_ascii=False)
    return text.encode(errors="replace").decode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
