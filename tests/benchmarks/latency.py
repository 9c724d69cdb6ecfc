"""How fast the whole service answers: six silhouettes over HTTP."""

import tempfile
import time
from pathlib import Path

from sdfsrn.config import SyntheticData
from tests.conftest import start_stack, stop_stack
from tests.sdfsrn.given import pictures_of


def latency(requests: int) -> dict[str, float | None]:
    """p50 and p95 of `POST /v1/reconstructions` with `Prefer: wait`, one after another, pictures the model never saw."""
    pictures = [picture.to_png() for picture in pictures_of(SyntheticData(n_shapes=requests, seed=3_000_000), 256)]
    with tempfile.TemporaryDirectory() as folder:
        stack = start_stack(Path(folder) / "data")
        try:
            times = []
            for picture in pictures:
                start = time.perf_counter()
                answer = stack.client.post("/v1/reconstructions", files={"image": picture}, headers={"Prefer": "wait=30"})
                times.append(time.perf_counter() - start)
                assert answer.json()["status"] == "succeeded", answer.text
        finally:
            stop_stack(stack)
    times.sort()
    return {"http_p50_ms": times[len(times) // 2] * 1e3, "http_p95_ms": times[int(len(times) * 0.95)] * 1e3}
