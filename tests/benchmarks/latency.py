"""How fast the whole service answers: six silhouettes over HTTP."""

import tempfile
import time
from pathlib import Path

from sdfsrn.config import SyntheticData
from tests.benchmarks.machine import busy_neighbours
from tests.conftest import Stack, start_stack, stop_stack
from tests.sdfsrn.given import pictures_of


def latency(requests: int) -> dict[str, float | None]:
    """p50 and p95 of `POST /v1/reconstructions` with `Prefer: wait`, one after another, pictures the model never saw.

    The service runs as users start it: one worker per queue, the default settings.
    """
    files = [picture.to_png() for picture in pictures_of(SyntheticData(n_shapes=requests, seed=3_000_000), 256)]
    with tempfile.TemporaryDirectory() as folder:
        stack = start_stack(Path(folder) / "data")
        try:
            alone = _times(stack, files)
            with busy_neighbours():
                beside = _times(stack, files)
        finally:
            stop_stack(stack)
    middle = len(alone) // 2
    return {
        "http_p50_ms": alone[middle] * 1e3,
        "http_p95_ms": alone[int(len(alone) * 0.95)] * 1e3,
        "http_p50_ms_busy_ratio": beside[middle] / alone[middle],
    }


def _times(stack: Stack, files: list[bytes]) -> list[float]:
    """Seconds until each answer, sorted."""
    times = []
    for file in files:
        start = time.perf_counter()
        answer = stack.client.post("/v1/reconstructions", files={"image": file}, headers={"Prefer": "wait=30"})
        times.append(time.perf_counter() - start)
        assert answer.json()["status"] == "succeeded", answer.text
    return sorted(times)
