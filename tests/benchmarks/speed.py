"""How fast: training, one differentiable render, pictures, meshes, and what grows with the number of shapes."""

import dataclasses
import multiprocessing
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sdfsrn.config import WEIGHTS, SdfSrnConfig, SyntheticData, ring
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.evaluation.protocol import encode
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.networks.model import Model, ModelConfig
from sdfsrn.reconstruct import Reconstructor
from sdfsrn.rendering.silhouettes import ray_minimum, soft_silhouette, stratified
from sdfsrn.rendering.views import minimum_picture
from sdfsrn.training.sdf_srn import Run
from tests.benchmarks.machine import median_s
from tests.benchmarks.plain import PickingRun, PlainRun
from tests.benchmarks.target import run_to_target
from tests.sdfsrn.rendering.plain import plain_minimum

# Epochs that the plain recipe takes to the target, by `python -m tests.benchmarks.plain`.
PLAIN_EPOCHS: int | None = None


def recipe(quick: bool) -> dict[str, float | None]:
    """Seconds of training until the published recipe is good, and of an epoch, ours against the plain ones."""
    data, config, cpu = synthetic_dataset(SyntheticData()), SdfSrnConfig(), torch.device("cpu")
    epoch_s = {
        kind.__name__: median_s(kind(config, data, cpu).train_epoch, runs, 1 if runs > 1 else 0)
        for kind, runs in ((Run, 5), (PickingRun, 5), (PlainRun, 1))
    }
    ours = run_to_target(Run(config, data, cpu), 20 if quick else 180)
    reached = ours["reached"] or {}
    seconds = reached.get("seconds")
    return {
        "recipe_seconds": seconds,
        "recipe_epochs": reached.get("epochs"),
        "epoch_seconds": epoch_s["Run"],
        "picking_epoch_ratio": epoch_s["PickingRun"] / epoch_s["Run"],
        "plain_epoch_seconds": epoch_s["PlainRun"],
        "plain_epochs": PLAIN_EPOCHS,
        "recipe_speedup": epoch_s["PlainRun"] * PLAIN_EPOCHS / seconds if seconds and PLAIN_EPOCHS else None,
        "wrong_pixels_60s": ours["wrong_pixels_60s"],
    }


def _measured(work: Callable[[], object], pipe: Any) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, at what is resident now (proc(5))
    before = _status_bytes("VmRSS")
    work()
    pipe.send((_status_bytes("VmHWM") - before, median_s(work, 5)))


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _render(kind: str, pipe: Any) -> None:
    """One picture of 128 x 128 and its gradients, in a process of its own so that its peak memory is its own."""
    torch.manual_seed(0)
    model = Model(ModelConfig())
    latent = torch.randn(1, 128, requires_grad=True)
    rays_o, rays_d = pixel_rays(orbit_c2w(torch.tensor([30.0]), torch.tensor([20.0]), 2.5), 50.0, 128)
    near, far, meets = unit_sphere_interval(rays_o, rays_d)
    meets = meets[0]

    def plain() -> None:
        t = stratified(near[:, meets], far[:, meets], 32, torch.Generator().manual_seed(0))
        minima = plain_minimum(model.sdf(latent), rays_o[:, meets], rays_d[:, meets], t)
        soft_silhouette(minima, 0.02).mean().backward()

    def ours() -> None:
        search = model.search_sdf(latent, torch.bfloat16)
        minima = ray_minimum(model.sdf(latent), rays_o, rays_d, 32, torch.Generator().manual_seed(0), search)
        soft_silhouette(minima, 0.02).mean().backward()

    model.sdf(latent)(torch.rand(1, 64, 3)).sum().backward()  # what a first call allocates is nobody's
    _measured({"plain": plain, "ours": ours}[kind], pipe)


def _in_own_process(target: Callable[..., None], *args: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(*args, there))
    process.start()
    found = here.recv()
    process.join()
    return found


def render128() -> dict[str, float | None]:
    """Peak extra memory and time of one differentiable render, plain over ours."""
    plain, ours = (_in_own_process(_render, kind) for kind in ("plain", "ours"))
    return {
        "render128_memory_ratio": plain[0] / ours[0],
        "render128_time_ratio": plain[1] / ours[1],
        "render128_ms": ours[1] * 1e3,
        "render128_mb": ours[0] / 2**20,
    }


def pictures() -> dict[str, float | None]:
    """Six silhouettes of 256 x 256 and a mesh at 128^3, the model warm."""
    served = Reconstructor.load(WEIGHTS / "default.safetensors", "cpu")
    latent = encode(served.model, synthetic_dataset(SyntheticData(n_shapes=3, seed=3_000_000)).views)[1:2]
    camera = served._camera(list(ring(6, 20.0)), 2.5, 50.0, 256)

    def six() -> None:
        sdf, grid = served._field(latent)
        minimum_picture(sdf, grid, camera)

    return {
        "six_views_ms": median_s(six, 5) * 1e3,
        "mesh128_s": median_s(lambda: served.mesh(*served._field(latent)), 3),
    }


def _scaled(n_shapes: int, pipe: Any) -> None:
    torch.set_num_threads(2)
    data = synthetic_dataset(SyntheticData(n_shapes=n_shapes))
    run = Run(dataclasses.replace(SdfSrnConfig(), batch_size=25, n_rays=64), data, torch.device("cpu"))
    order = torch.arange(25)
    step = iter(range(10**6))
    seconds = median_s(lambda: run._train_step((order + 7 * next(step)) % n_shapes, 0), 100, 10)
    pipe.send((seconds / 25, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10))


def scale() -> dict[str, float | None]:
    """Time per training sample and memory, 5,000 shapes against 50."""
    few, many = (_in_own_process(_scaled, count) for count in (50, 5_000))
    return {"scale_time_ratio": many[0] / few[0], "scale_memory_mb": many[1] - few[1]}
