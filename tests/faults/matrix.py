"""What can go wrong, done to a running service, and what became of its jobs.

A scenario submits jobs, harms the service in the middle of them and says how long the harm was felt. Afterwards every job that
was accepted must have ended once, and nothing may lie in the store that no record names.
"""

import contextlib
import io
import json
import os
import signal
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import redis

from service.artifacts import job_key
from service.jobs import ENDED, Job
from service.keeper import Keeper
from service.queue import DATASET, RECONSTRUCTION, TRAINING, Queue
from tests.conftest import Stack, shaded_ball

BESIDE = 7  # small reconstructions that every scenario has beside the job that it is about
SETTLED_WITHIN_S = 150.0
DEAF_PORT = "18431"
CLOCK_FILE = "clock"  # beside the data folder; its seconds are added to every process's time
SETTINGS = {
    "webhook_secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "webhook_hosts": f"127.0.0.1:{DEAF_PORT}",
    "webhook_private": "1",
    "progress_timeout_scale": "0.1",  # a reconstruction that hangs is found after 30 s
}
LONG_TRAINING = {
    "dataset": {"n_shapes": 12},
    "config": {"epochs": 80, "checkpoint_every": 5, "n_rays": 32, "n_samples": 8, "learning_rate": 1e-5},
}
LONG_PICTURES = {"size": "256", "views": json.dumps({"count": 120})}


@dataclass
class Result:
    """What came of one scenario."""

    name: str
    jobs: int = 0
    lost: int = 0
    doubled: int = 0
    orphans: int = 0
    recovery_s: float | None = None
    statuses: dict[str, int] = field(default_factory=dict)
    remark: str = ""


class Field:
    """A running service that is to suffer, and what was asked of it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.accepted: list[str] = []
        self.jobs = stack.jobs()
        self._picture = shaded_ball(96)

    def small(self, count: int = BESIDE) -> None:
        """Small reconstructions, whatever becomes of them."""
        for _ in range(count):
            self.submit_picture({"size": "32", "views": json.dumps({"count": 1})})

    def submit_picture(self, fields: dict[str, str]) -> str:
        """A reconstruction; its id."""
        return self._accept(lambda: self.stack.client.post("/v1/reconstructions", files={"image": self._picture}, data=fields))

    def submit_training(self, plan: dict[str, Any] | None = None) -> str:
        """A training; its id."""
        return self._accept(lambda: self.stack.client.post("/v1/trainings", json=plan or LONG_TRAINING))

    def submit_dataset(self) -> str:
        """A data set that takes seconds to check; its id."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            pose = [[1, 0, 0, 0], [0, 0, -1, -4], [0, 1, 0, 0], [0, 0, 0, 1]]
            picture, names = shaded_ball(1024), [f"{i}.png" for i in range(150)]
            for name in names:
                archive.writestr(name, picture)
            frames = [{"file_path": name, "transform_matrix": pose} for name in names]
            archive.writestr("transforms.json", json.dumps({"camera_angle_x": 0.7, "frames": frames}))
        headers = {"Content-Type": "application/zip"}
        return self._accept(lambda: self.stack.client.post("/v1/datasets", content=buffer.getvalue(), headers=headers))

    def record(self, job_id: str) -> Job:
        """The job's record, also while the API is away."""
        found = self.jobs.get(job_id)
        assert found is not None
        return found

    def until(self, holds: Callable[[], bool], seconds: float = 60.0) -> float:
        """Wait, looking often, through whatever fails meanwhile; how long it took."""
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            with contextlib.suppress(redis.RedisError, httpx.HTTPError, AssertionError, psutil.Error):
                if holds():
                    return time.monotonic() - start
            time.sleep(0.05)
        raise TimeoutError(f"not within {seconds} s")

    def until_phase(self, job_id: str, phase: str) -> None:
        """Wait until a job is in a phase."""
        self.until(lambda: self.record(job_id).progress.get("phase") == phase)

    def process(self, command: str) -> psutil.Process:
        """The service's process whose command line holds this."""
        family = psutil.Process(self.stack.process.pid).children(recursive=True)
        return next(process for process in family if command in " ".join(process.cmdline()))

    def _accept(self, send: Callable[[], httpx.Response]) -> str:
        answer = send()
        assert answer.status_code == 202, answer.text
        self.accepted.append(answer.json()["id"])
        return self.accepted[-1]


