"""How fast: training, one differentiable render, pictures, meshes, and what grows with the number of shapes."""

import multiprocessing
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import torch

from sdfsrn.config import WEIGHTS, SdfSrnConfig, SyntheticData, ring
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.device import fast_dtype
from sdfsrn.evaluation.protocol import encode, training_fit
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.networks.model import Model, ModelConfig
from sdfsrn.reconstruct import Reconstructor, antialiased
from sdfsrn.rendering.silhouettes import ray_minimum, soft_silhouette, stratified
from sdfsrn.rendering.views import Camera, minimum_picture
from sdfsrn.threads import undivided_operations
from sdfsrn.training.sdf_srn import Run
from tests.benchmarks.machine import DEVICE, alone_and_busy, busy_neighbours, median_s
from tests.benchmarks.plain import EqualRaysRun, PickingRun, PlainRun, counted
from tests.benchmarks.target import Kept, first_at_target, train_for, train_to_target
from tests.sdfsrn.given import pictures_of
from tests.sdfsrn.rendering.plain import plain_minimum

SEEDS = (0, 1, 2)  # of data that no lever and no rate was chosen on
OPPONENT_LIMIT_S = 600  # for which an opponent is trained at most


def recipe() -> dict[str, float | None]:
    """Seconds of training until the published recipe is good, ours beside those of three opponents; the mean of three seeds.

    The plain recipe at equal rays and plain point picking are trained as ours is. On whole pictures the plain recipe takes half
    an hour: one step is measured here, how many epochs it takes was counted once.
    """
    ours, wrong_pixels = [], []
    for seed in SEEDS:
        run = _run(Run, seed)
        kept = train_for(run, 60)
        ours.append(first_at_target(run, kept))
        wrong_pixels.append(_wrong_pixels(run, kept[-1]) if kept else 1.0)
    seconds, known = _seconds(ours), counted()
    rate = known["rates"]["picking"] if known else None
    equal, picking = (
        _mean(_seconds([train_to_target(_run(kind, seed, rate), OPPONENT_LIMIT_S) for seed in SEEDS])) if rate else None
        for kind in (EqualRaysRun, PickingRun)
    )
    whole_epoch_s = _epoch_s(_run(PlainRun), 10)
    whole_epochs = known.get("plain_epochs")
    whole = whole_epoch_s * whole_epochs if whole_epochs else None
    mean = _mean(seconds)
    return {
        "recipe_seconds": mean,
        "recipe_seconds_spread": max(seconds) - min(seconds) if seconds else None,
        "recipe_epochs": _mean([one.epochs for one in ours if one]) if seconds else None,
        "equal_rays_speedup": equal / mean if equal and mean else None,
        "picking_speedup": picking / mean if picking and mean else None,
        "equal_rays_seconds": equal,
        "picking_seconds": picking,
        "whole_picture_speedup": whole / mean if whole and mean else None,
        "whole_picture_epoch_seconds": whole_epoch_s,
        "whole_picture_epochs": whole_epochs,
        "wrong_pixels_60s": sum(wrong_pixels) / len(wrong_pixels),
    }


def step(steps: int) -> dict[str, float | None]:
    """A training epoch of the published recipe, from the median of so many steps."""
    run = _run(Run)
    return alone_and_busy("epoch_seconds", lambda: _epoch_s(run, steps))


def _run(kind: type[Run], seed: int = 0, rate: float | None = None) -> Run:
    config = SdfSrnConfig(seed=seed) if rate is None else SdfSrnConfig(seed=seed, learning_rate=rate)
    return kind(config, synthetic_dataset(SyntheticData(seed=seed)), DEVICE)


def _seconds(found: list[Kept | None]) -> list[float]:
    """Of each training; nothing if one of them did not get there."""
    seconds = [one.seconds for one in found if one]
    return seconds if len(seconds) == len(found) else []


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _wrong_pixels(run: Run, kept: Kept) -> float:
    return training_fit(kept.model, run.views, encode(kept.model, run.views), run.config.temperature)[1]


def _epoch_s(run: Run, steps: int) -> float:
    return median_s(_step(run), steps) * run.steps_per_epoch


def _step(run: Run) -> Callable[[], None]:
    """A training step on random pictures."""
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        run.make_step(torch.randperm(len(run.views), generator=generator)[: run.config.batch_size])

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
    with busy_neighbours():
        beside = _in_own_process(_render, "ours", runs)
    return {
        "render128_memory_ratio": plain[0] / ours[0],
        "render128_time_ratio": plain[1] / ours[1],
        "render128_ms": ours[1] * 1e3,
        "render128_ms_busy_ratio": beside[1] / ours[1],
        "render128_mb": ours[0] / 2**20,
    }


def pictures(n_shapes: int) -> dict[str, float | None]:
    """Six silhouettes of 256 x 256 and a mesh at 128^3, the model warm, the median of so many shapes."""
    served = Reconstructor.load(WEIGHTS / "default.safetensors")
    given = pictures_of(SyntheticData(n_shapes=n_shapes, seed=3_000_000), 256)
    camera = Camera.on_orbit(list(ring(6, 20.0)), 2.5, 50.0, 256, served.device)
    each, latents = cycle(given), cycle([served.look(picture).latent for picture in given])

    @undivided_operations()  # as in `Reconstructor.run`
    def six() -> None:
        sdf, grid = served._field(served.look(next(each)).latent)
        antialiased(minimum_picture(sdf, grid, camera), camera)

    def mesh() -> None:
        served.mesh(*served._field(next(latents)))

    return {
        **alone_and_busy("six_views_ms", lambda: median_s(six, len(given)) * 1e3),
        **alone_and_busy("mesh128_s", lambda: median_s(mesh, len(given))),
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
