"""What the figures were measured on, and how."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from sdfsrn.device import fast_dtype, pick_device
from service import lifeline

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
DEVICE = pick_device()  # everything is measured where the service would compute
BF16 = fast_dtype(DEVICE) == torch.bfloat16


def machine() -> dict[str, Any]:
    """The hardware in words that say nothing about where it stands; `bf16` is whether the measured code used it."""
    capabilities = torch.cpu.get_capabilities()
    return {
        "cpu": capabilities.get("cpu_name") or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "bf16": BF16,
        "gpu": torch.cuda.get_device_name() if DEVICE.type == "cuda" else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_before": round(os.getloadavg()[0], 2),
    }


def prepare() -> None:
    """Begin a process of a pool that has one per core."""
    lifeline.end_with_parent()
    torch.set_num_threads(1)


def commit() -> str:
    """The commit measured, marked when the tree differs from it."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def median_s(work: Callable[[], object], runs: int, warm_up: int = 1) -> float:
    """The median time of a call, in seconds."""
    times = []
    for i in range(warm_up + runs):
        start = time.perf_counter()
        work()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        if i >= warm_up:
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def alone_and_busy(name: str, measure: Callable[[], float]) -> dict[str, float | None]:
    """A time measured alone, and how many times as long it takes beside one busy process per core: NAME, NAME_busy_ratio.

    On a fair machine half of each core is left, so 2 is the least that can be hoped for.
    """
    alone = measure()
    with busy_neighbours():
        beside = measure()
    return {name: alone, f"{name}_busy_ratio": beside / alone}


@contextmanager
def busy_neighbours() -> Iterator[None]:
    """One busy process per core, as nice as this one, from when all of them are at work until the end."""
    command = [sys.executable, "-m", "tests.benchmarks.neighbour"]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(os.cpu_count() or 1):
            environment = lifeline.child_environment()
            processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE))
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # it says when it is at work
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()
