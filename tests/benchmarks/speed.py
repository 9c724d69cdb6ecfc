"""How fast: training, one differentiable render, pictures, meshes, and what grows with the number of shapes."""

import dataclasses
import multiprocessing
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import torch

from sdfsrn.config import WEIGHTS, SdfSrnConfig, SyntheticData, ring
from sdfsrn.data.dataset import Dataset, synthetic_dataset
from sdfsrn.device import fast_dtype
from sdfsrn.evaluation.protocol import encode, training_fit
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.networks.model import Model, ModelConfig
from sdfsrn.reconstruct import Reconstructor, antialiased
from sdfsrn.rendering.silhouettes import ray_minimum, soft_silhouette, stratified
from sdfsrn.rendering.views import Camera, minimum_picture
from sdfsrn.training.sdf_srn import Run
from tests.benchmarks.machine import DEVICE, median_s
from tests.benchmarks.plain import PickingRun, PlainRun, counted
from tests.benchmarks.target import Kept, first_at_target, is_at_target, train_for
from tests.sdfsrn.given import pictures_of
from tests.sdfsrn.rendering.plain import plain_minimum


def recipe(quick: bool) -> dict[str, float | None]:
    """Seconds of training until the published recipe is good, ours against the plain one and plain picking on random rays.

    The plain recipe takes half an hour: an epoch is measured here, how many it takes was counted once.
    """
    data, config, known = synthetic_dataset(SyntheticData()), SdfSrnConfig(), counted()
    plain_epoch_s = _epoch_s(PlainRun(config, data, DEVICE), 1 if quick else 10)
    epoch_s = _epoch_s(Run(config, data, DEVICE), 25)
    run = Run(config, data, DEVICE)
    kept = train_for(run, 23 if quick else 60)
    ours = first_at_target(run, kept)
    picking = None if quick or not known else _picking(dataclasses.replace(config, learning_rate=known["rates"]["picking"]), data)
    plain_epochs = known.get("plain_epochs")
    return {
        "recipe_seconds": ours.seconds if ours else None,
        "recipe_epochs": ours.epochs if ours else None,
        "epoch_seconds": epoch_s,
        "picking_seconds": picking.seconds if picking else None,
        "picking_speedup": picking.seconds / ours.seconds if ours and picking else None,
        "plain_epoch_seconds": plain_epoch_s,
        "plain_epochs": plain_epochs,
        "recipe_speedup": plain_epoch_s * plain_epochs / ours.seconds if ours and plain_epochs else None,
        **({} if quick else {"wrong_pixels_60s": _wrong_pixels(run, kept[-1]) if kept else None}),
    }


def _picking(config: SdfSrnConfig, data: Dataset) -> Kept | None:
    run = PickingRun(config, data, DEVICE)
    # one by one, as bisection may find a later one
    return next((one for one in train_for(run, 600) if is_at_target(run, one.model)), None)


def _wrong_pixels(run: Run, kept: Kept) -> float:
    return training_fit(kept.model, run.views, encode(kept.model, run.views), run.config.temperature)[1]


def _epoch_s(run: Run, steps: int) -> float:
    return median_s(_step(run), steps) * run.steps_per_epoch


def _step(run: Run) -> Callable[[], None]:
    """A training step on random pictures."""
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        run._train_step(torch.randperm(len(run.views), generator=generator)[: run.config.batch_size], run.step)
        run._average()
        run.step += 1

    return step


def _measured(work: Callable[[], object], runs: int, pipe: Any) -> None:
    if DEVICE.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        extra = torch.cuda.max_memory_allocated() - before
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, at what is resident now (proc(5))
        before = _status_bytes("VmRSS")
        work()
        extra = _status_bytes("VmHWM") - before
    pipe.send((extra, median_s(work, runs)))


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _render(kind: str, runs: int, pipe: Any) -> None:
    """One picture of 128 x 128 and its gradients, in a process of its own so that its peak memory is its own."""
    torch.manual_seed(0)
    model = Model(ModelConfig()).to(DEVICE)
    latent = torch.randn(1, 128).to(DEVICE).requires_grad_()
    rays_o, rays_d = pixel_rays(orbit_c2w(torch.tensor([30.0]), torch.tensor([20.0]), 2.5).to(DEVICE), 50.0, 128)
    near, far, meets = unit_sphere_interval(rays_o, rays_d)
    meets = meets[0]

    def plain() -> None:
        t = stratified(near[:, meets], far[:, meets], 32, torch.Generator().manual_seed(0))
        minima = plain_minimum(model.sdf(latent), rays_o[:, meets], rays_d[:, meets], t)
        soft_silhouette(minima, 0.02).mean().backward()

    def ours() -> None:
        search = model.search_sdf(latent, fast_dtype(DEVICE))
        minima = ray_minimum(model.sdf(latent), rays_o, rays_d, 32, torch.Generator().manual_seed(0), search)
        soft_silhouette(minima, 0.02).mean().backward()

    model.sdf(latent)(torch.rand(1, 64, 3, device=DEVICE)).sum().backward()  # what a first call allocates is nobody's
    _measured({"plain": plain, "ours": ours}[kind], runs, pipe)


def _in_own_process(target: Callable[..., None], *args: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(*args, there))
    process.start()
    found = here.recv()
    process.join()
    return found


def render128(runs: int) -> dict[str, float | None]:
    """Peak extra memory and time of one differentiable render, plain over ours."""
    plain, ours = (_in_own_process(_render, kind, runs) for kind in ("plain", "ours"))
    return {
        "render128_memory_ratio": plain[0] / ours[0],
        "render128_time_ratio": plain[1] / ours[1],
        "render128_ms": ours[1] * 1e3,
        "render128_mb": ours[0] / 2**20,
    }


def pictures(n_shapes: int) -> dict[str, float | None]:
    """Six silhouettes of 256 x 256 and a mesh at 128^3, the model warm, the median of so many shapes."""
    served = Reconstructor.load(WEIGHTS / "default.safetensors")
    given = pictures_of(SyntheticData(n_shapes=n_shapes, seed=3_000_000), 256)
    camera = Camera.on_orbit(list(ring(6, 20.0)), 2.5, 50.0, 256, served.device)
    each, latents = cycle(given), cycle([served.look(picture).latent for picture in given])

    def six() -> None:
        sdf, grid = served._field(served.look(next(each)).latent)
        antialiased(minimum_picture(sdf, grid, camera), camera)

    return {
        "six_views_ms": median_s(six, len(given)) * 1e3,
        "mesh128_s": median_s(lambda: served.mesh(*served._field(next(latents))), len(given)),
    }


def _memory(n_shapes: int, pipe: Any) -> None:
    run = Run(SdfSrnConfig(), synthetic_dataset(SyntheticData(n_shapes=n_shapes)), DEVICE)
    median_s(_step(run), 20)
    pipe.send(_status_bytes("VmHWM") / 2**20)  # getrusage's would begin with the parent's


def scale(steps: int) -> dict[str, float | None]:
    """Time per training sample and peak memory, 5,000 shapes against 50; their steps take turns."""
    counts = (50, 5_000)
    works = [_step(Run(SdfSrnConfig(), synthetic_dataset(SyntheticData(n_shapes=count)), DEVICE)) for count in counts]
    times = [[median_s(work, 1, 0) for work in works] for _ in range(steps)]
    few_s, many_s = (median(column) for column in zip(*times, strict=True))
    few_mb, many_mb = (_in_own_process(_memory, count) for count in counts)
    return {"scale_time_ratio": many_s / few_s, "scale_memory_mb": many_mb - few_mb}