def settle(harmed: Field, result: Result) -> None:
    """Wait for all jobs to end, sweep, and count."""
    records: dict[str, Job] = {}

    def all_ended() -> bool:
        records.update({job_id: harmed.record(job_id) for job_id in harmed.accepted})
        return all(job.ended for job in records.values())

    with contextlib.suppress(TimeoutError):
        harmed.until(all_ended, SETTLED_WITHIN_S)
    jobs = harmed.jobs
    ends = {job_id: [event.kind for event in jobs.events(job_id)].count("end") for job_id in harmed.accepted}
    result.jobs = len(harmed.accepted)
    result.lost = sum(job_id not in records or records[job_id].status not in ENDED for job_id in harmed.accepted)
    result.doubled = sum(count > 1 for count in ends.values())
    for job in records.values():
        result.statuses[job.status] = result.statuses.get(job.status, 0) + 1
    with contextlib.suppress(TimeoutError):  # a worker tidies every ten seconds
        harmed.until(lambda: _orphans(harmed.stack, records) == 0, 20)
    result.orphans = _orphans(harmed.stack, records)


def _orphans(stack: Stack, records: dict[str, Job]) -> int:
    """Files that are nobody's after the keeper's sweep, and scratch folders of jobs that ended."""
    keeper = Keeper(stack.settings())
    keeper.sweep(age_s=0)
    while keeper._unswept:
        keeper.sweep(age_s=0)
    named = {file["key"] for job in records.values() for file in job.files}
    found = [key for job_id in records for key in keeper._artifacts.keys(job_id)]
    left = [key for key in found if key not in named and key.split("/")[2] != "input"]
    scratch = [path for path in (stack.data / "scratch").glob("*") if path.name.split("-")[0] in records]
    return len(left) + len(scratch)


def end(victim: str, phase: str, by: signal.Signals) -> Callable[[Field], float]:
    """A process is sent SIGKILL or SIGTERM while a job is in a phase."""

    def scenario(harmed: Field) -> float:
        is_training = phase in ("data", "training", "evaluation", "storing", "training queued")
        queue = TRAINING if is_training else RECONSTRUCTION
        job_id = harmed.submit_training() if is_training else harmed.submit_picture(LONG_PICTURES)
        if phase.endswith("queued"):
            harmed.until_phase(job_id, "rendering" if queue == RECONSTRUCTION else "training")
            job_id = harmed.submit_training() if is_training else harmed.submit_picture(LONG_PICTURES)
            harmed.small()
        else:
            harmed.small()
            harmed.until_phase(job_id, phase)
        took = strike(harmed, victim, queue, by)
        if by == signal.SIGTERM:
            losses = [harmed.jobs._redis.hget(f"sdfsrn:job:{each}", "losses") for each in harmed.accepted]
            assert not any(losses), "an orderly end is no loss"
        return took

    return scenario


def strike(harmed: Field, victim: str, queue: str, by: signal.Signals = signal.SIGKILL) -> float:
    """End one process; seconds until its work goes on: until a job of its queue is claimed, or it answers again."""
    stack = harmed.stack
    of_queue = [job_id for job_id in harmed.accepted if harmed.record(job_id).queue == queue]
    process = {
        "child": lambda: stack.worker_child(queue),
        "worker": lambda: stack.worker(queue),
        "API": lambda: harmed.process("service.serve"),
        "broker": lambda: harmed.process("unixsocket"),
        "keeper": lambda: harmed.process("service.keeper"),
    }[victim]()
    process.send_signal(by)
    killed = time.time()
    if victim == "API":
        return harmed.until(lambda: stack.client.get("/healthz").status_code == 200)
    if victim == "broker":
        time.sleep(0.5)
        return 0.5 + harmed.until(lambda: stack.client.get("/readyz").json()["broker"] == "ok")
    if victim == "keeper":
        time.sleep(0.5)
        return 0.5 + harmed.until(lambda: bool(harmed.process("service.keeper")))
    return harmed.until(
        lambda: (
            any(claimed_at(harmed, job_id) > killed for job_id in of_queue)
            or all(harmed.record(job_id).ended for job_id in of_queue)
        )
    )


def claimed_at(harmed: Field, job_id: str) -> float:
    """When a job was claimed last, in seconds since 1970; 0 if never."""
    claims = [event.id for event in harmed.jobs.events(job_id) if event.data.get("status") == "running"]
    return int(claims[-1].split("-")[0]) / 1000 if claims else 0.0


