"""The job record on the real broker: who lost a claim changes nothing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from sdfsrn.config import ReconstructionConfig, SdfSrnConfig, SyntheticData
from service import artifacts, broker
from service.app import create_app
from service.jobs import SCHEMA, Conflict, Full, Job, Jobs, Publication, connect, first_id_at, new_id, now
from service.keeper import Keeper
from service.registry import Card, model_key
from service.settings import Settings
from tests.conftest import Broker, shaded_ball


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with Broker(Settings(data=tmp_path_factory.mktemp("jobs"), max_attempts=2)) as running:
        yield running.settings


@pytest.fixture
def jobs(settings: Settings) -> Jobs:
    client = connect(settings)
    client.flushall()
    return Jobs(client)


_MOMENTS = count(1)  # ids of one millisecond have no order
RUNS = json.dumps(["training"])


def make(jobs: Jobs, owner: str = "") -> Job:
    job = Job(id=new_id(next(_MOMENTS)), type="training", queue="training", created_at=now(), owner=owner)
    jobs.create(job)
    return job


def claimed(jobs: Jobs) -> Job:
    """One that a worker is at, where no other waits."""
    make(jobs)
    job = jobs.claim("training", "w")
    assert job
    return job


def test_a_queue_is_served_in_order_and_each_job_once(jobs: Jobs) -> None:
    made = [make(jobs).id for _ in range(3)]
    assert [jobs.get(job_id).position for job_id in made] == [0, 1, 2]  # type: ignore[union-attr]
    assert [jobs.claim("training", "w").id for _ in made] == made  # type: ignore[union-attr]
    assert jobs.claim("training", "w") is None


def claims(jobs: Jobs) -> Iterator[str]:
    """The ids of all that wait, in the order in which workers get them, which is that of their positions."""
    while head := jobs.head("training"):
        assert jobs.get(head).position == 0  # type: ignore[union-attr]
        job = jobs.claim("training", "w")
        assert job and job.id == head
        yield job.id


def test_owners_take_turns_and_each_is_served_in_order(jobs: Jobs) -> None:
    a = [make(jobs, "alice").id for _ in range(5)]
    b = [make(jobs, "bob").id for _ in range(2)]
    assert jobs.waiting("training") == 7
    expected = [a[0], b[0], a[1], b[1], a[2]]
    order = claims(jobs)
    assert [next(order) for _ in expected] == expected
    c = make(jobs, "carol").id
    assert list(order) == [a[3], c, a[4]]
    assert jobs.waiting("training") == 0
    a, b = [make(jobs, owner).id for owner in ("alice", "bob")]
    assert list(claims(jobs)) == [a, b], "an empty queue begins anew"


def test_jobs_that_are_given_up_cost_their_owner_no_turns(jobs: Jobs) -> None:
    a = [make(jobs, "alice").id for _ in range(6)]
    b = [make(jobs, "bob").id for _ in range(4)]
    jobs.cancel(a[0])
    jobs.delete(a[1])
    jobs.pause(a[3])
    order = claims(jobs)
    assert [next(order) for _ in range(4)] == [a[2], b[0], a[4], b[1]]
    assert jobs.resume(a[3]) == "paused"
    assert list(order) == [a[5], b[2], a[3], b[3]], "what is resumed is the last of its owner's"


def test_a_lost_job_is_next_and_a_paused_one_jumps_no_queue(jobs: Jobs) -> None:
    mine = [make(jobs, "alice") for _ in range(3)]
    jobs.claim("training", "w")
    make(jobs, "bob")
    job = jobs.get(mine[0].id)
    assert job and jobs.lose(job.id, jobs.beats()[job.id], 3) == "queued"
    assert jobs.head("training") == job.id
    for waiting in mine[1:]:
        jobs.pause(waiting.id)
        jobs.resume(waiting.id)
    owners = [jobs.get(job_id).owner for job_id in claims(jobs)]  # type: ignore[union-attr]
    assert owners == ["alice", "alice", "bob", "alice"]


def test_a_queue_from_before_owners_took_turns_is_served(jobs: Jobs, settings: Settings) -> None:
    broker, old = connect(settings), [make(jobs, "alice").id for _ in range(3)]
    broker.delete("sdfsrn:line:training:alice")
    broker.zadd("sdfsrn:queue:training", {job_id: 1000 + i for i, job_id in enumerate(old)})
    new = [make(jobs, "bob").id for _ in range(2)]
    assert list(claims(jobs)) == [old[0], new[0], old[1], new[1], old[2]]
    assert not broker.keys("sdfsrn:line:*")


def test_a_stale_fence_publishes_nothing(jobs: Jobs) -> None:
    make(jobs)
    first = jobs.claim("training", "a")
    assert first and jobs.lose(first.id, (str(first.fence), ""), 3) == "queued"
    second = jobs.claim("training", "b")
    assert second and second.id == first.id and second.fence > first.fence
    assert jobs.heartbeat(first) == "lost"
    assert not jobs.progress(first, {"phase": "late"}, {})
    assert not jobs.checkpoint(first, {"step": 1, "key": "late"})
    assert not jobs.finish(first, "succeeded", files=[{"name": "late"}])
    assert jobs.finish(second, "succeeded", files=[{"name": "right"}])
    assert not jobs.finish(second, "failed", error={"detail": "twice"})
    found = jobs.get(first.id)
    assert found and found.status == "succeeded" and found.files == [{"name": "right"}] and found.error is None


def test_only_losses_without_a_newer_checkpoint_count(jobs: Jobs) -> None:
    make(jobs)
    for step in range(4):
        job = jobs.claim("training", "w")
        assert job and jobs.checkpoint(job, {"step": step, "key": "k"})
        assert jobs.lose(job.id, (str(job.fence), ""), 2) == "queued"
    outcomes = []
    for _ in range(2):
        job = jobs.claim("training", "w")
        assert job
        outcomes.append(jobs.lose(job.id, (str(job.fence), ""), 2))
    assert outcomes == ["queued", "failed"]
    failed = jobs.get(job.id)
    assert failed and failed.status == "failed" and "2 times" in failed.error["detail"]  # type: ignore[index]


def test_a_lost_answer_of_the_keeper_revives_and_ends_nothing_twice(jobs: Jobs) -> None:
    """Each was a fault: the same look, told again after the job had ended, as when the broker's answer is lost."""
    ended, cancelled, failed = (claimed(jobs) for _ in range(3))
    looks = jobs.beats()
    jobs.finish(ended, "succeeded", files=[{"name": "x"}])
    jobs.cancel(cancelled.id)
    outcomes = [[jobs.lose(job.id, looks[job.id], 1) for _ in range(2)] for job in (ended, cancelled, failed)]
    assert outcomes == [["succeeded"] * 2, ["cancelled"] * 2, ["failed"] * 2]
    for job, status in ((ended, "succeeded"), (cancelled, "cancelled"), (failed, "failed")):
        kinds = [event.kind for event in jobs.events(job.id)]
        assert jobs.get(job.id).status == status and kinds.count("end") == 1  # type: ignore[union-attr]
    assert jobs.claim("training", "w") is None and jobs.running() == 0
    assert jobs.ended() == {("training", status): 1 for status in ("succeeded", "cancelled", "failed")}


