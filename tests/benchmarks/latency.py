"""How fast the whole service answers: six silhouettes over HTTP."""

import io
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from sdfsrn.config import SyntheticData
from sdfsrn.data.synthetic import make_views
from tests.conftest import start_stack, stop_stack


def latency(requests: int) -> dict[str, float | None]:
    """p50 and p95 of `POST /v1/reconstructions` with `Prefer: wait`, one after another, pictures the model never saw."""
    _, views = make_views(SyntheticData(n_shapes=requests, seed=3_000_000))
    with tempfile.TemporaryDirectory() as folder:
        stack = start_stack(Path(folder) / "data")
        try:
            times = []
            for image, mask in zip(views.images, views.masks, strict=True):
                rgba = torch.cat([image, mask[None].to(torch.uint8) * 255]).permute(1, 2, 0).numpy()
                buffer = io.BytesIO()
                Image.fromarray(rgba, "RGBA").resize((256, 256), Image.Resampling.NEAREST).save(buffer, "PNG")
                start = time.perf_counter()
                answer = stack.client.post("/v1/reconstructions", files={"image": buffer.getvalue()}, headers={"Prefer": "wait=30"})
                times.append(time.perf_counter() - start)
                assert answer.json()["status"] == "succeeded", answer.text
        finally:
            stop_stack(stack)
    times.sort()
    return {"http_p50_ms": times[len(times) // 2] * 1e3, "http_p95_ms": times[int(len(times) * 0.95)] * 1e3}