def broker_gone(harmed: Field) -> float:
    """The broker answers nobody for thirty seconds."""
    job_id = harmed.submit_training()
    harmed.small()
    harmed.until_phase(job_id, "training")
    broker = harmed.process("unixsocket")
    broker.send_signal(signal.SIGSTOP)
    time.sleep(30)
    broker.send_signal(signal.SIGCONT)
    return harmed.until(lambda: set(harmed.stack.client.get("/readyz").json().values()) == {"ok"})


def worker_stopped(harmed: Field) -> float:
    """A worker sleeps for longer than its lease and wakes up believing that it still owns its job."""
    job_id = harmed.submit_training()
    harmed.small()
    harmed.until_phase(job_id, "training")
    sleepers = [harmed.stack.worker(TRAINING), harmed.stack.worker_child(TRAINING)]
    for process in sleepers:
        process.send_signal(signal.SIGSTOP)
    harmed.until(lambda: harmed.record(job_id).status == "queued", 30)
    for process in sleepers:
        process.send_signal(signal.SIGCONT)
    return harmed.until(lambda: harmed.record(job_id).attempt == 2)


def worker_ends(harmed: Field) -> float:
    """SIGTERM: the training leaves a checkpoint and is taken over; it is no loss."""
    job_id = harmed.submit_training()
    harmed.small()
    harmed.until_phase(job_id, "training")
    harmed.stack.worker(TRAINING).terminate()
    took = harmed.until(lambda: harmed.record(job_id).attempt == 2)
    assert harmed.record(job_id).checkpoint is not None
    assert harmed.jobs._redis.hget(f"sdfsrn:job:{job_id}", "losses") is None
    return took


def disk_full(harmed: Field) -> None:
    """No file of a worker may grow any more while it stores its artifacts."""
    victims = [harmed.stack.worker_child(queue) for queue in (TRAINING, RECONSTRUCTION)]
    before = [victim.rlimit(psutil.RLIMIT_FSIZE) for victim in victims]
    for victim in victims:
        victim.rlimit(psutil.RLIMIT_FSIZE, (4096, before[0][1]))
    harmed.small()
    job_id = harmed.submit_training(
        {**LONG_TRAINING, "dataset": {"n_shapes": 2}, "config": {**LONG_TRAINING["config"], "epochs": 2}}
    )
    harmed.until(lambda: all(harmed.record(each).ended for each in harmed.accepted))
    error = harmed.record(job_id).error or {}
    assert "cannot store" in error.get("detail", "") or "large" in error.get("detail", ""), error
    for victim, limits in zip(victims, before, strict=True):
        victim.rlimit(psutil.RLIMIT_FSIZE, limits)