def test_a_heartbeat_between_look_and_verdict_saves_the_job(jobs: Jobs) -> None:
    job = claimed(jobs)
    seen = jobs.beats()[job.id]
    assert jobs.heartbeat(job) == "ok"
    assert jobs.lose(job.id, seen, 1) == "alive"


def status(jobs: Jobs, job: Job) -> str:
    found = jobs.get(job.id)
    assert found
    return found.status


def test_cancel(jobs: Jobs) -> None:
    waiting = make(jobs)
    assert jobs.cancel(waiting.id) == "queued"
    assert status(jobs, waiting) == "cancelled"
    job = claimed(jobs)
    assert jobs.cancel(job.id) == "running" and jobs.heartbeat(job) == "cancel"
    assert jobs.finish(job, "succeeded", files=[{"name": "x"}])
    assert status(jobs, job) == "cancelled" and not jobs.get(job.id).files  # type: ignore[union-attr]


def test_a_leaving_worker_gives_back_what_it_holds_and_gets_no_more(jobs: Jobs) -> None:
    job = claimed(jobs)
    jobs.leave("other")
    assert jobs.heartbeat(job) == "ok"
    jobs.leave("w")
    assert jobs.heartbeat(job) == "release"
    assert jobs.release(job) == "queued"
    assert jobs.claim("training", "w") is None
    again = jobs.claim("training", "another")
    assert again and again.id == job.id and again.attempt == 2
    assert jobs.release(job) == "lost", "its fence is old"
    assert jobs.lose(again.id, jobs.beats()[again.id], 1) == "failed", "being given back was no loss, this is the first"


