"""The job record on the real broker: who lost a claim changes nothing."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import broker
from service.jobs import Job, Jobs, connect, first_id_at, new_id, now
from service.keeper import Keeper
from service.settings import Settings
from tests.conftest import Broker


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with Broker(Settings(data=tmp_path_factory.mktemp("jobs"), max_attempts=2)) as running:
        yield running.settings


@pytest.fixture
def jobs(settings: Settings) -> Jobs:
    client = connect(settings)
    client.flushall()
    return Jobs(client)


def make(jobs: Jobs) -> Job:
    job = Job(id=new_id(), type="training", queue="training", created_at=now())
    jobs.create(job)
    return job


def test_a_queue_is_served_in_order_and_each_job_once(jobs: Jobs) -> None:
    made = [make(jobs).id for _ in range(3)]
    assert [jobs.get(job_id).position for job_id in made] == [0, 1, 2]  # type: ignore[union-attr]
    assert [jobs.claim("training", "w").id for _ in made] == made  # type: ignore[union-attr]
    assert jobs.claim("training", "w") is None


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


def test_a_heartbeat_between_look_and_verdict_saves_the_job(jobs: Jobs) -> None:
    make(jobs)
    job = jobs.claim("training", "w")
    assert job
    seen = jobs.beats()[job.id]
    assert jobs.heartbeat(job) == "ok"
    assert jobs.lose(job.id, seen, 1) == "alive"


def test_cancel_and_release(jobs: Jobs) -> None:
    waiting = make(jobs)
    assert jobs.cancel(waiting.id) == "queued"
    assert jobs.get(waiting.id).status == "cancelled"  # type: ignore[union-attr]
    make(jobs)
    job = jobs.claim("training", "w")
    assert job and jobs.release("other") == [] and jobs.release("w") == [job.id]
    assert jobs.claim("training", "w") is None, "a worker that ends gets no other job"
    again = jobs.claim("training", "another")
    assert again and again.id == job.id
    assert jobs.cancel(again.id) == "running" and jobs.heartbeat(again) == "cancel"
    assert jobs.finish(again, "succeeded", files=[{"name": "x"}])
    assert jobs.get(again.id).status == "cancelled" and not jobs.get(again.id).files  # type: ignore[union-attr]


def test_list_is_newest_first_and_ids_sort_by_time(jobs: Jobs) -> None:
    made = [new_id(at) for at in (1000.0, 2000.0, 3000.0)]
    for job_id in reversed(made):
        jobs.create(Job(id=job_id, type="training", queue="training", created_at=now()))
    assert [job.id for job in jobs.newest_first()] == made[::-1]
    assert [job.id for job in jobs.newest_first(before=made[2], since=first_id_at(2000.0))] == [made[1]]


def test_the_keeper_sweeps_what_no_record_names(jobs: Jobs, settings: Settings) -> None:
    keeper = Keeper(settings)
    store = keeper._artifacts
    make(jobs)
    job = jobs.claim("training", "w")
    assert job
    kept, input_png = store.put(f"jobs/{job.id}/{job.fence}/mesh.glb", b"1"), f"jobs/{job.id}/input/input.png"
    for key in (input_png, f"jobs/{job.id}/0/stale", f"jobs/{new_id()}/1/orphan"):
        store.put(key, b"2")
    keeper.sweep(age_s=0)
    assert sorted(store.keys(job.id)) == sorted([kept["key"], input_png])
    assert store.job_ids() == [job.id]
    jobs.finish(job, "succeeded", files=[{**kept, "name": "mesh.glb"}])
    store.put(f"jobs/{job.id}/{job.fence}/unnamed", b"3")
    keeper.sweep(age_s=0)
    assert sorted(store.keys(job.id)) == sorted([kept["key"], input_png])


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