def corrupt_checkpoint(harmed: Field) -> float:
    """The checkpoint to go on from is damaged on the disk: the training begins anew, and says so."""
    job_id = harmed.submit_training()
    harmed.small()
    harmed.until(lambda: harmed.record(job_id).checkpoint is not None)
    harmed.stack.worker_child(TRAINING).kill()
    checkpoint = harmed.record(job_id).checkpoint
    assert checkpoint is not None
    path = harmed.stack.data / "artifacts" / checkpoint["key"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    took = harmed.until(lambda: harmed.record(job_id).attempt == 2)
    harmed.until(lambda: any(event.kind == "log" for event in harmed.jobs.events(job_id)))
    return took


def delivered_twice(harmed: Field) -> None:
    """Every wake-up message arrives fifty times more."""
    queue = Queue(harmed.stack.settings())
    job_id = harmed.submit_training({**LONG_TRAINING, "config": {**LONG_TRAINING["config"], "epochs": 5}})
    harmed.small()
    for _ in range(50):
        queue.wake(TRAINING, job_id)
        queue.wake(RECONSTRUCTION, harmed.accepted[-1])
    queue.close()


def kills_every_worker(harmed: Field) -> None:
    """A job whose worker dies each time it is tried ends, failed, with a reason."""
    plan = {**LONG_TRAINING, "config": {**LONG_TRAINING["config"], "checkpoint_every": 1000, "epochs": 2000}}
    job_id = harmed.submit_training(plan)
    harmed.small()
    for attempt in (1, 2, 3):
        harmed.until(lambda attempt=attempt: (job := harmed.record(job_id)).attempt == attempt and job.status == "running")  # type: ignore[misc]
        harmed.until_phase(job_id, "training")
        harmed.stack.worker_child(TRAINING).kill()
    harmed.until(lambda: harmed.record(job_id).ended)
    job = harmed.record(job_id)
    assert job.status == "failed" and "3 times" in str(job.error), job


def deaf_webhook(harmed: Field) -> float:
    """A receiver takes the connection and never answers; a worker is lost at the same time."""
    with socket.socket() as receiver:
        receiver.bind(("127.0.0.1", int(DEAF_PORT)))
        receiver.listen(64)
        for _ in range(BESIDE):
            harmed.submit_picture({"size": "32", "webhook_url": f"http://127.0.0.1:{DEAF_PORT}/"})
        job_id = harmed.submit_training()
        harmed.until_phase(job_id, "training")
        return strike(harmed, "child", TRAINING)


def work_that_hangs(harmed: Field) -> float:
    """A file that is read never ends, as on a store that hangs: the job's process is ended, which is one loss."""
    child = harmed.stack.worker_child(RECONSTRUCTION)
    child.suspend()
    job_id = harmed.submit_picture({"size": "32"})
    path = harmed.stack.data / "artifacts" / job_key(job_id, "input", "input.png")
    picture = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    child.resume()
    harmed.small()
    harmed.until(lambda: harmed.record(job_id).progress.get("phase") == "loading")
    time.sleep(0.5)
    path.unlink()  # the one who reads it waits on
    path.write_bytes(picture)
    took = harmed.until(lambda: harmed.record(job_id).attempt == 2)
    assert harmed.jobs._redis.hget(f"sdfsrn:job:{job_id}", "losses") == "1"
    return took


def dataset_reader_killed(harmed: Field) -> float:
    """The process that reads a stranger's archive dies at it."""
    job_id = harmed.submit_dataset()
    harmed.small()
    harmed.until(lambda: harmed.record(job_id).progress.get("phase") in ("reading", "warping"))
    return strike(harmed, "child", DATASET)


def listed(harmed: Field) -> Iterator[str]:
    """The ids of all jobs, other scenarios' too: what was made with the clock set back comes after them, on a later page."""
    cursor = ""
    while cursor is not None:
        page = harmed.stack.client.get(f"/v1/jobs?limit=10{cursor and '&cursor='}{cursor}").json()
        yield from (job["id"] for job in page["items"])
        cursor = page["next_cursor"]


def clock_set_back(harmed: Field) -> None:
    """An hour back for every process of the service, in the middle of a training: later jobs have earlier times, and end too."""
    job_id = harmed.submit_training()
    harmed.small()
    harmed.until_phase(job_id, "training")
    clock = harmed.stack.data.parent / CLOCK_FILE
    clock.write_text("-3600")
    try:
        harmed.small()
        late = harmed.submit_training({**LONG_TRAINING, "config": {**LONG_TRAINING["config"], "epochs": 5}})
        assert harmed.record(late).created_at < harmed.record(job_id).created_at, "the clock was not moved"
        harmed.until(lambda: all(harmed.record(each).ended for each in harmed.accepted), SETTLED_WITHIN_S)
        missing = set(harmed.accepted) - set(listed(harmed))
        assert not missing, f"not listed: {missing}"
    finally:
        clock.write_text("0")


def scenarios() -> Iterator[tuple[str, Callable[[Field], float | None]]]:
    """All of them, by name."""
    for victim in ("child", "worker", "API", "broker"):
        for phase in ("training queued", "training", "evaluation", "queued", "rendering"):
            yield f"kill -9 of the {victim}, job in phase {phase}", end(victim, phase, signal.SIGKILL)
    yield "kill -9 of the keeper, job in phase training", end("keeper", "training", signal.SIGKILL)
    for phase in ("training queued", "evaluation", "storing", "queued", "rendering"):
        yield f"SIGTERM to the worker, job in phase {phase}", end("worker", phase, signal.SIGTERM)
    for phase in ("training", "queued"):
        yield f"SIGTERM to the keeper, job in phase {phase}", end("keeper", phase, signal.SIGTERM)
    yield "work that hangs", work_that_hangs
    yield "broker gone for 30 s", broker_gone
    yield "worker stopped beyond its lease, then woken", worker_stopped
    yield "SIGTERM to the worker", worker_ends
    yield "disk full while artifacts are written", disk_full
    yield "corrupt checkpoint", corrupt_checkpoint
    yield "messages delivered fifty times", delivered_twice
    yield "a job that kills its worker every time", kills_every_worker
    yield "webhook receiver that never answers", deaf_webhook
    yield "kill -9 of the child that reads a data set", dataset_reader_killed
    yield "clock set back by an hour", clock_set_back