def test_pause_and_resume(jobs: Jobs) -> None:
    waiting = make(jobs)
    assert jobs.pause(waiting.id) == "queued" and status(jobs, waiting) == "paused"
    assert jobs.claim("training", "w") is None
    assert jobs.resume(waiting.id) == "paused" and status(jobs, waiting) == "queued"
    job = jobs.claim("training", "w")
    assert job and jobs.pause(job.id) == "running" and jobs.heartbeat(job) == "pause"
    assert jobs.release(job) == "paused" and jobs.heartbeat(job) == "lost"
    assert jobs.resume(job.id) == "paused"
    job = jobs.claim("training", "w")
    assert job and jobs.pause(job.id) == "running" and jobs.resume(job.id) == "pausing"
    assert jobs.release(job) == "queued", "resumed before its worker had let go"
    job = jobs.claim("training", "w")
    assert job and jobs.pause(job.id) == "running"
    assert jobs.lose(job.id, jobs.beats()[job.id], 3) == "paused", "a worker lost while pausing"
    assert jobs.cancel(job.id) == "paused" and status(jobs, job) == "cancelled"
    assert jobs.pause(job.id) == "cancelled" and jobs.resume(job.id) == "cancelled"


def test_one_idempotency_key_one_job(jobs: Jobs) -> None:
    def create(key: str, digest: str, owner: str = "") -> tuple[str, str]:
        job = Job(id=new_id(), type="training", queue="training", created_at=now(), owner=owner)
        return job.id, jobs.create(job, {}, key, digest)

    first, stands = create("k", "d")
    assert stands == first
    assert create("k", "d")[1] == first
    with pytest.raises(Conflict):
        create("k", "other")
    mine, stands = create("k", "d", owner="alice")
    assert stands == mine, "keys of different callers have nothing to do with each other"
    jobs.delete(first)
    renewed, stands = create("k", "d")
    assert stands == renewed, "a job that was removed is not answered with"


def test_a_quota_counts_what_is_unfinished(jobs: Jobs) -> None:
    def create() -> Job:
        job = Job(id=new_id(), type="training", queue="training", created_at=now(), owner="bob")
        jobs.create(job, {"unfinished": 2})
        return job

    first, second = create(), create()
    with pytest.raises(Full):
        create()
    jobs.cancel(first.id)
    third = create()
    jobs.delete(third.id)
    create()
    claimed = jobs.claim("training", "w")
    assert claimed and claimed.id == second.id
    with pytest.raises(Full):
        create()
    jobs.finish(claimed, "failed")
    create()


def test_every_change_is_an_event(jobs: Jobs) -> None:
    job = claimed(jobs)
    jobs.progress(job, {"step": 1}, {"loss": 0.5})
    jobs.progress(job, {"step": 2}, {"loss": 0.5})
    jobs.log(job, "hello")
    jobs.finish(job, "succeeded")
    events = jobs.events(job.id)
    assert [event.kind for event in events] == ["status", "status", "metric", "progress", "progress", "log", "status", "end"]
    assert jobs.events(job.id, events[4].id) == events[5:]
    assert not jobs.misses(job.id, events[0].id)
    jobs.expire(job.id, 10)
    assert jobs.events(job.id) == [] and jobs.misses(job.id, events[0].id), "all are gone"
    jobs.delete(job.id)
    assert not jobs.misses(job.id, events[0].id), "there is nothing to be missed of a job that is no more"


def test_list_is_newest_first_and_ids_sort_by_time(jobs: Jobs) -> None:
    made = [new_id(at) for at in (1000.0, 2000.0, 3000.0)]
    for job_id in reversed(made):
        jobs.create(Job(id=job_id, type="training", queue="training", created_at=now()))

    def listed(before: str | None = None, since: str | None = None, limit: int = 10) -> tuple[list[str], str | None]:
        found, goes_on = jobs.newest_first("", before, since, lambda job: True, limit)
        return [job.id for job in found], goes_on

    assert listed() == (made[::-1], None)
    assert listed(before=made[2], since=first_id_at(2000.0)) == ([made[1]], None)
    assert listed(limit=2) == ([made[2], made[1]], made[1])
    assert listed(before=made[1], limit=2) == ([made[0]], None)


