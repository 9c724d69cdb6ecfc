"""A running service for the tests that need one: the real broker, keeper, workers and HTTP server, on a free port."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
from PIL import Image, ImageDraw

from service import broker, lifeline
from service.jobs import Jobs, connect
from service.settings import Settings

ROOT = Path(__file__).parents[1]
# Small, gentle enough not to collapse, with a checkpoint after every second pass.
SMALL_TRAINING = {
    "dataset": {"n_shapes": 4},
    "config": {"epochs": 4, "checkpoint_every": 2, "n_rays": 32, "n_samples": 8, "learning_rate": 1e-5},
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the files out among them (pytest-xdist), those with slow tests come first."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@dataclass
class Stack:
    """One running service: its process, its address, and a client of it."""

    process: "subprocess.Popen[str]"
    data: Path
    client: httpx.Client

    def settings(self) -> Settings:
        """The settings that its processes have."""
        return Settings(data=self.data)

    def log(self) -> str:
        """What its processes wrote, those of the start before too."""
        return _log(self.data)

    def jobs(self) -> Jobs:
        """Its job records."""
        return Jobs(connect(self.settings()))

    def worker(self, queue: str) -> psutil.Process:
        """The main process of the worker of a queue."""
        return next(
            child
            for child in psutil.Process(self.process.pid).children()
            if child.cmdline()[-4:] == ["-m", "worker", "--queue", queue] or f"--queue {queue}" in " ".join(child.cmdline())
        )

    def worker_child(self, queue: str) -> psutil.Process:
        """The process that does the work."""
        return max(self.worker(queue).children(), key=lambda child: child.memory_info().rss)

    def wait_for(self, job_id: str, until: Callable[[dict[str, Any]], bool], seconds: float = 240) -> dict[str, Any]:
        """Ask for the job until the condition holds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            envelope: dict[str, Any] = self.client.get(f"/v1/jobs/{job_id}").json()
            if until(envelope):
                return envelope
            time.sleep(0.1)
        raise AssertionError(f"not within {seconds} s: {envelope}")

    def ended(self, job_id: str, seconds: float = 240) -> dict[str, Any]:
        """The job's envelope when it has ended."""
        return self.wait_for(job_id, lambda job: job["status"] in ("succeeded", "failed", "cancelled"), seconds)


class Broker:
    """A broker by itself, as the service starts it: a context in which it runs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        settings.socket.parent.mkdir(parents=True, exist_ok=True)
        (settings.data / "broker").mkdir(exist_ok=True)

    def start(self) -> None:
        """Start it on its data and wait until it answers."""
        self.process = subprocess.Popen(broker.server_command(self.settings))
        deadline = time.monotonic() + 20
        while True:
            try:
                connect(self.settings).ping()
                return
            except redis.RedisError:
                assert time.monotonic() < deadline, "the broker did not start"
                time.sleep(0.05)

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "Broker":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def shaded_ball(side: int) -> bytes:
    """A shaded ball before nothing, as PNG."""
    image = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(image)
    for i in range(24):
        box = [round(part * side / 96) for part in (20 + i, 20 + i, 76 - i, 76 - i)]
        draw.ellipse(box, fill=(90 + 5 * i, 60 + 3 * i, 50, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _log(data: Path) -> str:
    files = [data / "logs" / name for name in ("service.log.1", "service.log")]
    return "".join(file.read_text() for file in files if file.is_file())


def start_stack(data: Path, **environment: str) -> Stack:
    """Start a service on a data folder and wait until it is ready; `environment` holds settings without their prefix."""
    log = (data.parent / f"{data.name}.log").open("a")
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "SDFSRN_DATA": str(data), **{f"SDFSRN_{name.upper()}": value for name, value in environment.items()}},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        preexec_fn=lifeline.kernel_signal_on_parent_death,
    )
    log.close()
    assert process.stdout is not None
    address = ""
    for line in process.stdout:
        if line.startswith("address:"):
            address = line.split()[-1]
        if line.startswith("ready:"):
            return Stack(process, data, httpx.Client(base_url=address, timeout=90, trust_env=False))
    raise AssertionError(f"the service did not start: {Path(log.name).read_text()}{_log(data)[-3000:]}")


def stop_stack(stack: Stack) -> None:
    """End it in order; nothing of it may remain."""
    stack.client.close()
    family = psutil.Process(stack.process.pid).children(recursive=True) if stack.process.poll() is None else []
    stack.process.send_signal(signal.SIGTERM)
    stack.process.wait(30)
    _, left = psutil.wait_procs(family, timeout=5)
    assert not left, left


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The tests' tensors are small, and other tests run beside them: threads would only wait for one another."""
    if "torch" in sys.modules:  # by the tests that need it, all of which have been collected
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One service for all tests that do not end it."""
    running = start_stack(tmp_path_factory.mktemp("service") / "data")
    yield running
    stop_stack(running)


@pytest.fixture
def client(stack: Stack) -> httpx.Client:
    """A client of the running service."""
    return stack.client


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A small picture of an object."""
    return shaded_ball(96)
