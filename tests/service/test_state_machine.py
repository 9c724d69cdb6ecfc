"""Every script in every state, each also twice, on a real broker, beside a plain model of what should come of it.

Owners, workers, queues and idempotency keys are few, so that they meet; claims and looks of the keeper are kept and used
again when they are stale.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from service.jobs import ENDED, SCHEMA, TYPES, Conflict, Full, Job, Jobs, Publication, connect, new_id, now
from service.settings import Settings
from tests.conftest import Broker

RUNS = ("running", "cancelling", "pausing")
OWNERS = ("", "alice")
QUEUES = ("training", "dataset")
QUOTAS = {"unfinished": 4, "versions": 3}
LOSSES = 2
REMEMBERED = 2
CARD_BYTES = 7
CARD = json.dumps({"bytes": CARD_BYTES, "source": {"key": "k"}})
NAME = "m"


# One round trip: on a busy machine each costs as much as all the rest.
ALL = """
local function read(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'string' then return redis.call('GET', key) end
  if kind == 'hash' then return redis.call('HGETALL', key) end
  if kind == 'set' then return redis.call('SMEMBERS', key) end
  if kind == 'zset' then return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end
  return redis.call('XRANGE', key, '-', '+')
end
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do found[#found + 1] = {key, redis.call('TYPE', key).ok, read(key)} end
return cjson.encode(found)
"""


def stored(client: Any) -> dict[str, Any]:
    """All that the broker holds."""
    form: dict[str, Any] = {"hash": pairs, "set": set, "zset": lambda flat: sorted(pairs(flat).items(), key=lambda p: float(p[1]))}
    return {key: form.get(kind, lambda value: value)(value) for key, kind, value in json.loads(client.eval(ALL, 0))}


def pairs(flat: list[str]) -> dict[str, str]:
    """Names and values that stand in turn."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


class Twice(Jobs):
    """Sends every command once more, as a client does that did not get the answer: nothing may change any more.

    A heartbeat counts each time, which says no more than that somebody lives.
    """

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._client = client

    def _run(self, command: str, *args: Any) -> Any:
        answer = super()._run(command, *args)
        if command != "heartbeat":
            once = stored(self._client)
            super()._run(command, *args)
            assert stored(self._client) == once, f"{command} twice is not what it is once"
        return answer


@dataclass
class Expected:
    """What should be known of a job."""

    owner: str
    queue: str
    kind: str
    schema: int
    webhook: bool
    publishes: bool
    bytes: int
    status: str = "queued"
    fence: int = 0
    beat: int = 0
    worker: str = ""
    losses: int = 0
    begun: bool = False
    checkpoint_step: int = -1
    step_at_claim: int = -1
    expired: bool = False
    tries: int | None = None  # of a webhook that is to be told
    due: bool = False

    @property
    def runs(self) -> bool:
        return self.status in RUNS

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def runnable(self) -> bool:
        return self.kind in TYPES and self.schema <= SCHEMA

    def end(self, status: str, kept: int = 0) -> None:
        self.status, self.bytes = status, kept
        if self.webhook:
            self.tries, self.due = 0, True

    def requeue(self, status: str = "queued") -> None:
        self.status, self.fence = status, self.fence + 1


@dataclass
class Versions:
    """One owner's model: source by number, number by alias."""

    sources: dict[int, str] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    last: int = 0

    def publish(self, source: str) -> int:
        for number, known in self.sources.items():
            if known == source:
                return number
        self.last += 1
        self.sources[self.last] = source
        return self.last


class Scripts(RuleBasedStateMachine):
    """The rules are what clients, workers, the keeper and its webhooks do."""

    ids = Bundle("ids")
    claims = Bundle("claims")
    looks = Bundle("looks")

    def __init__(self, client: Any) -> None:
        super().__init__()
        self.client = client
        client.flushall()
        self.jobs = Twice(client)
        self.model: dict[str, Expected] = {}
        self.versions = {owner: Versions() for owner in OWNERS}
        self.reserved: dict[tuple[str, str], tuple[str, str]] = {}
        self.expired: dict[str, list[str]] = {owner: [] for owner in OWNERS}
        self.leaving: set[str] = set()
        self.ended: Counter[tuple[str, str]] = Counter()
        self.time = 0.0

    # -- what clients do

    @rule(
        target=ids,
        owner=st.sampled_from(OWNERS),
        queue=st.sampled_from(QUEUES),
        kind=st.sampled_from(("training", "dataset", "training", "training", "training", "of the future")),
        schema=st.sampled_from((SCHEMA, SCHEMA, SCHEMA, SCHEMA, 0, SCHEMA + 1)),
        webhook=st.booleans(),
        publishes=st.booleans(),
        size=st.integers(0, 9),
        key=st.sampled_from(("", "", "k")),
        digest=st.sampled_from("de"),
    )
    def create(self, **said: Any) -> Any:
        return self.created(**said)

    def created(
        self, owner: str, queue: str, kind: str, schema: int, webhook: bool, publishes: bool, size: int, key: str, digest: str
    ) -> Any:
        self.time += 1
        job = Job(
            id=new_id(self.time),
            type=kind,
            queue=queue,
            created_at=now(),
            owner=owner,
            schema=schema,
            bytes=size,
            webhook="http://127.0.0.1/" if webhook else None,
            params={"publish_as": NAME} if publishes else {},
        )
        before = self.reserved.get((owner, key)) if key else None
        if before and before[1] in self.model:
            if before[0] == digest:
                assert self.jobs.create(job, QUOTAS, key, digest) == before[1]
            else:
                with pytest.raises(Conflict):
                    self.jobs.create(job, QUOTAS, key, digest)
            return multiple()
        if self.unfinished(owner) >= QUOTAS["unfinished"] or (publishes and self.promised(owner) >= QUOTAS["versions"]):
            with pytest.raises(Full):
                self.jobs.create(job, QUOTAS, key, digest)
            return multiple()
        assert self.jobs.create(job, QUOTAS, key, digest) == job.id
        self.model[job.id] = Expected(owner, queue, kind, schema, webhook, publishes, size)
        if key:
            self.reserved[owner, key] = (digest, job.id)
        return job.id

    @rule(job_id=ids)
    def cancel(self, job_id: str) -> None:
        expected = self.model.get(job_id)
        assert self.jobs.cancel(job_id) == (expected.status if expected else None)
        if expected and expected.status in ("queued", "paused"):
            self.end(expected, "cancelled")
        elif expected and expected.status in ("running", "pausing"):
            expected.status = "cancelling"

    @rule(job_id=ids)
    def pause(self, job_id: str) -> None:
        expected = self.model.get(job_id)
        assert self.jobs.pause(job_id) == (expected.status if expected else None)
        if expected and expected.status in ("queued", "running"):
            expected.status = {"queued": "paused", "running": "pausing"}[expected.status]

    @rule(job_id=ids)
    def resume(self, job_id: str) -> None:
        expected = self.model.get(job_id)
        assert self.jobs.resume(job_id) == (expected.status if expected else None)
        if expected and expected.status in ("paused", "pausing"):
            expected.status = {"paused": "queued", "pausing": "running"}[expected.status]

    @rule(job_id=ids)
    def delete(self, job_id: str) -> None:
        assert self.jobs.delete(job_id) == (job_id in self.model)
        self.forget(job_id)

    @rule(owner=st.sampled_from(OWNERS), source=st.sampled_from(("file a", "file b", "file c")))
    def publish(self, owner: str, source: str) -> None:
        versions = self.versions[owner]
        if source not in versions.sources.values() and self.promised(owner) >= QUOTAS["versions"]:
            with pytest.raises(Full):
                self.jobs.publish(owner, NAME, 1, source, CARD, QUOTAS)
        else:
            assert self.jobs.publish(owner, NAME, 1, source, CARD, QUOTAS) == versions.publish(source)

    @rule(owner=st.sampled_from(OWNERS), number=st.integers(1, 4), alias=st.sampled_from("xy"))
    def alias(self, owner: str, number: int, alias: str) -> None:
        versions = self.versions[owner]
        assert self.jobs.alias(owner, NAME, alias, number, 1) == (number in versions.sources)
        if number in versions.sources:
            versions.aliases[alias] = number

    @rule(owner=st.sampled_from(OWNERS), alias=st.sampled_from("xy"))
    def drop_alias(self, owner: str, alias: str) -> None:
        assert self.jobs.drop_alias(owner, NAME, alias) == (self.versions[owner].aliases.pop(alias, None) is not None)

    @rule(owner=st.sampled_from(OWNERS), number=st.one_of(st.none(), st.integers(1, 4)))
    def withdraw(self, owner: str, number: int | None) -> None:
        self.jobs.withdraw(owner, NAME, number)
        versions = self.versions[owner]
        versions.sources = {n: source for n, source in versions.sources.items() if number not in (None, n)}
        versions.aliases = {alias: n for alias, n in versions.aliases.items() if number not in (None, n)}

    # -- what workers do

    @rule(
        target=claims,
        queue=st.sampled_from(QUEUES),
        worker=st.sampled_from(("w1", "w2", "w3")),
        max_bytes=st.sampled_from((None, None, 12)),
    )
    def claim(self, queue: str, worker: str, max_bytes: int | None) -> Any:
        return self.claimed(queue, worker, max_bytes)

    @rule(target=claims, owner=st.sampled_from(OWNERS), webhook=st.booleans(), publishes=st.booleans())
    def create_and_claim(self, owner: str, webhook: bool, publishes: bool) -> Any:
        """What most rules need first, in one step."""
        self.created(owner, "training", "training", SCHEMA, webhook, publishes, 1, "", "d")
        return self.claimed("training", "w1", None)

    def claimed(self, queue: str, worker: str, max_bytes: int | None) -> Any:
        expected_id = None
        for job_id in self.client.zrange(f"sdfsrn:queue:{queue}", 0, -1) if worker not in self.leaving else ():
            expected = self.model[job_id]
            if not expected.runnable:
                continue
            if not expected.begun and max_bytes and self.kept(expected.owner) > max_bytes:
                self.end(expected, "failed")
                continue
            expected_id = job_id
            expected.status, expected.fence, expected.begun, expected.worker = "running", expected.fence + 1, True, worker
            expected.step_at_claim = expected.checkpoint_step
            break
        job = self.jobs.claim(queue, worker, max_bytes)
        assert (job.id if job else None) == expected_id
        return job if job else multiple()

    @rule(worker=st.just("w3"))
    def leave(self, worker: str) -> None:
        self.jobs.leave(worker)
        self.leaving.add(worker)

    @rule(job=claims)
    def heartbeat(self, job: Job) -> None:
        with self.held(job) as expected:
            verdict = self.jobs.heartbeat(job)
            if expected is None:
                assert verdict == "lost"
                return
            asked = {"cancelling": "cancel", "pausing": "pause"}.get(expected.status)
            assert verdict == (asked or ("release" if expected.worker in self.leaving else "ok"))
            expected.beat += 1

    @rule(job=claims, step=st.integers(0, 3))
    def progress(self, job: Job, step: int) -> None:
        with self.held(job) as expected:
            assert self.jobs.progress(job, {"phase": "p", "step": step, "total": 3}, {"loss": step}) == bool(expected)

    @rule(job=claims, text=st.sampled_from("ab"))
    def log(self, job: Job, text: str) -> None:
        with self.held(job) as expected:
            assert self.jobs.log(job, text) == bool(expected)

    @rule(job=claims, size=st.integers(0, 9))
    def checkpoint(self, job: Job, size: int) -> None:
        with self.held(job) as expected:
            step = expected.checkpoint_step + 1 if expected else 99
            assert self.jobs.checkpoint(job, {"key": "k", "step": step, "bytes": size}) == bool(expected)
            if expected:
                expected.checkpoint_step, expected.bytes = step, size

    @rule(job=claims, status=st.sampled_from(("succeeded", "failed", "cancelled")), size=st.integers(0, 9))
    def finish(self, job: Job, status: Any, size: int) -> None:
        with self.held(job) as expected:
            published = expected is not None and expected.publishes and status == "succeeded"
            publication = Publication(NAME, 1, CARD) if published else None
            files = [{"name": "f", "bytes": size}] if status == "succeeded" else []
            assert self.jobs.finish(job, status, publication, files=files) == bool(expected)
            if expected and expected.status == "cancelling":
                self.end(expected, "cancelled")
            elif expected:
                if published:
                    self.versions[expected.owner].publish(f"job {job.id}")
                self.end(expected, status, size if files else 0)

    @rule(job=claims)
    def release(self, job: Job) -> None:
        with self.held(job) as expected:
            status = self.jobs.release(job)
            if expected is None:
                assert status == "lost"
            elif expected.status == "cancelling":
                self.end(expected, "cancelled")
            else:
                expected.requeue("paused" if expected.status == "pausing" else "queued")

    # -- what the keeper does

    @rule(target=looks, job=claims)
    def look(self, job: Job) -> Any:
        return job.id, (str(job.fence), self.client.hget(f"sdfsrn:job:{job.id}", "beat") or "")

    @rule(job=claims)
    def look_and_lose(self, job: Job) -> None:
        self.lost(*self.look(job))

    @rule(look=looks)
    def lose(self, look: tuple[str, tuple[str, str]]) -> None:
        self.lost(*look)

    def lost(self, job_id: str, seen: tuple[str, str]) -> None:
        fence, beat = seen
        expected = self.model.get(job_id)
        before = stored(self.client)
        outcome = self.jobs.lose(job_id, (fence, beat), LOSSES)
        if expected is None or not expected.runs:
            assert outcome == (expected.status if expected else "gone") and stored(self.client) == before
            return
        if (str(expected.fence), str(expected.beat or "")) != (fence, beat):
            assert outcome == "alive" and stored(self.client) == before, "a stale look changes nothing"
            return
        if expected.status == "cancelling":
            self.end(expected, "cancelled")
        elif expected.status == "pausing":
            expected.requeue("paused")
        else:
            expected.losses += expected.checkpoint_step <= expected.step_at_claim
            if expected.losses >= LOSSES:
                self.end(expected, "failed")
            else:
                expected.requeue()
        assert outcome == expected.status

    @rule(job_id=ids)
    def expire(self, job_id: str) -> None:
        self.jobs.expire(job_id, REMEMBERED)
        expected = self.model.get(job_id)
        if expected and expected.ended and not expected.expired:
            expected.expired, expected.bytes = True, 0
            remembered = self.expired[expected.owner]
            remembered.append(job_id)
            if len(remembered) > REMEMBERED:
                self.forget(remembered[0])

    @rule()
    def begin_due_webhooks(self) -> None:
        for job_id in self.those(lambda job: job.due):
            self.begun_webhook(job_id)

    @rule(job_id=ids)
    def begin_webhook(self, job_id: str) -> None:
        self.begun_webhook(job_id)

    def begun_webhook(self, job_id: str) -> None:
        expected = self.model.get(job_id)
        if expected and expected.tries is not None and expected.due:
            expected.tries, expected.due = expected.tries + 1, False
            assert self.jobs.begin_webhook(job_id, 600) == expected.tries
        else:
            assert self.jobs.begin_webhook(job_id, 600) == 0

    @rule(job_id=ids, late=st.booleans())
    def plan_webhook(self, job_id: str, late: bool) -> None:
        self.jobs.plan_webhook(job_id, 600 if late else -1)
        expected = self.model.get(job_id)
        if expected and expected.tries is not None:
            expected.due = not late

    @rule(job_id=ids)
    def webhook_done(self, job_id: str) -> None:
        self.jobs.webhook_done(job_id)
        expected = self.model.get(job_id)
        if expected:
            expected.tries, expected.due = None, False

    # -- what must hold after each

    @invariant()
    def the_broker_holds_what_is_expected(self) -> None:
        found = stored(self.client)
        records = {key.removeprefix("sdfsrn:job:"): value for key, value in found.items() if key.startswith("sdfsrn:job:")}
        assert {job_id: record["status"] for job_id, record in records.items()} == self.with_value(lambda job: job.status)
        assert {i: int(record.get("fence", 0)) for i, record in records.items()} == self.with_value(lambda job: job.fence)
        assert {i: int(record.get("bytes", 0)) for i, record in records.items()} == self.with_value(lambda job: job.bytes)
        assert set(found.get("sdfsrn:running", ())) == self.those(lambda job: job.runs)
        for queue in QUEUES:
            waiting = self.those(lambda job, queue=queue: job.queue == queue and job.status == "queued")  # type: ignore[misc]
            assert {job_id for job_id, _ in found.get(f"sdfsrn:queue:{queue}", ())} == waiting
            lines = [found.get(f"sdfsrn:line:{queue}:{owner}", ()) for owner in OWNERS]
            assert sorted(entry for line in lines for entry in line) == sorted(found.get(f"sdfsrn:queue:{queue}", ()))
        for owner in OWNERS:
            self.owner_has_what_is_expected(owner, found)
        ends = {i: sum(e[1] == "end" for _, e in found.get(f"sdfsrn:events:{i}", ())) for i in records}
        assert ends == self.with_value(lambda job: int(job.ended and not job.expired))
        told = {job_id for job_id, _ in found.get("sdfsrn:webhooks", ())}
        assert told == self.those(lambda job: job.tries is not None)
        tries = {job_id: int(text.split()[0]) for job_id, text in found.get("sdfsrn:webhook_tries", {}).items()}
        assert tries == {job_id: job.tries for job_id, job in self.model.items() if job.tries}
        counted = {name: int(count) for name, count in found.get("sdfsrn:ended", {}).items()}
        assert counted == {f"{kind} {status}": count for (kind, status), count in self.ended.items()}

    def owner_has_what_is_expected(self, owner: str, found: dict[str, Any]) -> None:
        suffix = f":{owner}" if owner else ""
        own = self.those(lambda job: job.owner == owner)
        unfinished = {job_id for job_id in own if not self.model[job_id].ended}
        assert {job_id for job_id, _ in found.get(f"sdfsrn:jobs{suffix}", ())} == own
        assert set(found.get(f"sdfsrn:unfinished{suffix}", ())) == unfinished
        assert set(found.get(f"sdfsrn:publishing{suffix}", ())) == {i for i in unfinished if self.model[i].publishes}
        assert [job_id for job_id, _ in found.get(f"sdfsrn:expired{suffix}", ())] == self.expired[owner]
        used = found.get(f"sdfsrn:used:{owner}", {})
        assert int(used.get("bytes", 0)) == self.kept(owner)
        versions, record = self.versions[owner], found.get(f"sdfsrn:model:{owner}:{NAME}", {})
        assert int(used.get("versions", 0)) == len(versions.sources)
        assert {int(name[8:]) for name in record if name.startswith("version ")} == set(versions.sources)
        assert {name[6:]: int(n) for name, n in record.items() if name.startswith("alias ")} == versions.aliases
        assert (NAME in found.get(f"sdfsrn:models{suffix}", ())) >= bool(versions.sources)

    # -- the model

    @contextmanager
    def held(self, job: Job) -> Iterator[Expected | None]:
        """What a claim still holds; None if it is stale, and then nothing may change."""
        expected = self.model.get(job.id)
        if expected and expected.runs and expected.fence == job.fence:
            yield expected
            return
        before = stored(self.client)
        yield None
        assert stored(self.client) == before, "a stale claim changes nothing"

    def end(self, expected: Expected, status: str, kept: int = 0) -> None:
        expected.end(status, kept)
        self.ended[expected.kind, status] += 1

    def forget(self, job_id: str) -> None:
        gone = self.model.pop(job_id, None)
        if gone and gone.expired:
            self.expired[gone.owner].remove(job_id)

    def kept(self, owner: str) -> int:
        of_jobs = sum(job.bytes for job in self.model.values() if job.owner == owner)
        return of_jobs + CARD_BYTES * len(self.versions[owner].sources)

    def unfinished(self, owner: str) -> int:
        return len(self.those(lambda job: job.owner == owner and not job.ended))

    def promised(self, owner: str) -> int:
        """Versions that there are, and those that unfinished jobs are to be."""
        publishing = self.those(lambda job: job.owner == owner and not job.ended and job.publishes)
        return len(self.versions[owner].sources) + len(publishing)

    def those(self, condition: Any) -> set[str]:
        return {job_id for job_id, job in self.model.items() if condition(job)}

    def with_value(self, value: Any) -> dict[str, Any]:
        return {job_id: value(job) for job_id, job in self.model.items()}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with Broker(Settings(data=tmp_path_factory.mktemp("machine"))) as running:
        connected = connect(running.settings)
        connected.config_set("appendfsync", "no")  # nothing here survives the broker
        yield connected


def run(client: Any, **chosen: Any) -> None:
    checks = list(HealthCheck)
    run_state_machine_as_test(lambda: Scripts(client), settings=settings(deadline=None, suppress_health_check=checks, **chosen))


def test_every_script_in_every_state_and_twice(client: Any) -> None:
    """Seconds; what it finds it shows as it found it: the long one looks for the shortest way there, which takes minutes."""
    run(client, max_examples=40, stateful_step_count=40, phases=[Phase.generate])


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_script_in_every_state_and_twice_for_long(client: Any) -> None:
    run(client, max_examples=1_500, stateful_step_count=80)
