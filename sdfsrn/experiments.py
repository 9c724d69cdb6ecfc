"""Experiments with differentiable rendering, by name: each leaves the film of its optimisation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import trimesh

from sdfsrn.config import FitConfig
from sdfsrn.data.mesh_views import mesh_view
from sdfsrn.data.one_object import ObjectView, placed
from sdfsrn.fields.spheres import Spheres
from sdfsrn.fits import new_camera, view_iou
from sdfsrn.methods.fit.loop import Fit
from sdfsrn.methods.fit.neural import NeuralFit
from sdfsrn.methods.fit.spheres import SpheresFit
from sdfsrn.outputs.film import Film
from sdfsrn.rendering.grids import GridField

FRAMES = 40
SIZE, DISTANCE = 192, 2.5
N_SPHERES = 48
SMALL, LARGE = 0.04, 0.5  # radii of spheres at the start, scene units
SPREAD = 0.5  # of their centres
SEVERAL = 24  # views

# done, total
Progress = Callable[[int, int], None]


def spheres_growing(mesh: Path | None, path: Path, progress: Progress) -> float:
    """Small spheres grow onto one silhouette."""
    return _spheres(mesh, path, progress, SMALL)


def spheres_shrinking(mesh: Path | None, path: Path, progress: Progress) -> float:
    """Large spheres shrink onto one silhouette."""
    return _spheres(mesh, path, progress, LARGE)


def one_silhouette(mesh: Path | None, path: Path, progress: Progress) -> float:
    """Spheres from one silhouette of a mesh, as a fit starts them."""
    views = _views(mesh, 1)
    return _filmed(SpheresFit(views, FitConfig(representation="spheres", n_rays=1024, steps=400)), views[0], path, progress)


def several_silhouettes(mesh: Path | None, path: Path, progress: Progress) -> float:
    """A network from two dozen silhouettes of a mesh; the film shows a view that is left out."""
    views = _views(mesh, SEVERAL + 1)
    return _filmed(NeuralFit(views[1:], FitConfig()), views[0], path, progress)


EXPERIMENTS: dict[str, Callable[[Path | None, Path, Progress], float]] = {
    each.__name__: each for each in (spheres_growing, spheres_shrinking, one_silhouette, several_silhouettes)
}


def _spheres(mesh: Path | None, path: Path, progress: Progress, radius: float) -> float:
    views = _views(mesh, 1)
    generator = torch.Generator().manual_seed(0)
    across = torch.from_numpy(views[0].c2w[:3, :2].T.copy()).float()
    centres = SPREAD * (2 * torch.rand(N_SPHERES, 2, generator=generator) - 1) @ across
    start = Spheres(centres, torch.full((N_SPHERES,), radius))
    config = FitConfig(representation="spheres", n_rays=1024, steps=400, learning_rate=0.01)
    return _filmed(SpheresFit(views, config, start), views[0], path, progress)


def _filmed(run: Fit, shown: ObjectView, path: Path, progress: Progress) -> float:
    """The IoU at the view that the film shows."""
    film = Film(shown.mask, shown.camera)

    def after_step(run: Fit) -> None:
        progress(run.step, run.config.steps)
        if run.done * FRAMES >= len(film.frames):
            film.add(run.grid, run.done, f"step {run.step}")

    run.run(after_step)
    film.save(path)
    return view_iou(run.field, GridField(run.field), shown)


def _views(mesh: Path | None, count: int) -> list[ObjectView]:
    """Of a mesh that is moved and scaled into the unit ball, or of three balls; y is up."""
    shape: Any = trimesh.load(mesh, force="mesh") if mesh else _three_balls()
    shape.apply_translation(-shape.bounds.mean(axis=0))
    shape.apply_scale(1.6 / shape.extents.max())
    cameras = [new_camera(30 + 137.5 * i, 25 - 40 * (0.618 * i % 1), DISTANCE, SIZE) for i in range(count)]
    return placed([mesh_view(shape, camera, f"view {i}") for i, camera in enumerate(cameras)]).views


def _three_balls() -> Any:
    balls = [trimesh.creation.icosphere(subdivisions=4, radius=radius) for radius in (0.5, 0.35, 0.25)]
    for ball, place in zip(balls, ((0, 0, 0), (0.6, 0.3, 0.1), (-0.5, 0.4, -0.2)), strict=True):
        ball.apply_translation(place)
    return trimesh.util.concatenate(balls)
