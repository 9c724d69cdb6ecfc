"""All that can happen to job records, and all that can be asked of them."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from service.jobs.ids import is_id, new_id, now, rfc3339
from service.jobs.record import FILTERED, LISTED, SCHEMA, TYPES, Job, Status, Verdict, dump, fields_of_new, flat, parse
from service.settings import Settings

EVENTS_CHANNEL = "sdfsrn:events"

_RUNNING = "sdfsrn:running"
_EXPIRING = "sdfsrn:expiring"
_WEBHOOKS = "sdfsrn:webhooks"
_INDEX = "sdfsrn:jobs"
_NO_QUOTAS: Mapping[str, int] = MappingProxyType({})
_ALIVE_S = 10
_PAGE = 100
LOOKED_AT = 2_000
_ENDED = "the worker ended without a word; it may have run out of memory"


class Conflict(Exception):
    """The idempotency key was used for another request."""


class Full(Exception):
    """One of the owner's quotas has no room: which one, and what the owner has of it."""

    def __init__(self, quota: str, has: int) -> None:
        super().__init__(quota, has)
        self.quota, self.has = quota, has


@dataclass(frozen=True)
class Event:
    """One entry of a job's stream: `kind` is status, progress, metric, log or end."""

    id: str
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Publication:
    """Under which name a job's checkpoint is served from its end on; `first` is the lowest version number that is free."""

    name: str
    first: int
    card: str


def connect(settings: Settings, timeout_s: float = 10) -> "redis.Redis":
    """A client of the broker that gives up soon: who asks can say so, and who must go on asks again."""
    return redis.Redis.from_url(
        settings.broker_url,
        decode_responses=True,
        socket_timeout=timeout_s,
        socket_connect_timeout=5,
        health_check_interval=15,
        retry=Retry(ConstantBackoff(0.1), 1),
    )


