"""kill -9, here and there: jobs go on and end once, and nothing outlives the service."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.jobs import connect
from tests.conftest import Stack, start_stack, stop_stack

pytestmark = pytest.mark.slow  # each waits for leases and restarts

TRAINING = {
    "dataset": {"n_shapes": 4},
    "config": {"epochs": 120, "checkpoint_every": 5, "n_rays": 16, "n_samples": 4, "learning_rate": 1e-6},
}


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Stack]:
    """A service that a test may kill."""
    running = start_stack(tmp_path / "data")
    family = psutil.Process(running.process.pid).children(recursive=True)
    yield running
    running.process.kill()
    running.process.wait()
    running.client.close()
    _, left = psutil.wait_procs(family, timeout=10)
    assert not left, left


@pytest.mark.parametrize("whole_worker", [False, True], ids=["child", "worker"])
def test_a_killed_training_goes_on_from_its_checkpoint(stack: Stack, whole_worker: bool) -> None:
    job = stack.client.post("/v1/trainings", json=TRAINING).json()

    def in_the_middle(envelope: dict[str, Any]) -> bool:
        return envelope["progress"]["phase"] == "training" and envelope["progress"]["step"] >= 20

    stack.wait_for(job["id"], in_the_middle)
    victim = stack.worker("training") if whole_worker else stack.worker_child("training")
    victim.kill()
    killed = time.monotonic()
    record = stack.jobs().get(job["id"])
    assert record and record.checkpoint
    going_on = stack.wait_for(job["id"], lambda envelope: envelope["attempt"] == 2, 30)
    print(f"claimed again after {time.monotonic() - killed:.1f} s")
    going_on = stack.wait_for(
        job["id"],
        lambda envelope: (
            envelope["progress"]["phase"] == "training"
            and envelope["attempt"] == 2
            and envelope["progress"]["step"] != record.progress["step"]
        ),
        killed + 30 - time.monotonic(),
    )
    print(f"trains again after {time.monotonic() - killed:.1f} s, at epoch {going_on['progress']['step']}")
    assert going_on["progress"]["step"] >= 15, "it began anew"
    ended = stack.ended(job["id"])
    assert ended["status"] == "succeeded" and ended["attempt"] == 2
    lines = stack.client.get(f"/v1/jobs/{job['id']}/artifacts/metrics.jsonl").text.splitlines()
    assert len(lines) == TRAINING["config"]["epochs"]


def test_an_orderly_end_is_no_loss_and_the_job_goes_on_after_it(tmp_path: Path) -> None:
    first = start_stack(tmp_path / "data")
    job = first.client.post("/v1/trainings", json=TRAINING).json()
    first.wait_for(job["id"], lambda envelope: envelope["progress"]["phase"] == "training" and envelope["progress"]["step"] >= 10)
    start = time.monotonic()
    stop_stack(first)
    took_s = time.monotonic() - start
    print(f"ended in order after {took_s:.1f} s")
    assert took_s < 15
    second = start_stack(tmp_path / "data")
    try:
        ended = second.ended(job["id"])
        assert ended["status"] == "succeeded" and ended["attempt"] == 2
        assert connect(second.settings()).hget(f"sdfsrn:job:{job['id']}", "losses") is None
    finally:
        stop_stack(second)


def test_nothing_outlives_a_killed_parent(own_stack: Stack) -> None:
    family = psutil.Process(own_stack.process.pid).children(recursive=True)
    assert len(family) >= 7
    own_stack.process.kill()
    own_stack.process.wait()
    _, left = psutil.wait_procs(family, timeout=10)
    assert not left, left
