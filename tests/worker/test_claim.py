"""A worker's hold on a job, on the real broker: it hears of its end, loses nothing to a restart, and wins nothing twice."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfsrn.training import Interrupted
from service.jobs import Job, Jobs, connect, new_id, now
from service.settings import Settings
from tests.conftest import Broker
from worker.claim import HEARTBEAT_S, PROGRESS_EVERY_S, PROGRESS_TIMEOUT_S, Claim, Eta, Stopped, TookTooLong


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(Settings(data=tmp_path / "data")) as running:
        yield running


@pytest.fixture
def jobs(broker: Broker) -> Jobs:
    return Jobs(connect(broker.settings))


def claimed(jobs: Jobs) -> Job:
    jobs.create(Job(id=new_id(), type="training", queue="training", created_at=now()))
    job = jobs.claim("training", "w")
    assert job
    return job


def stopped_within(claim: Claim, seconds: float) -> str:
    """Report progress until told to stop; the reason."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            claim.progress("training", 1, 9)
        except (Stopped, Interrupted) as stopped:
            return str(stopped)
        time.sleep(0.05)
    raise AssertionError(f"not told to stop within {seconds} s")


def test_it_renews_itself_and_hears_of_a_cancellation(broker: Broker, jobs: Jobs) -> None:
    job = claimed(jobs)
    with Claim(broker.settings, jobs, job) as claim:
        before = jobs.beats()[job.id]
        time.sleep(HEARTBEAT_S + 0.5)
        assert jobs.beats()[job.id] != before
        assert jobs.cancel(job.id) == "running"
        assert stopped_within(claim, HEARTBEAT_S + 1) == "cancel"
        assert claim.finish("cancelled")
    assert jobs.get(job.id).status == "cancelled"  # type: ignore[union-attr]


def test_it_hears_of_a_pause_and_still_of_a_cancellation_after_it(broker: Broker, jobs: Jobs) -> None:
    job = claimed(jobs)
    with Claim(broker.settings, jobs, job) as claim:
        jobs.pause(job.id)
        assert stopped_within(claim, HEARTBEAT_S + 1) == "pause"
        jobs.cancel(job.id)
        time.sleep(HEARTBEAT_S + 0.5)
        assert stopped_within(claim, 1) == "cancel"
        assert claim.release() == "cancelled"


def test_a_lost_claim_stops_and_publishes_nothing(broker: Broker, jobs: Jobs) -> None:
    job = claimed(jobs)
    with Claim(broker.settings, jobs, job) as claim:
        assert jobs.lose(job.id, jobs.beats()[job.id], 3) == "queued"
        with pytest.raises(Stopped):
            claim.checkpoint({"step": 1, "key": "late"})
        assert stopped_within(claim, HEARTBEAT_S + 1) == "lost"
        assert not claim.finish("succeeded", files=[])
    found = jobs.get(job.id)
    assert found and found.status == "queued" and found.checkpoint is None


def test_progress_is_reported_at_its_pace_but_never_misses_a_phase(broker: Broker, jobs: Jobs) -> None:
    job = claimed(jobs)

    def seen() -> tuple[str, int]:
        progress = jobs.get(job.id).progress  # type: ignore[union-attr]
        return progress["phase"], progress["step"]

    with Claim(broker.settings, jobs, job) as claim:
        claim.progress("training", 1, 9, {"loss": 0.5})
        claim.progress("training", 2, 9)
        assert seen() == ("training", 1)
        time.sleep(PROGRESS_EVERY_S)
        claim.progress("training", 3, 9)
        assert seen() == ("training", 3)
        claim.progress("training", 9, 9)
        assert seen() == ("training", 9)
        claim.progress("evaluation", 0, 4)
        assert seen() == ("evaluation", 0)
        assert jobs.get(job.id).metrics == {"loss": 0.5}  # type: ignore[union-attr]


def test_the_last_metrics_of_a_phase_are_heard_however_soon_they_come(broker: Broker, jobs: Jobs) -> None:
    job = claimed(jobs)

    def heard() -> list[float]:
        return [event.data["loss"] for event in jobs.events(job.id) if event.kind == "metric"]

    with Claim(broker.settings, jobs, job) as claim:
        claim.progress("training", 1, 9, {"loss": 0.5})
        claim.progress("training", 2, 9, {"loss": 0.4})
        claim.progress("training", 2, 9)
        assert heard() == [0.5]
        claim.progress("evaluation", 0, 4)
        assert heard() == [0.5, 0.4]
        claim.progress("evaluation", 1, 4, {"loss": 0.3})
        assert jobs.get(job.id).progress["step"] == 0  # type: ignore[union-attr]
        assert claim.release() == "queued"
        assert heard() == [0.5, 0.4, 0.3]


