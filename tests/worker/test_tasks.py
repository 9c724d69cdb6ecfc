"""Jobs done in this process on the real broker and a real folder, which goes away and comes back, or has no room."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from sdfsrn.config import WEIGHTS, ReconstructionConfig, SdfSrnConfig, View
from service import artifacts
from service.artifacts import Artifacts, job_key
from service.jobs import Job, Jobs, connect, new_id, now
from service.settings import Settings
from tests.conftest import SMALL_TRAINING, Broker
from worker import claim, tasks


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    settings = Settings(data=tmp_path / "data")
    with Broker(settings):
        connected = Jobs(connect(settings))
        monkeypatch.setattr(tasks, "_settings", settings)
        monkeypatch.setattr(tasks, "_artifacts", Artifacts(settings.store_url))
        monkeypatch.setattr(tasks, "_jobs", connected)
        monkeypatch.setattr(claim, "STORE_AGAIN_S", 0.1)
        yield connected


@pytest.fixture
def store(tmp_path: Path) -> "Store":
    return Store(tmp_path / "data" / "artifacts")


class Store:
    """A folder in whose place there is something else for a while: nothing in it can be read or written."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._aside = folder, folder.with_suffix(".aside")
        folder.mkdir(parents=True)

    def leave(self) -> None:
        """Be away."""
        self._folder.rename(self._aside)
        self._folder.touch()

    def come_back(self) -> None:
        """Be there again."""
        self._folder.unlink()
        self._aside.rename(self._folder)


def reconstruction(jobs: Jobs, photo: bytes) -> Job:
    """One that was taken in, and claimed."""
    default = WEIGHTS / "default.safetensors"
    config = ReconstructionConfig(size=32, views=(View(0.0, 0.0),))
    source = {"file": default.name, "sha256": hashlib.sha256(default.read_bytes()).hexdigest()}
    job = Job(new_id(), "reconstruction", "reconstruction", now(), params=asdict(config), source=source)
    tasks._artifacts.put(job_key(job.id, "input", "input.png"), photo)
    return claimed(jobs, job)


def training(jobs: Jobs, **settings: object) -> Job:
    """A small one, claimed."""
    config = asdict(SdfSrnConfig(**SMALL_TRAINING["config"])) | settings
    dataset = {"type": "synthetic", "n_shapes": 2, "families": ["sphere"], "views_per_shape": 1, "seed": 0}
    params = {"method": "sdf_srn", "config": config, "dataset": dataset, "publish_as": "small"}
    return claimed(jobs, Job(new_id(), "training", "training", now(), params=params))


def claimed(jobs: Jobs, job: Job) -> Job:
    jobs.create(job)
    found = jobs.claim(job.queue, "w")
    assert found
    return found