def test_a_list_reads_what_it_shows(jobs: Jobs, settings: Settings) -> None:
    broker, made = connect(settings), [make(jobs).id for _ in range(50)][::-1]
    for job_id in made:
        broker.hset(f"sdfsrn:job:{job_id}", "files", f'["{"x" * 20_000}"]')

    def read(kind: str, limit: int) -> tuple[list[str], int]:
        before = broker.info("stats")["total_net_output_bytes"]
        found = jobs.newest_first("", None, None, lambda job: job.type == kind, limit)[0]
        return [job.id for job in found], broker.info("stats")["total_net_output_bytes"] - before

    for kind, limit, expected in (("training", 1, made[:1]), ("training", 50, made), ("dataset", 50, [])):
        listed, size = read(kind, limit)
        assert listed == expected and size < 60_000, (kind, limit, size)
    shown = jobs.newest_first("", None, None, lambda job: True, 1)[0][0]
    assert replace(jobs.get(shown.id), files=[]) == shown, "all but the files"  # type: ignore[type-var]
    assert jobs.newest_first("", None, None, lambda job: True, 1, files=True)[0] == [jobs.get(shown.id)]


def test_the_keeper_sweeps_what_no_record_names(jobs: Jobs, settings: Settings) -> None:
    keeper = Keeper(settings)
    store = keeper._artifacts
    job = claimed(jobs)
    kept, input_png = store.put(f"jobs/{job.id}/{job.fence}/mesh.glb", b"1"), f"jobs/{job.id}/input/input.png"
    for key in (input_png, f"jobs/{job.id}/0/stale", f"jobs/{new_id()}/1/orphan"):
        store.put(key, b"2")
    keeper.sweep(age_s=0)
    assert sorted(store.keys(job.id)) == sorted([kept["key"], input_png])
    assert store.job_ids() == [job.id]
    jobs.finish(job, "succeeded", files=[{**kept, "name": "mesh.glb"}])
    store.put(f"jobs/{job.id}/{job.fence}/unnamed", b"3")
    keeper.sweep(age_s=0)
    assert store.keys(job.id) == [kept["key"]], "nobody needs the input of an ended job"


def test_the_keeper_leaves_a_model_s_file_while_its_training_may_end(jobs: Jobs, settings: Settings) -> None:
    keeper = Keeper(settings)
    store = keeper._artifacts
    job = claimed(jobs)
    late, current = (model_key("", "mine", job.id, fence) for fence in (job.fence - 1, job.fence))
    orphan = model_key("", "mine", new_id(), 1)
    for key in (late, current, orphan):
        store.put(key, b"m")
    keeper.sweep(age_s=0)
    assert sorted(store.keys_under("models")) == sorted([late, current])
    jobs.finish(job, "succeeded", Publication("mine", 1, Card("d", 1, {}, {"key": current}).dump()))
    keeper.sweep(age_s=0)
    assert store.keys_under("models") == [current]


def test_a_stray_file_stops_no_sweep_and_a_duty_that_fails_no_other(jobs: Jobs, settings: Settings) -> None:
    keeper = Keeper(settings)
    folder = settings.data / "artifacts" / "jobs"
    orphan, like_a_job = folder / new_id() / "1" / "orphan", folder / new_id()
    orphan.parent.mkdir(parents=True)
    for path in (folder / ".DS_Store", orphan, like_a_job):
        path.write_text("x")
    keeper.sweep(age_s=0)
    assert [path.name for path in folder.iterdir()] == [".DS_Store"]
    connect(settings).hset("sdfsrn:job:" + (broken := new_id()), mapping={"queue": "training", "id": broken, "params": "no JSON"})
    connect(settings).zadd("sdfsrn:webhooks", {broken: 1.0})
    keeper.look()
    assert jobs.lives("keeper")