# A worker whose work hangs while its heartbeat goes on, and one that keeps Python's lock, so that not even that goes on.
HANGS = """
import time, re
from service.jobs import Jobs, connect
from service.settings import Settings
from worker import claim
claim.BACKSTOP_S = {backstop_s}
jobs = Jobs(connect(Settings()))
with claim.Claim(Settings(), jobs, jobs.claim("reconstruction", "w")) as held:
    held.progress("rendering", 1, 9)
    {hang}
"""


@pytest.mark.parametrize(
    ("hang", "backstop_s", "status"),
    [
        ("time.sleep(600)", 60.0, "failed"),
        pytest.param("re.match('(a|a)+$', 'a' * 60 + 'b')", 1.0, "running", marks=pytest.mark.slow),
    ],
)
def test_work_that_hangs_ends_its_process_and_is_a_loss(
    broker: Broker, jobs: Jobs, hang: str, backstop_s: float, status: str
) -> None:
    jobs.create(Job(id=new_id(), type="reconstruction", queue="reconstruction", created_at=now()))
    scale = 1.5 / PROGRESS_TIMEOUT_S["reconstruction"]
    environment = os.environ | {
        "SDFSRN_DATA": str(broker.settings.data),
        "SDFSRN_PROGRESS_TIMEOUT_SCALE": str(scale),
        "SDFSRN_MAX_ATTEMPTS": "1",
    }
    job_id = jobs.head("reconstruction")
    command = [sys.executable, "-c", HANGS.format(hang=hang, backstop_s=backstop_s)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1 and "most recent call first" in run.stderr, run.stderr
    job = jobs.get(str(job_id))
    assert job and job.status == status, "a heartbeat that stands still is for the keeper to see"
    if status == "failed":
        assert "made no progress for 1.5 s" in job.error["detail"]  # type: ignore[index]
        assert any("made no progress" in event.data["message"] for event in jobs.events(job.id) if event.kind == "log")


def test_a_broker_killed_and_restarted_costs_neither_checkpoint_nor_result(broker: Broker, jobs: Jobs) -> None:
    job = claimed(jobs)
    with Claim(broker.settings, jobs, job) as claim:
        broker.kill()
        back = threading.Timer(1.5, broker.start)
        back.start()
        claim.progress("training", 1, 9)  # nobody hears it, and nothing is raised
        claim.checkpoint({"step": 7, "key": "kept"})  # waits for the broker
        back.join()
        assert jobs.get(job.id).checkpoint == {"step": 7, "key": "kept"}  # type: ignore[union-attr]
        assert claim.finish("succeeded", files=[{"name": "only"}])
    found = jobs.get(job.id)
    assert found and found.status == "succeeded" and found.files == [{"name": "only"}] and found.attempt == 1


def test_a_training_has_its_worker_for_so_long_and_no_longer(broker: Broker, jobs: Jobs) -> None:
    limited = broker.settings.model_copy(update={"max_training_s": 1})
    with Claim(limited, jobs, claimed(jobs)) as claim:
        claim.progress("training", 1, 9)
        time.sleep(1.1)
        with pytest.raises(TookTooLong, match=r"within 1 s .*SDFSRN_MAX_TRAINING_S"):
            claim.progress("training", 2, 9)
        claim.progress("storing", 0, 1)  # what is done by then is kept


def test_time_left_is_that_of_the_present_phase() -> None:
    eta, before = Eta(), time.monotonic()
    assert eta.left_s("training", 10, 20) is None, "resumed at 10, nothing known yet"
    begun = time.monotonic()
    time.sleep(0.2)
    least = time.monotonic() - begun
    left = eta.left_s("training", 12, 20)
    most = time.monotonic() - before
    rounding = 0.051
    assert left and 4 * least - rounding <= left <= 4 * most + rounding, "two steps took so long, and eight are left"
    assert eta.left_s("evaluation", 0, 5) is None