def when(condition: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """Do something as soon as the condition holds, beside the job."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_store_away_for_a_moment_costs_neither_what_is_read_nor_what_is_made(
    jobs: Jobs, store: Store, photo: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    job = reconstruction(jobs, photo)
    store.leave()
    back = when(lambda: "waits" in caplog.text, store.come_back)
    tasks.work(job)
    back.join()
    made = training(jobs)
    away = when(lambda: jobs.get(made.id).progress.get("phase") == "training", store.leave)  # type: ignore[union-attr]
    caplog.clear()
    back = when(lambda: "waits" in caplog.text, store.come_back)
    tasks.work(made)
    away.join(), back.join()
    for each in (job, made):
        ended = jobs.get(each.id)
        assert ended and (ended.status, ended.attempt) == ("succeeded", 1), ended
    assert "waits" in caplog.text, "it was away to the end"
    assert ended.published == {"name": "small", "version": 1}


def test_a_store_that_stays_away_is_a_loss_and_the_third_ends_the_job(
    jobs: Jobs, store: Store, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "STORE_AWAY_S", 0.3)
    job = reconstruction(jobs, photo)
    store.leave()
    tasks.work(job)
    assert [jobs.get(job.id).status, jobs.head("reconstruction")] == ["queued", job.id]  # type: ignore[union-attr]
    assert any("store" in event.data["message"] for event in jobs.events(job.id) if event.kind == "log")
    tasks.work_off("reconstruction", "w")
    ended = jobs.get(job.id)
    assert ended and (ended.status, ended.attempt) == ("failed", 3)


def test_who_waits_for_the_store_hears_of_a_cancellation(jobs: Jobs, store: Store, photo: bytes) -> None:
    job = reconstruction(jobs, photo)
    store.leave()
    start = time.monotonic()
    cancelling = threading.Timer(0.5, jobs.cancel, [job.id])
    cancelling.start()
    tasks.work(job)
    assert jobs.get(job.id).status == "cancelled" and time.monotonic() - start < 10  # type: ignore[union-attr]


def test_a_record_holds_what_was_said_and_the_worker_fills_in_its_own_defaults(jobs: Jobs, photo: bytes) -> None:
    source = {"file": "default.safetensors", "sha256": hashlib.sha256((WEIGHTS / "default.safetensors").read_bytes()).hexdigest()}
    said = {"size": 32, "views": [{"azimuth_deg": 0.0, "elevation_deg": 0.0}]}
    job = Job(new_id(), "reconstruction", "reconstruction", now(), params=said, source=source)
    tasks._artifacts.put(job_key(job.id, "input", "input.png"), photo)
    tasks.work(claimed(jobs, job))
    ended = jobs.get(job.id)
    assert ended and ended.status == "succeeded" and ended.params == said, ended
    assert ended.provenance["seed"] == 0 and ended.files[-1]["view"] == said["views"][0]


def test_a_training_goes_on_with_the_defaults_that_it_began_with(jobs: Jobs) -> None:
    """Its first worker may have had another version of the service, with another default."""
    first = training(jobs, learning_rate=2e-5)
    tasks.work(first)
    (checkpoint,) = (file for file in jobs.get(first.id).files if file["name"] == "checkpoint.safetensors")  # type: ignore[union-attr]
    config = {name: value for name, value in first.params["config"].items() if name != "learning_rate"}
    dataset = {name: value for name, value in first.params["dataset"].items() if name != "seed"}
    said = {"config": config, "dataset": dataset}
    second = claimed(jobs, Job(new_id(), "training", "training", now(), params=said))
    jobs.checkpoint(second, {name: checkpoint[name] for name in ("key", "bytes", "sha256")} | {"step": 1})
    assert jobs.release(second) == "queued"
    tasks.work_off("training", "w")
    ended = jobs.get(second.id)
    assert ended and ended.status == "succeeded" and ended.attempt == 2, ended
    assert ended.provenance["config"]["learning_rate"] == 2e-5
    metrics = [event.data for event in jobs.events(first.id) if event.kind == "metric"]
    assert (metrics[-1]["epoch"], metrics[-1]["step"]) == (4, 4) and "loss" in metrics[-1]


@pytest.mark.parametrize("damage", ["another data set", "another format"])
def test_a_training_whose_checkpoint_does_not_fit_begins_anew(jobs: Jobs, damage: str) -> None:
    """As one that another version of the service wrote."""
    first = training(jobs)
    tasks.work(first)
    (checkpoint,) = (file for file in jobs.get(first.id).files if file["name"] == "checkpoint.safetensors")  # type: ignore[union-attr]
    params = first.params | {"dataset": first.params["dataset"] | {"seed": 7}}
    stored = {name: checkpoint[name] for name in ("key", "bytes", "sha256")}
    if damage == "another format":
        stored = dict(tasks._artifacts.put(job_key(first.id, 1, "other.safetensors"), b"of another kind"))
    second = claimed(jobs, Job(new_id(), "training", "training", now(), params=params))
    jobs.checkpoint(second, stored | {"step": 1})
    assert jobs.release(second) == "queued"
    tasks.work_off("training", "w")
    ended = jobs.get(second.id)
    assert ended and ended.status == "succeeded" and ended.attempt == 2, ended
    said = [event.data["message"] for event in jobs.events(second.id) if event.kind == "log"]
    assert any("the training begins anew" in message for message in said), said


def test_the_evaluation_after_a_training_is_a_phase_with_an_eta_of_its_own(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "PROGRESS_EVERY_S", 0.0)
    job = training(jobs)
    tasks.work(job)
    told = [event.data for event in jobs.events(job.id) if event.kind == "progress"]
    phases = list(dict.fromkeys(report["phase"] for report in told))
    known = ["familiarity"] if "familiarity" in phases else []  # too few pictures say nothing about a kind
    assert phases == ["loading", "data", "training", *known, "evaluation", "storing"]
    evaluation = [report for report in told if report["phase"] == "evaluation"]
    assert [report["step"] for report in evaluation] == [0, 1, 2] and {report["total"] for report in evaluation} == {2}
    assert evaluation[0]["eta_s"] is None and evaluation[1]["eta_s"] is not None and evaluation[2]["eta_s"] == 0


def test_a_method_that_this_version_lacks_is_named(jobs: Jobs) -> None:
    job = claimed(jobs, Job(new_id(), "training", "training", now(), params={"method": "gan"}))
    tasks.work(job)
    assert "does not know the method 'gan'" in jobs.get(job.id).error["detail"]  # type: ignore[union-attr, index]


def test_a_training_taken_in_by_another_version_says_what_this_one_lacks(jobs: Jobs) -> None:
    job = training(jobs, sharpness=3.0)
    tasks.work(job)
    ended = jobs.get(job.id)
    assert ended and ended.status == "failed" and ended.error, ended
    assert ended.error["type"].endswith("value-error") and "setting sharpness this one does not have" in ended.error["detail"]


def test_a_disk_without_room_fails_the_job_at_once(jobs: Jobs, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    job = reconstruction(jobs, photo)
    monkeypatch.setattr(artifacts, "SPARED", 1 << 62)
    monkeypatch.setattr(artifacts, "SPARED_SHARE", 1.0)
    start = time.monotonic()
    tasks.work(job)
    ended = jobs.get(job.id)
    assert ended and ended.status == "failed" and "nearly full" in str(ended.error) and time.monotonic() - start < 30
    assert not list((tasks._settings.data / "artifacts").rglob("*/1/*")), "nothing is left of what did not fit"


@pytest.mark.usefixtures("store")  # there is a folder to be full
def test_who_follows_a_training_hears_that_its_checkpoints_find_no_room(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "SPARED", 1 << 62)
    monkeypatch.setattr(artifacts, "SPARED_SHARE", 1.0)
    job = training(jobs, checkpoint_every=1)
    tasks.work(job)
    said = [event.data["message"] for event in jobs.events(job.id) if event.kind == "log"]
    assert any("could not be stored, there is none yet" in message and "nearly full" in message for message in said), said