def test_on_a_disk_that_is_nearly_full_nothing_is_uploaded(
    jobs: Jobs, settings: Settings, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker needs what is left; what takes no room is done as before."""
    client = TestClient(create_app(settings), base_url="http://127.0.0.1")
    (settings.data / "artifacts").mkdir(exist_ok=True)
    zipped = {"Content-Type": "application/zip"}
    assert client.get("/readyz").json()["storage"] == "ok"
    assert client.post("/v1/datasets", content=b"no zip", headers=zipped).status_code == 422
    monkeypatch.setattr(artifacts, "SPARED", 1 << 62)
    monkeypatch.setattr(artifacts, "SPARED_SHARE", 1.0)
    for answer in (
        client.post("/v1/datasets", content=b"PK", headers=zipped),
        client.post("/v1/reconstructions", files={"image": photo}),
        client.post("/v1/models/mine/versions", content=b"x", headers={"Content-Type": "application/octet-stream"}),
    ):
        assert answer.status_code == 503 and "nearly full" in answer.json()["detail"], answer.text
    ready = client.get("/readyz")
    assert "nearly full" in ready.json()["uploads"] and ready.json()["storage"] == "ok", "all but uploads goes on"
    assert client.post("/v1/trainings", json={}).status_code == 202
    assert jobs.waiting("training") == 1


def test_a_claim_that_is_repeated_after_a_lost_answer_is_one_claim(jobs: Jobs) -> None:
    made = [make(jobs).id for _ in range(2)]
    first = [jobs._run("claim", "training", "w", "call-1", now(), 0, "", "", RUNS, 1) for _ in range(2)]
    assert first == [[made[0], 1]] * 2
    assert jobs._run("claim", "training", "w", "call-2", now(), 0, "", "", RUNS, 1) == [made[1], 1]


def test_a_worker_stopped_as_it_claims_does_not_wake_with_anothers_fence(jobs: Jobs, settings: Settings) -> None:
    made, taken = make(jobs), []

    class Stopped(Jobs):
        def get(self, job_id: str) -> Job | None:
            if not taken:  # stopped here for longer than its lease
                assert jobs.lose(job_id, jobs.beats()[job_id], 3) == "queued"
                taken.append(jobs.claim("training", "b"))
            return super().get(job_id)

    assert Stopped(connect(settings)).claim("training", "a") is None
    assert taken[0] and taken[0].id == made.id and jobs.heartbeat(taken[0]) == "ok"


def test_what_expired_is_said_for_a_while_and_then_forgotten(jobs: Jobs, settings: Settings) -> None:
    job = Job(id=new_id(), type="training", queue="training", created_at=now(), expires_after=60)
    jobs.create(job)
    jobs.cancel(job.id)
    keeper, broker = Keeper(settings), connect(settings)
    keeper.expire()
    assert not jobs.get(job.id).expired  # type: ignore[union-attr]
    broker.zadd("sdfsrn:expiring", {job.id: 1.0})
    keeper.expire()
    assert jobs.get(job.id).expired  # type: ignore[union-attr]
    keeper.forget()
    assert jobs.get(job.id)
    broker.zadd("sdfsrn:forgetting", {job.id: 1.0})
    keeper.forget()
    assert jobs.get(job.id) is None and broker.zcard("sdfsrn:jobs") == 0


def test_jobs_of_a_newer_version_are_shown_left_to_newer_workers_and_can_be_ended(jobs: Jobs, settings: Settings) -> None:
    def queued(kind: str, schema: int, **params: object) -> str:
        return jobs.create(Job(new_id(next(_MOMENTS)), kind, "training", now(), schema=schema, params=params))

    fit, newer = queued("fit", 1, target="xyz"), queued("training", SCHEMA + 1, config=[1])
    newer_method = queued("training", 1, method="gan", config={"critics": 2})
    old = queued("training", 0)
    assert [job and job.id for job in (jobs.claim("training", "w") for _ in range(3))] == [newer_method, old, None]
    assert [jobs.get(job_id).status for job_id in (fit, newer)] == ["queued"] * 2  # type: ignore[union-attr]
    client = TestClient(create_app(settings), base_url="http://127.0.0.1")
    listed = {job["id"]: job for job in client.get("/v1/jobs").json()["items"]}
    assert set(listed) == {fit, newer, newer_method, old}
    assert (listed[fit]["type"], listed[fit]["params"]) == ("fit", {"target": "xyz"})
    assert listed[newer_method]["params"]["config"] == {"critics": 2}
    assert [job["id"] for job in client.get("/v1/jobs?type=fit").json()["items"]] == [fit]
    assert client.get("/v1/jobs?type=nonsense").json()["items"] == []
    connect(settings).xadd(f"sdfsrn:events:{fit}", {"kind": "sparkle", "data": "{}"})
    events = client.get(f"/v1/jobs/{fit}/events", headers={"Accept": "application/json"})
    assert events.status_code == 200 and events.json()[-1]["event"] == "sparkle"
    assert client.post(f"/v1/jobs/{fit}/pause").status_code == 409
    assert client.post(f"/v1/jobs/{fit}/cancel").json()["status"] == "cancelled"
    assert client.delete(f"/v1/jobs/{newer}").status_code == 204
    assert jobs.waiting("training") == 0


def test_what_no_worker_can_run_takes_nobody_s_turn(jobs: Jobs) -> None:
    """It stays at the head of the queue, and owners take turns behind it as before."""
    jobs.create(Job(new_id(next(_MOMENTS)), "fit", "training", now()))
    for _ in range(3):
        make(jobs, "bob")
    order = []
    for _ in range(5):
        make(jobs, "alice")  # one after another: none of her own is ahead of her
        job = jobs.claim("training", "w")
        assert job
        order.append(job.owner)
    assert order == ["bob", "alice", "bob", "alice", "bob"]


def test_parameters_are_kept_as_they_were_said_and_shown_with_all_defaults(jobs: Jobs, settings: Settings, photo: bytes) -> None:
    client = TestClient(create_app(settings), base_url="http://127.0.0.1")
    training = client.post("/v1/trainings", json={"config": {"epochs": 7}, "metadata": {"a": 1}}).json()
    assert jobs.get(training["id"]).params == {"config": {"epochs": 7}}  # type: ignore[union-attr]
    assert training["params"] == {
        "method": "sdf_srn",
        "dataset": {"type": "synthetic", **asdict(SyntheticData()), "families": list(SyntheticData().families)},
        "config": {**asdict(SdfSrnConfig()), "epochs": 7},
        "from_checkpoint": None,
        "publish_as": None,
    }
    fields = {"views": '{"count": 2}', "size": "32"}
    picture = client.post("/v1/reconstructions", files={"image": photo}, data=fields).json()
    views = [{"azimuth_deg": azimuth, "elevation_deg": 20.0} for azimuth in (0.0, 180.0)]
    assert jobs.get(picture["id"]).params == {"size": 32, "views": views}  # type: ignore[union-attr]
    assert picture["params"] == {**json.loads(json.dumps(asdict(ReconstructionConfig()))), "size": 32, "views": views}
    old = Job(new_id(), "training", "training", now(), schema=0, params=training["params"] | {"dropped": 1})
    jobs.create(old)
    assert client.get(f"/v1/jobs/{old.id}").json()["params"] == old.params, "of an older version: as it wrote them"


@pytest.mark.usefixtures("jobs")
def test_one_idempotency_key_means_one_meaning_however_it_is_spelt(settings: Settings, photo: bytes) -> None:
    client = TestClient(create_app(settings), base_url="http://127.0.0.1")

    def train(key: str, body: dict[str, object]) -> tuple[int, str]:
        answer = client.post("/v1/trainings", json=body, headers={"Idempotency-Key": key})
        return answer.status_code, answer.json().get("id", "")

    spelt = [
        {},
        {"config": {"epochs": SdfSrnConfig().epochs}},
        {"method": "sdf_srn", "dataset": {"seed": 0, "type": "synthetic"}, "config": {}, "metadata": {}, "webhook_url": None},
    ]
    assert len({train("t", body) for body in spelt}) == 1
    assert {train("t", other)[0] for other in ({"config": {"epochs": 3}}, {"metadata": {"a": 1}}, {"publish_as": "m"})} == {422}

    def reconstruct(key: str, picture: bytes = photo, **fields: str) -> tuple[int, str]:
        answer = client.post("/v1/reconstructions", files={"image": picture}, data=fields, headers={"Idempotency-Key": key})
        return answer.status_code, answer.json().get("id", "")

    ring = json.dumps([{"azimuth_deg": 60 * i, "elevation_deg": 20} for i in range(6)])
    same = [{}, {"views": '{"count": 6}'}, {"views": ring, "size": "256", "model": "default"}, {"outputs": '["silhouettes"]'}]
    assert len({reconstruct("r", **fields) for fields in same}) == 1
    assert {reconstruct("r", **fields)[0] for fields in ({"size": "32"}, {"seed": "1"}, {"metadata": '{"a": 1}'})} == {422}
    assert reconstruct("r", shaded_ball(80))[0] == 422, "another picture"


def test_a_second_service_on_the_same_data_is_refused(tmp_path: Path) -> None:
    held = broker.lock(tmp_path)
    with pytest.raises(SystemExit, match="running on the data folder"):
        broker.lock(tmp_path)
    held.close()


def test_a_public_interface_without_keys_is_refused() -> None:
    command = [sys.executable, "-m", "service.serve"]
    run = subprocess.run(command, env={"SDFSRN_HOST": "0.0.0.0", "SDFSRN_PORT": "0"}, capture_output=True, text=True)
    assert run.returncode == 1 and "SDFSRN_ANONYMOUS=1" in run.stderr


def test_the_service_does_not_load_torch() -> None:
    code = "import sys, service.app, service.keeper, service.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
