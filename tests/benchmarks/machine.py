"""What the figures were measured on, and how."""

import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from sdfsrn.device import pick_device
from service import lifeline

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
DEVICE = pick_device()  # everything is measured where the service would compute


def machine() -> dict[str, Any]:
    """The hardware in words that say nothing about where it stands."""
    capabilities = torch.cpu.get_capabilities()
    return {
        "cpu": capabilities.get("cpu_name") or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "bf16": bool(capabilities.get("avx512_bf16")),
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
