"""What one caller may have: jobs, bytes, versions of models. Real HTTP and a real broker; nobody works, so nothing moves."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from sdfsrn.config import WEIGHTS
from service.app import create_app
from service.jobs import Full, Job, Jobs, Publication, connect, new_id, now
from service.keeper import Keeper
from service.registry import Card
from service.routes.models import MAX_ALIASES
from service.serve import listen
from service.settings import Settings
from tests.conftest import Broker

KEYS = {"alice": "alice-0123456789abcdef", "bob": "bob-0123456789abcdefgh"}
MODEL = (WEIGHTS / "default.safetensors").read_bytes()
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(Settings(data=tmp_path_factory.mktemp("quotas"), keys=KEYS)) as running:
        yield running


@pytest.fixture
def settings(broker: Broker) -> Settings:
    connect(broker.settings).flushall()
    return broker.settings


@pytest.fixture
def jobs(settings: Settings) -> Jobs:
    return Jobs(connect(settings))


@contextmanager
def served(settings: Settings, **changes: Any) -> Iterator[dict[str, httpx.Client]]:
    """An API on the broker: a client for each caller."""
    chosen = settings.model_copy(update=changes)
    listener = listen(chosen.model_copy(update={"port": 0}))
    server = uvicorn.Server(uvicorn.Config(create_app(chosen), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield {
            name: httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False)
            for name, key in KEYS.items()
        }
    finally:
        server.should_exit = True
        thread.join()


def used(settings: Settings, owner: str) -> tuple[int, int]:
    """What the broker has counted: bytes and versions."""
    counted = connect(settings).hmget(f"sdfsrn:used:{owner}", "bytes", "versions")
    return int(counted[0] or 0), int(counted[1] or 0)


def refused(answer: httpx.Response, *words: str) -> None:
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0, answer.text
    for word in words:
        assert word in answer.json()["detail"]


def make(jobs: Jobs, **values: Any) -> Job:
    job = Job(id=new_id(), queue="training", created_at=now(), owner="alice", **{"type": "training", **values})
    jobs.create(job)
    claimed = jobs.claim("training", "w")
    assert claimed and claimed.id == job.id
    return claimed


def test_ended_jobs_count_until_they_are_removed(settings: Settings) -> None:
    with served(settings, max_jobs=2) as clients:
        made = [clients["alice"].post("/v1/trainings", json={}) for _ in range(3)]
        assert [answer.status_code for answer in made[:2]] == [202, 202]
        refused(made[2], "2 jobs on record", "DELETE")
        here = made[0].headers["location"]
        assert clients["alice"].post(f"{here}/cancel").status_code == 202
        refused(clients["alice"].post("/v1/trainings", json={}))
        assert clients["bob"].post("/v1/trainings", json={}).status_code == 202, "another's jobs do not count"
        assert clients["alice"].delete(here).status_code == 204
        assert clients["alice"].post("/v1/trainings", json={}).status_code == 202


def test_expired_jobs_do_not_count_and_of_these_only_the_latest_are_remembered(jobs: Jobs, settings: Settings) -> None:
    keeper, broker = Keeper(settings.model_copy(update={"max_jobs": 2})), connect(settings)

    def expired() -> Job:
        job = make(jobs, params={"views": [{"azimuth_deg": 1.0}] * 360}, metadata={"mine": 1}, expires_after=60)
        jobs.finish(job, "succeeded", files=[{"name": f"{i}.png", "bytes": 1} for i in range(360)], metrics={"input_iou": 1.0})
        broker.zadd("sdfsrn:expiring", {job.id: 1.0})
        keeper.expire()
        return job

    with served(settings, max_jobs=2) as clients:
        old = [expired() for _ in range(3)]
        made = [clients["alice"].post("/v1/trainings", json={}) for _ in range(3)]
        assert [answer.status_code for answer in made] == [202, 202, 429]
        assert [clients["alice"].get(f"/v1/jobs/{job.id}/artifacts").status_code for job in old] == [404, 410, 410]
        assert len(clients["alice"].get("/v1/jobs").json()["items"]) == 4
        shown = clients["alice"].get(f"/v1/jobs/{old[2].id}").json()
        assert shown["status"] == "succeeded" and shown["metadata"] == {"mine": 1} and not shown["params"]
        assert broker.memory_usage(f"sdfsrn:job:{old[2].id}", samples=0) < 2_000
        for job in old:  # twice is as good as once, whether it is still remembered or not
            jobs.expire(job.id, 2)
            jobs.delete(job.id)
            jobs.delete(job.id)
        refused(clients["alice"].post("/v1/trainings", json={}), "2 jobs on record")
        assert clients["alice"].delete(made[0].headers["location"]).status_code == 204
        assert clients["alice"].post("/v1/trainings", json={}).status_code == 202


def test_a_webhook_that_is_told_late_is_told_all(jobs: Jobs) -> None:
    job = make(jobs, params={"seed": 1}, webhook="http://127.0.0.1/", expires_after=60)
    jobs.finish(job, "succeeded")
    jobs.expire(job.id, 10)
    assert jobs.get(job.id).params == {"seed": 1}  # type: ignore[union-attr]


def test_bytes_of_inputs_count_and_what_is_refused_is_not_kept(settings: Settings, photo: bytes) -> None:
    with served(settings) as clients:
        first = clients["alice"].post("/v1/reconstructions", files={"image": photo})
    assert first.status_code == 202
    size = used(settings, "alice")[0]
    stored = [path for path in (settings.data / "artifacts").rglob("*") if path.is_file()]
    assert size == sum(path.stat().st_size for path in stored) > 0
    with served(settings, max_bytes=2 * size - 1) as clients:
        refused(clients["alice"].post("/v1/reconstructions", files={"image": photo}), f"{size} bytes", "delete")
        assert [path for path in (settings.data / "artifacts").rglob("*") if path.is_file()] == stored
        assert clients["bob"].post("/v1/reconstructions", files={"image": photo}).status_code == 202
    with served(settings, max_bytes=size) as clients:
        refused(clients["alice"].post("/v1/trainings", json={}), f"{size} bytes")
        assert clients["alice"].delete(first.headers["location"]).status_code == 204
        assert used(settings, "alice")[0] == 0
        assert clients["alice"].post("/v1/reconstructions", files={"image": photo}).status_code == 202


def test_bytes_follow_a_job_from_its_input_over_its_checkpoints_to_its_files(jobs: Jobs, settings: Settings) -> None:
    job = make(jobs, bytes=7, expires_after=60)
    assert used(settings, "alice")[0] == 7
    for step, size in enumerate((100, 120)):
        jobs.checkpoint(job, {"key": "k", "step": step, "bytes": size})
        assert used(settings, "alice")[0] == size
    jobs.finish(job, "succeeded", files=[{"name": "a", "bytes": 30}, {"name": "b", "bytes": 20}])
    assert used(settings, "alice")[0] == 50
    with pytest.raises(Full, match="bytes"):
        jobs.create(Job(id=new_id(), type="dataset", queue="dataset", created_at=now(), owner="alice", bytes=51), {"bytes": 100})
    jobs.expire(job.id, 10)
    assert used(settings, "alice")[0] == 0
    jobs.delete(job.id)
    assert used(settings, "alice")[0] == 0, "not twice"
    cancelled = make(jobs, bytes=7)
    jobs.cancel(cancelled.id)
    jobs.finish(cancelled, "succeeded", files=[{"name": "a", "bytes": 30}])
    assert used(settings, "alice")[0] == 0


def test_versions_of_models_count_until_they_are_withdrawn(settings: Settings) -> None:
    with served(settings, max_versions=1) as clients:

        def upload(name: str) -> httpx.Response:
            return clients["alice"].post(f"/v1/models/{name}/versions", content=MODEL, headers=OCTETS)

        assert upload("mine").status_code == 201 and upload("mine").status_code == 201, "the same one twice is one"
        assert used(settings, "alice") == (len(MODEL), 1)
        refused(upload("other"), "1 versions", "DELETE")
        assert not list((settings.data / "artifacts" / "models" / "alice").glob("other/*"))
        refused(clients["alice"].post("/v1/trainings", json={"publish_as": "third"}), "versions")
        assert clients["alice"].post("/v1/trainings", json={}).status_code == 202
        assert clients["alice"].delete("/v1/models/mine").status_code == 204
        assert used(settings, "alice") == (0, 0)
        assert upload("other").status_code == 201
        assert clients["alice"].delete("/v1/models/other/versions/1").status_code == 204
        assert used(settings, "alice") == (0, 0)


def test_what_is_to_be_published_counts_as_a_version_until_its_job_ended(jobs: Jobs, settings: Settings) -> None:
    with served(settings, max_versions=2) as clients:

        def train(**more: str) -> httpx.Response:
            return clients["alice"].post("/v1/trainings", json={"publish_as": "mine", **more})

        first, second = (train().headers["location"] for _ in range(2))
        refused(train(), "2 versions", "unfinished")
        upload = clients["alice"].post("/v1/models/other/versions", content=MODEL, headers=OCTETS)
        refused(upload, "2 versions")
        assert clients["alice"].post(f"{first}/cancel").status_code == 202
        third = train().headers["location"]
        refused(train())
        assert clients["alice"].delete(second).status_code == 204
        assert train().status_code == 202
        refused(train())
        claimed = jobs.claim("training", "w")
        assert claimed and third.endswith(claimed.id)
        jobs.finish(claimed, "succeeded", Publication("mine", 1, Card("d", 1, {}, {"key": "k"}).dump()))
        refused(train(), "2 versions")
        claimed = jobs.claim("training", "w")
        assert claimed and jobs.finish(claimed, "failed")
        assert train().status_code == 202
        refused(train(), "2 versions")


def test_what_waits_when_its_owner_has_too_much_fails_and_keeps_nobody_waiting(jobs: Jobs, settings: Settings) -> None:
    def queued(owner: str = "alice") -> str:
        return jobs.create(Job(id=new_id(), type="training", queue="training", created_at=now(), owner=owner, bytes=1))

    begun = make(jobs)
    jobs.checkpoint(begun, {"key": "k", "step": 1, "bytes": 60})
    another = make(jobs)
    waiting, other = [queued() for _ in range(3)], queued("bob")
    jobs.finish(another, "succeeded", files=[{"name": "a", "bytes": 60}])
    assert jobs.lose(begun.id, jobs.beats()[begun.id], 3) == "queued"
    claimed = [jobs.claim("training", "w", 100) for _ in range(3)]
    assert [job and job.id for job in claimed] == [begun.id, other, None], "what was begun goes on"
    with served(settings, max_bytes=100) as clients:
        failed = [clients["alice"].get(f"/v1/jobs/{job_id}").json() for job_id in waiting]
    assert {job["status"] for job in failed} == {"failed"} and jobs.waiting("training") == 0
    assert "100 bytes" in failed[0]["error"]["detail"] and "delete" in failed[0]["error"]["detail"]
    assert used(settings, "alice")[0] == 120, "their inputs are not kept"
    jobs.delete(another.id)
    again = queued()
    claim = jobs.claim("training", "w", 100)
    assert claim and claim.id == again


def test_a_worker_knows_the_quota(jobs: Jobs, settings: Settings) -> None:
    job = Job(id=new_id(), type="dataset", queue="dataset", created_at=now(), owner="alice", bytes=2)
    jobs.create(job)
    code = "from worker.tasks import work_off; work_off('dataset', 'w')"
    environment = {**os.environ, "SDFSRN_DATA": str(settings.data), "SDFSRN_MAX_BYTES": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert jobs.get(job.id).error["type"].endswith("over-quota")  # type: ignore[union-attr, index]


def test_models_are_listed_in_pages_and_named_in_errors_up_to_a_number(jobs: Jobs, settings: Settings) -> None:
    names = [f"m{i:02}" for i in range(30)]
    card = Card("d", 1, {}, {"key": "k"}).dump()
    for name in names:
        jobs.publish("alice", name, 1, "file d", card)
    jobs.publish("", names[0], 1, "file d", card)
    broker = connect(settings)
    with served(settings) as clients:
        pages, cursor = [], ""
        while cursor is not None:
            page = clients["alice"].get(f"/v1/models?limit=12{cursor and '&cursor='}{cursor}").json()
            pages.append([model["name"] for model in page["items"]])
            cursor = page["next_cursor"]
        assert [len(page) for page in pages] == [12, 12, 7] and [name for page in pages for name in page] == ["default", *names]
        everything = clients["alice"].get("/v1/models").json()
        assert everything["next_cursor"] is None and len(everything["items"]) == 31 and not everything["items"][1]["shared"]
        assert clients["alice"].get("/v1/models?cursor=%00").status_code == 422
        before = broker.info("commandstats")["cmdstat_hgetall"]["calls"]
        wrong = clients["alice"].post("/v1/trainings", json={"from_checkpoint": {"model": "none"}})
        assert wrong.status_code == 422 and "m18 and others" in wrong.json()["detail"] and "m19" not in wrong.json()["detail"]
        assert broker.info("commandstats")["cmdstat_hgetall"]["calls"] - before == 2, "no cards are read for their names"


def test_a_model_has_so_many_aliases(jobs: Jobs, settings: Settings) -> None:
    jobs.publish("alice", "mine", 1, "file d", Card("d", 1, {}, {"key": "k"}).dump())
    for i in range(MAX_ALIASES):
        jobs.alias("alice", "mine", f"a{i}", 1, 1)
    with served(settings) as clients:
        full = clients["alice"].put("/v1/models/mine/aliases/more", json={"version": 1})
        assert full.status_code == 409 and "remove one" in full.json()["detail"]
        assert clients["alice"].put("/v1/models/mine/aliases/a0", json={"version": 1}).status_code == 200
        assert clients["alice"].delete("/v1/models/mine/aliases/a1").status_code == 204
        assert clients["alice"].put("/v1/models/mine/aliases/more", json={"version": 1}).status_code == 200


def test_a_published_training_counts_as_a_version_too(jobs: Jobs, settings: Settings) -> None:
    card = '{"bytes": 40, "source": {"key": "k"}}'
    jobs.finish(make(jobs), "succeeded", Publication("mine", 1, card), files=[{"name": "a", "bytes": 2}])
    assert used(settings, "alice") == (42, 1)


def test_what_came_to_nothing_is_not_kept_for_ever(jobs: Jobs, settings: Settings) -> None:
    with served(settings, retention_s=3600) as clients:
        here = clients["alice"].post("/v1/trainings", json={}).headers["location"]
        cancelled = clients["alice"].post(f"{here}/cancel").json()
        assert cancelled["status"] == "cancelled" and cancelled["expires_at"] is not None
        asked = clients["alice"].post("/v1/trainings", json={"expires_after_s": 10**8}).headers["location"]
        assert clients["alice"].post(f"{asked}/cancel").json()["expires_at"] > "2028"
    succeeded, failed = make(jobs, expires_if_failed=60), make(jobs, expires_if_failed=60)
    jobs.finish(succeeded, "succeeded")
    jobs.finish(failed, "failed", error={})
    assert jobs.get(succeeded.id).expires_at is None and jobs.get(failed.id).expires_at is not None  # type: ignore[union-attr]
    connect(settings).zadd("sdfsrn:expiring", {failed.id: 1.0})
    Keeper(settings).expire()
    assert jobs.get(failed.id).expired  # type: ignore[union-attr]


def test_metadata_is_limited_as_a_whole_and_kept_as_it_is_written(settings: Settings) -> None:
    with served(settings) as clients:
        emoji = {f"{i:02}": "😀" * 1000 for i in range(50)}
        answer = clients["alice"].post("/v1/trainings", json={"metadata": emoji})
        assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "metadata", answer.text
        assert "16000 bytes" in answer.json()["detail"]
        fits = {"a": "😀" * 1000, "b": "😀" * 1000, "c": "😀" * 1000}
        made = clients["alice"].post("/v1/trainings", json={"metadata": fits})
        assert made.status_code == 202 and made.json()["metadata"] == fits
        record = connect(settings).hget(f"sdfsrn:job:{made.json()['id']}", "metadata")
        assert len(record.encode()) < 13_000


def test_half_a_character_in_an_error_is_no_obstacle(jobs: Jobs) -> None:
    job = make(jobs)
    assert jobs.finish(job, "failed", error={"detail": "cannot read \udcff.png"})
    assert jobs.get(job.id).error == {"detail": "cannot read ?.png"}  # type: ignore[union-attr]
