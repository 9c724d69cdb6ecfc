"""The job record: one hash per job in Valkey, and the truth about it.

Every change of status is one Lua script, so it happens wholly or not at all. A claim takes a fence number; whoever
writes for a job shows its fence, and a worker that lost its claim changes nothing. A sorted set per queue holds what
waits.
"""

import json
import math
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from service.settings import Settings

Status = Literal["queued", "running", "cancelling", "pausing", "paused", "succeeded", "failed", "cancelled"]
JobType = Literal["reconstruction", "training"]
Verdict = Literal["ok", "cancel", "lost"]

ENDED: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})
ENDED_CHANNEL = "sdfsrn:ended"

_JOBS = "sdfsrn:jobs"
_RUNNING = "sdfsrn:running"
_ALIVE_S = 10
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_LENGTH = 26


def new_id(at: float | None = None) -> str:
    """An opaque id that sorts by time: 48 bits of milliseconds, 80 random bits, in base 32 (a ULID in lower case)."""
    return _base32((int((time.time() if at is None else at) * 1000) << 80) | secrets.randbits(80))


def first_id_at(at: float) -> str:
    """No id made at or after this time sorts before this one."""
    return _base32(max(0, int(at * 1000)) << 80)


def is_id(text: str) -> bool:
    """Whether a text has the form of a job id."""
    return len(text) == _ID_LENGTH and set(text) <= set(_ALPHABET)


def now() -> str:
    """The present as RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _base32(number: int) -> str:
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(5 * (_ID_LENGTH - 1), -1, -5))


@dataclass(frozen=True)
class Job:
    """A job as its record has it. `source` is where a worker finds the model; `files` is the published manifest."""

    id: str
    type: JobType
    queue: str
    created_at: str
    params: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] | None = None
    source: dict[str, Any] | None = None
    input_digest: str | None = None
    status: Status = "queued"
    fence: int = 0
    attempt: int = 0
    progress: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)
    checkpoint: dict[str, Any] | None = None
    started_at: str | None = None
    finished_at: str | None = None
    position: int | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in ENDED


# Fields of the hash that hold JSON; the others are plain text or numbers.
_JSON_FIELDS = (
    "params",
    "metadata",
    "model",
    "source",
    "progress",
    "metrics",
    "error",
    "provenance",
    "files",
    "checkpoint",
)
_TEXT_FIELDS = ("id", "type", "queue", "created_at", "input_digest", "status", "started_at", "finished_at")

_PRELUDE = """
local function job(id) return 'sdfsrn:job:' .. id end
local function queue(name) return 'sdfsrn:queue:' .. name end
local function holds(id, fence)
  local at = redis.call('HMGET', job(id), 'fence', 'status')
  return at[1] == fence and (at[2] == 'running' or at[2] == 'cancelling')
end
local function finish(id, status, at)
  redis.call('HSET', job(id), 'status', status, 'finished_at', at)
  redis.call('HDEL', job(id), 'worker')
  redis.call('SREM', 'sdfsrn:running', id)
  redis.call('PUBLISH', 'sdfsrn:ended', id)
end
local function requeue(id)
  redis.call('HSET', job(id), 'status', 'queued')
  redis.call('HDEL', job(id), 'worker')
  redis.call('HINCRBY', job(id), 'fence', 1)
  redis.call('SREM', 'sdfsrn:running', id)
  local at = redis.call('HMGET', job(id), 'queue', 'order')
  redis.call('ZADD', queue(at[1]), at[2], id)
end
"""

_SCRIPTS = {
    # The same id twice is a retry after a lost answer: the first one stands.
    "create": """
local id = ARGV[1]
if redis.call('EXISTS', job(id)) == 1 then return 0 end
local order = redis.call('INCR', 'sdfsrn:order')
redis.call('HSET', job(id), 'order', order, unpack(ARGV, 3))
redis.call('ZADD', queue(ARGV[2]), order, id)
redis.call('ZADD', 'sdfsrn:jobs', 0, id)
return 1""",
    "claim": """
if redis.call('EXISTS', 'sdfsrn:leaving:' .. ARGV[2]) == 1 then return false end
while true do
  local id = redis.call('ZPOPMIN', queue(ARGV[1]))[1]
  if not id then return false end
  if redis.call('HGET', job(id), 'status') == 'queued' then
    local fence = redis.call('HINCRBY', job(id), 'fence', 1)
    redis.call('HINCRBY', job(id), 'attempt', 1)
    redis.call('HSET', job(id), 'status', 'running', 'worker', ARGV[2],
               'step_at_claim', redis.call('HGET', job(id), 'checkpoint_step') or -1)
    redis.call('HSETNX', job(id), 'started_at', ARGV[3])
    redis.call('SADD', 'sdfsrn:running', id)
    return id
  end
end""",
    "heartbeat": """