class Jobs:
    """One client of the broker."""

    def __init__(self, client: "redis.Redis") -> None:
        self._redis: Any = client
        self._script: Any = client.register_script(files("service.jobs").joinpath("commands.lua").read_text())

    def create(self, job: Job, quotas: Mapping[str, int] = _NO_QUOTAS, key: str = "", digest: str = "") -> str:
        """Write the record and put it in its queue; its id, or that of the first job with the same idempotency `key`.

        `digest` tells requests apart under one key: raises Conflict if it differs. Raises Full if the owner's `quotas`
        (of `unfinished` jobs, `jobs` on record, `bytes` in the store, `versions` of models) have no room for the job.
        """
        asked = {"unfinished": 1, "jobs": 1, "bytes": job.bytes} | ({"versions": 1} if job.params.get("publish_as") else {})
        about_quotas = json.dumps(asked), json.dumps(dict(quotas))
        outcome = self._run("create", job.id, job.queue, job.owner, key, digest, *about_quotas, *fields_of_new(job))
        if outcome[0] == "conflict":
            raise Conflict
        if outcome[0] == "full":
            raise Full(*outcome[1:])
        return str(outcome[1])

    def asked_before(self, owner: str, key: str, digest: str) -> str | None:
        """The job that the same request under this idempotency key made; raises Conflict if it was another request."""
        outcome, job_id = self._run("asked_before", owner, key, digest)
        if outcome == "conflict":
            raise Conflict
        return str(job_id) if outcome == "repeated" else None

    def check_room(self, owner: str, quotas: Mapping[str, int]) -> None:
        """Raise Full if the owner's `quotas` have no room for another job of next to no bytes."""
        full = self._run("full", owner, json.dumps({"unfinished": 1, "jobs": 1, "bytes": 1}), json.dumps(dict(quotas)))
        if full:
            raise Full(*full[1:])

    def get(self, job_id: str) -> Job | None:
        """The job, with its place in the queue; None if there is no such job."""
        return next(iter(self._load([job_id])), None) if is_id(job_id) else None

    def newest_first(
        self, owner: str, before: str | None, since: str | None, wanted: Callable[[Job], bool], limit: int, files: bool = False
    ) -> tuple[list[Job], str | None]:
        """Up to `limit` jobs of an owner that are `wanted`, and the id to go on `before`, None at the end.

        `before` and `since` are ids (exclusive and inclusive). `wanted` sees the fields FILTERED; what is found has the
        fields LISTED, and with `files` these too. No more than LOOKED_AT records are looked at, so the list may be short,
        or empty, and yet go on.
        """
        index = f"{_INDEX}:{owner}" if owner else _INDEX
        fields = (*LISTED, "files") if files else LISTED
        found: list[str] = []
        for _ in range(LOOKED_AT // _PAGE):
            top, bottom = f"({before}" if before else "+", f"[{since}" if since else "-"
            ids = self._redis.zrevrangebylex(index, top, bottom, 0, _PAGE)
            found += [record["id"] for record in self._records(ids, FILTERED) if wanted(parse(record, None))]
            if len(found) >= limit:
                found, before = found[:limit], found[limit - 1]
                break
            before = ids[-1] if len(ids) == _PAGE else None
            if before is None:
                break
        return [job for job in self._load(found, fields) if wanted(job)], before

    def claim(
        self, queue: str, worker: str, max_bytes: int | None = None, types: Sequence[str] = TYPES, schema: int = SCHEMA
    ) -> Job | None:
        """Take the first job of a queue under a new fence; None if nothing waits, or if this worker is leaving.

        What the worker cannot run, jobs of other `types` or with a newer `schema` of parameters, is left in the queue for
        another worker. Jobs that were not begun yet, of owners that keep more than `max_bytes` by now, fail on the way.
        """
        error = {
            "type": "urn:sdfsrn:problem:over-quota",
            "title": "The quota is used up",
            "detail": f"the job was not begun, for your jobs and models keep more than the {max_bytes} bytes that one caller may "
            "have; delete jobs, data sets or models you need no more, then send it again",
        }
        about_worker = max_bytes or "", dump(error), json.dumps(list(types)), schema
        while claimed := self._run("claim", queue, worker, new_id(), *_present(), *about_worker):
            job_id, fence = claimed
            job = self.get(job_id)
            # a worker may be stopped here for longer than its lease: the job is then removed, ended or under another's fence
            if job and job.fence == fence and not job.ended:
                return job
        return None

    def heartbeat(self, job: Job) -> Verdict:
        """Show that the worker lives, and hear whether it should go on."""
        verdict: Verdict = self._run("heartbeat", job.id, job.fence)
        return verdict

    def progress(self, job: Job, progress: dict[str, Any], metrics: dict[str, Any]) -> bool:
        """Report how far the job is; False if the claim is lost."""
        return bool(self._run("progress", job.id, job.fence, dump(progress), dump(metrics)))

    def log(self, job: Job, message: str, level: str = "info") -> bool:
        """Say something to who watches; False if the claim is lost."""
        return bool(self._run("log", job.id, job.fence, dump({"level": level, "message": message})))

    def checkpoint(self, job: Job, checkpoint: dict[str, Any]) -> bool:
        """Name the stored checkpoint (`key`, `sha256`, `bytes`, `step`) to resume from; False if the claim is lost."""
        return bool(self._run("checkpoint", job.id, job.fence, dump(checkpoint), checkpoint["step"]))

    def finish(self, job: Job, status: Status, publication: Publication | None = None, **values: Any) -> bool:
        """End the job and publish `files`, `metrics`, `error`, `provenance` with it; False if the claim is lost."""
        dumped = flat({name: dump(value) for name, value in values.items()})
        told = json.dumps(asdict(publication)) if publication else ""
        kept = sum(int(file.get("bytes", 0)) for file in values.get("files", ()))
        return bool(self._run("finish", job.id, job.fence, status, *_present(), kept, told, *dumped))

    def release(self, job: Job) -> str:
        """Give back a job that was stopped on request: it is then cancelled, paused or queued again; or the claim is "lost"."""
        return str(self._run("release", job.id, job.fence, *_present()))

    def cancel(self, job_id: str) -> Status | None:
        """End a waiting job, ask a running one to end; the status it had, None if there is no such job."""
        status: Status | None = self._run("cancel", job_id, *_present())
        return status

    def pause(self, job_id: str) -> Status | None:
        """Take a waiting job out of its queue, ask a running one to stop for a while; the status it had."""
        status: Status | None = self._run("pause", job_id)
        return status

    def resume(self, job_id: str) -> Status | None:
        """Queue a paused job again; the status it had."""
        status: Status | None = self._run("resume", job_id)
        return status

    def delete(self, job_id: str) -> bool:
        """Remove the record; a worker that holds the job finds its claim lost."""
        return bool(self._run("delete", job_id))

    def leave(self, worker: str) -> None:
        """Say that a worker ends in good order: it claims nothing more and is asked for what it holds; this is no loss."""
        self._run("leave", worker)

    def events(self, job_id: str, after: str = "0-0") -> list[Event]:
        """What happened to a job after the event of that id."""
        entries = self._redis.xrange(f"sdfsrn:events:{job_id}", f"({after}", "+")
        return [Event(entry_id, entry["kind"], json.loads(entry["data"])) for entry_id, entry in entries]

    def misses(self, job_id: str, after: str) -> bool:
        """Whether the event of that id, and so perhaps some after it, is kept no more: of a job long ended, none is."""
        first = self._redis.xrange(f"sdfsrn:events:{job_id}", "-", "+", count=1)
        return _order(first[0][0]) > _order(after) if first else bool(self._redis.exists(_key(job_id)))

    def beats(self) -> dict[str, tuple[str, str]]:
        """Fence and heartbeat of every claimed job."""
        ids = sorted(self._redis.smembers(_RUNNING))
        pipe = self._redis.pipeline(transaction=False)
        for job_id in ids:
            pipe.hmget(_key(job_id), "fence", "beat")
        return {job_id: (fence or "", beat or "") for job_id, (fence, beat) in zip(ids, pipe.execute(), strict=True)}

    def lose(self, job_id: str, seen: tuple[str, str], max_attempts: int, why: str = _ENDED) -> str:
        """Requeue a job whose heartbeat is as it was `seen`, or fail it when that happened too often; its status then.

        "alive" if it moved since; of a job that nobody works on nothing changes ("gone" if there is no such job).
        """
        error = {
            "type": "urn:sdfsrn:problem:worker-lost",
            "title": "The worker was lost",
            "detail": f"the job was lost {max_attempts} times with no newer checkpoint in between, at last because {why}",
        }
        return str(self._run("lose", job_id, *seen, *_present(), max_attempts, dump(error)))

    def expired(self, limit: int) -> list[str]:
        """Jobs whose artifacts were kept long enough."""
        ids: list[str] = self._redis.zrangebyscore(_EXPIRING, "-inf", time.time(), 0, limit)
        return ids

    def expire(self, job_id: str, remembered: int) -> None:
        """Note that the artifacts are gone; so many expired jobs of one owner stay on record, the latest."""
        self._run("expire", job_id, time.time(), remembered)

    def forgettable(self, limit: int) -> list[str]:
        """Expired jobs whose records have said so long enough."""
        ids: list[str] = self._redis.zrangebyscore("sdfsrn:forgetting", "-inf", time.time(), 0, limit)
        return ids

    def webhooks_due(self, limit: int) -> dict[str, tuple[str | None, str | None]]:
        """Ended jobs whose callers wait to be told, those that wait longest first: the webhook's address, and when it ended."""
        ids: list[str] = self._redis.zrangebyscore(_WEBHOOKS, "-inf", time.time(), 0, limit)
        pipe = self._redis.pipeline(transaction=False)
        for job_id in ids:
            pipe.hmget(_key(job_id), "webhook", "finished_at")
        return {job_id: (url, finished_at) for job_id, (url, finished_at) in zip(ids, pipe.execute(), strict=True)}

    def begin_webhook(self, job_id: str, again_in_s: float) -> int:
        """Count an attempt, and plan the next one in case this one is not heard of again; how many there were with it.

        0 if none is due, as when another keeper began one.
        """
        moment = time.time()
        return int(self._run("webhook_begin", job_id, new_id(), moment, moment + again_in_s))

    def plan_webhook(self, job_id: str, in_s: float) -> None:
        """Plan the next attempt."""
        self._run("webhook_at", job_id, time.time() + in_s)

    def webhook_done(self, job_id: str) -> None:
        """Told, or given up."""
        self._run("webhook_done", job_id)

    def model_names(self, owner: str) -> list[str]:
        """The models that an owner published."""
        return sorted(self._redis.smembers(f"sdfsrn:models:{owner}" if owner else "sdfsrn:models"))

    def models(self, wanted: list[tuple[str, str]]) -> list[dict[str, str]]:
        """Of each owner and name, the model's versions ("version N": card) and aliases ("alias A": N)."""
        pipe = self._redis.pipeline(transaction=False)
        for owner, name in wanted:
            pipe.hgetall(f"sdfsrn:model:{owner}:{name}")
        records: list[dict[str, str]] = pipe.execute()
        return records

    def model_files(self) -> set[str]:
        """The keys in the store that some version of some model names."""
        cards = (self._redis.hgetall(key).items() for key in self._redis.scan_iter("sdfsrn:model:*", count=1000))
        return {str(json.loads(value)["source"]["key"]) for card in cards for field, value in card if field.startswith("version ")}

    def publish(self, owner: str, name: str, first: int, source: str, card: str, quotas: Mapping[str, int] = _NO_QUOTAS) -> int:
        """Add a version to a model, or find the one that the same source was published as; its number.

        Raises Full if the owner's `quotas` have no room for another one.
        """
        asked = {"versions": 1, "bytes": json.loads(card)["bytes"]}
        outcome = self._run("publish", owner, name, first, source, card, json.dumps(asked), json.dumps(dict(quotas)))
        if isinstance(outcome, list):
            raise Full(*outcome[1:])
        return int(outcome)

    def alias(self, owner: str, name: str, alias: str, number: int, first: int) -> bool:
        """Let an alias mean a version; False if there is no such version."""
        return bool(self._run("alias", owner, name, alias, number, first))

    def drop_alias(self, owner: str, name: str, alias: str) -> bool:
        """Forget an alias; False if there is none."""
        return bool(self._redis.hdel(f"sdfsrn:model:{owner}:{name}", f"alias {alias}"))

    def withdraw(self, owner: str, name: str, number: int | None) -> None:
        """Remove a version and its aliases, or all of a model."""
        self._run("withdraw", owner, name, "" if number is None else number)

    def head(self, queue: str) -> str | None:
        """The job that is next in a queue."""
        ids: list[str] = self._redis.zrange(f"sdfsrn:queue:{queue}", 0, 0)
        return ids[0] if ids else None

    def waiting(self, queue: str) -> int:
        """How many jobs a queue holds."""
        return int(self._redis.zcard(f"sdfsrn:queue:{queue}"))

    def running(self) -> int:
        """How many jobs are claimed."""
        return int(self._redis.scard(_RUNNING))

    def ended(self) -> dict[tuple[str, str], int]:
        """How many jobs ended, by type and status."""
        counts = self._redis.hgetall("sdfsrn:ended")
        split = ((*name.partition(" "), int(count)) for name, count in counts.items())
        return {(kind, status): count for kind, _, status, count in split}

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

    def _run(self, command: str, *args: Any) -> Any:
        return self._script(args=[command, *args])

    def _records(self, ids: list[str], fields: Sequence[str]) -> list[dict[str, str]]:
        """These fields of the records that are there, or all of them without `fields`."""
        pipe = self._redis.pipeline(transaction=False)
        for job_id in ids:
            if fields:
                pipe.hmget(_key(job_id), fields)
            else:
                pipe.hgetall(_key(job_id))
        found = pipe.execute()
        if fields:
            found = [{name: value for name, value in zip(fields, values, strict=True) if value is not None} for values in found]
        return [record for record in found if record]

    def _load(self, ids: list[str], fields: Sequence[str] = ()) -> Iterator[Job]:
        records = self._records(ids, fields)
        pipe = self._redis.pipeline(transaction=False)
        for record in records:
            pipe.zrank(f"sdfsrn:queue:{record['queue']}", record["id"])
        for record, position in zip(records, pipe.execute(), strict=True):
            yield parse(record, position)


def _key(job_id: str) -> str:
    return f"sdfsrn:job:{job_id}"


def _present() -> tuple[str, float]:
    at = time.time()
    return rfc3339(at), at


def _order(event_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = event_id.partition("-")
    return int(milliseconds), int(sequence or 0)