if not holds(ARGV[1], ARGV[2]) then return 'lost' end
redis.call('HINCRBY', job(ARGV[1]), 'beat', 1)
if redis.call('HGET', job(ARGV[1]), 'status') == 'cancelling' then return 'cancel' end
return 'ok'""",
    "update": """
if not holds(ARGV[1], ARGV[2]) then return 0 end
redis.call('HSET', job(ARGV[1]), unpack(ARGV, 3))
return 1""",
    # What a cancelled job still finished is not published: its caller was told that it ends.
    "finish": """
local id, status = ARGV[1], ARGV[3]
if not holds(id, ARGV[2]) then return 0 end
if redis.call('HGET', job(id), 'status') == 'cancelling' then
  status = 'cancelled'
elseif #ARGV > 4 then
  redis.call('HSET', job(id), unpack(ARGV, 5))
end
finish(id, status, ARGV[4])
return 1""",
    "cancel": """
local id = ARGV[1]
local status = redis.call('HGET', job(id), 'status')
if status == 'queued' then
  redis.call('ZREM', queue(redis.call('HGET', job(id), 'queue')), id)
  finish(id, 'cancelled', ARGV[2])
elseif status == 'running' then
  redis.call('HSET', job(id), 'status', 'cancelling')
end
return status""",
    "delete": """
local id = ARGV[1]
local name = redis.call('HGET', job(id), 'queue')
if not name then return 0 end
redis.call('ZREM', queue(name), id)
redis.call('SREM', 'sdfsrn:running', id)
redis.call('ZREM', 'sdfsrn:jobs', id)
redis.call('DEL', job(id))
redis.call('PUBLISH', 'sdfsrn:ended', id)
return 1""",
    # The keeper looked, waited, and now says what it saw; if anything moved since, nothing happens.
    "lose": """
local id = ARGV[1]
local at = redis.call('HMGET', job(id), 'fence', 'beat', 'status', 'checkpoint_step', 'step_at_claim', 'losses')
if not at[3] then redis.call('SREM', 'sdfsrn:running', id) return 'gone' end
if at[1] ~= ARGV[2] or (at[2] or '') ~= ARGV[3] then return 'alive' end
if at[3] == 'cancelling' then finish(id, 'cancelled', ARGV[4]) return 'cancelled' end
local losses = tonumber(at[6] or 0)
if tonumber(at[4] or -1) <= tonumber(at[5]) then losses = redis.call('HINCRBY', job(id), 'losses', 1) end
if losses >= tonumber(ARGV[5]) then
  redis.call('HSET', job(id), 'error', ARGV[6])
  finish(id, 'failed', ARGV[4])
  return 'failed'
end
requeue(id)
return 'queued'""",
    "release": """
local released = {}
redis.call('SET', 'sdfsrn:leaving:' .. ARGV[1], 1, 'EX', 3600)
for _, id in ipairs(redis.call('SMEMBERS', 'sdfsrn:running')) do
  local at = redis.call('HMGET', job(id), 'worker', 'status')
  if at[1] == ARGV[1] and at[2] == 'running' then
    requeue(id)
    table.insert(released, id)
  end
end
return released""",
}


def connect(settings: Settings) -> "redis.Redis":
    """A client of the broker that gives up soon: who asks can say so, and who must go on asks again."""
    return redis.Redis.from_url(
        settings.broker_url,
        decode_responses=True,
        socket_timeout=10,
        socket_connect_timeout=5,
        health_check_interval=15,
        retry=Retry(ConstantBackoff(0.1), 1),
    )


class Jobs:
    """All that can happen to job records."""

    def __init__(self, client: "redis.Redis") -> None:
        self._redis: Any = client
        self._scripts: dict[str, Any] = {name: self._redis.register_script(_PRELUDE + body) for name, body in _SCRIPTS.items()}

    def create(self, job: Job) -> None:
        """Write the record and put it in its queue, in one step."""
        values = {name: value for name in _TEXT_FIELDS if (value := getattr(job, name)) is not None}
        values |= {name: _dump(getattr(job, name)) for name in _JSON_FIELDS}
        self._run("create", job.id, job.queue, *_flat(values))

    def get(self, job_id: str) -> Job | None:
        """The job, with its place in the queue; None if there is no such job."""
        return next(iter(self._load([job_id])), None) if is_id(job_id) else None

    def newest_first(self, before: str | None = None, since: str | None = None) -> Iterator[Job]:
        """Every job, newest first; `before` and `since` are ids (exclusive and inclusive)."""
        top, bottom = f"({before}" if before else "+", f"[{since}" if since else "-"
        while ids := self._redis.zrevrangebylex(_JOBS, top, bottom, 0, 50):
            yield from self._load(ids)
            top = f"({ids[-1]}"

    def claim(self, queue: str, worker: str) -> Job | None:
        """Take the head of a queue under a new fence; None if nothing waits, or if this worker gave its jobs back to end."""
        job_id = self._run("claim", queue, worker, now())
        return self.get(job_id) if job_id else None

    def heartbeat(self, job: Job) -> Verdict:
        """Show that the worker lives, and hear whether it should go on."""
        verdict: Verdict = self._run("heartbeat", job.id, job.fence)
        return verdict

    def progress(self, job: Job, progress: dict[str, Any], metrics: dict[str, Any]) -> bool:
        """Report how far the job is; False if the claim is lost."""
        return self._update(job, progress=_dump(progress), metrics=_dump(metrics))

    def checkpoint(self, job: Job, checkpoint: dict[str, Any]) -> bool:
        """Name the stored checkpoint (`key`, `sha256`, `bytes`, `step`) to resume from; False if the claim is lost."""
        return self._update(job, checkpoint=_dump(checkpoint), checkpoint_step=checkpoint["step"])

    def finish(self, job: Job, status: Status, **values: Any) -> bool:
        """End the job and publish `files`, `metrics`, `error`, `provenance` with it; False if the claim is lost."""
        dumped = _flat({name: _dump(value) for name, value in values.items()})
        return bool(self._run("finish", job.id, job.fence, status, now(), *dumped))

    def cancel(self, job_id: str) -> Status | None:
        """End a waiting job, ask a running one to end; the status it had, None if there is no such job."""
        status: Status | None = self._run("cancel", job_id, now())
        return status

    def delete(self, job_id: str) -> bool:
        """Remove the record; a worker that holds the job finds its claim lost."""
        return bool(self._run("delete", job_id))

    def release(self, worker: str) -> list[str]:
        """Put the jobs of a worker that ends in good order back in their queues; this is no loss. It gets no other."""
        released: list[str] = self._run("release", worker)
        return released

    def beats(self) -> dict[str, tuple[str, str]]:
        """Fence and heartbeat of every claimed job."""
        ids = sorted(self._redis.smembers(_RUNNING))
        pipe = self._redis.pipeline(transaction=False)
        for job_id in ids:
            pipe.hmget(_key(job_id), "fence", "beat")
        return {job_id: (fence or "", beat or "") for job_id, (fence, beat) in zip(ids, pipe.execute(), strict=True)}

    def lose(self, job_id: str, seen: tuple[str, str], max_attempts: int) -> str:
        """Requeue a job whose heartbeat is as it was `seen`, or fail it when that happened too often; the outcome."""
        error = {
            "type": "urn:sdfsrn:problem:worker-lost",
            "title": "The worker was lost",
            "detail": f"the worker ended without a word {max_attempts} times with no newer checkpoint in between; "
            "it may have run out of memory",
        }
        return str(self._run("lose", job_id, *seen, now(), max_attempts, _dump(error)))

    def head(self, queue: str) -> str | None:
        """The job that is next in a queue."""
        ids: list[str] = self._redis.zrange(f"sdfsrn:queue:{queue}", 0, 0)
        return ids[0] if ids else None

    def messages(self, queue: str) -> int:
        """How many wake-up messages nobody has taken yet."""
        return int(self._redis.llen(queue))

    def show_life(self, of: str) -> None:
        """Say that the keeper, or a worker of the queue named, is at its work."""
        self._redis.set(f"sdfsrn:alive:{of}", now(), ex=_ALIVE_S)

    def lives(self, of: str) -> bool:
        """Whether the keeper, or a worker of the queue named, showed itself lately."""
        return bool(self._redis.exists(f"sdfsrn:alive:{of}"))

    def ping(self) -> None:
        """Raise redis.RedisError unless the broker answers."""
        self._redis.ping()

    def _run(self, script: str, *args: Any) -> Any:
        return self._scripts[script](args=args)

    def _update(self, job: Job, **values: Any) -> bool:
        return bool(self._run("update", job.id, job.fence, *_flat(values)))

    def _load(self, ids: list[str]) -> Iterator[Job]:
        pipe = self._redis.pipeline(transaction=False)
        for job_id in ids:
            pipe.hgetall(_key(job_id))
        records = [record for record in pipe.execute() if record]
        pipe = self._redis.pipeline(transaction=False)
        for record in records:
            pipe.zrank(f"sdfsrn:queue:{record['queue']}", record["id"])
        for record, position in zip(records, pipe.execute(), strict=True):
            yield _parse(record, position)


def _key(job_id: str) -> str:
    return f"sdfsrn:job:{job_id}"


def _parse(record: dict[str, str], position: int | None) -> Job:
    values: dict[str, Any] = {name: record[name] for name in _TEXT_FIELDS if name in record}
    values |= {name: json.loads(record[name]) for name in _JSON_FIELDS if name in record}
    return Job(**values, fence=int(record.get("fence", 0)), attempt=int(record.get("attempt", 0)), position=position)


def _flat(values: dict[str, Any]) -> list[Any]:
    return [part for item in values.items() for part in item]


def _dump(value: Any) -> str:
    return json.dumps(_finite(value), default=float, allow_nan=False)


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
