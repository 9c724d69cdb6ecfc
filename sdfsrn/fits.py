"""The fit of one object: views in, mesh and pictures out."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdfsrn.config import FitConfig
from sdfsrn.data.one_object import ObjectView, OneObject, read_object
from sdfsrn.geometry.cameras import orbit_c2w
from sdfsrn.geometry.meshes import EmptySurface, extract_mesh
from sdfsrn.geometry.pinholes import Pinhole
from sdfsrn.methods.fit.loop import Fit
from sdfsrn.methods.fit.neural import NeuralFit
from sdfsrn.methods.fit.spheres import SpheresFit
from sdfsrn.outputs.film import Film
from sdfsrn.outputs.fits import write_json, write_loss, write_mesh, write_view
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.grids import GridField
from sdfsrn.rendering.rays import render_view, silhouette_minima
from sdfsrn.stopwatch import Stopwatch

FRAMES = 24  # of the film, at most
GRID, HULL_GRID = 64, 128  # nodes along each side of the grids of the fitted field, and of the hull
FIELD_OF_VIEW_MARGIN = 1.1  # of a new view, around the unit ball

METHODS: dict[str, type[NeuralFit] | type[SpheresFit]] = {"neural": NeuralFit, "spheres": SpheresFit}

# phase, step, total; may raise, which is how a caller stops a fit
Progress = Callable[[str, int, int], None]


class FitFailed(RuntimeError):
    """The fit ran, and no surface came of it."""


def fit(
    source: Path | OneObject,
    folder: Path,
    config: FitConfig | None = None,
    progress: Progress = lambda phase, step, total: None,
    *,
    subject: str | None = None,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Fit one object to the silhouettes of its views and write its mesh, pictures, film and result.json into `folder`.

    Args:
        source: a zip or a folder that data sets take, or views that were placed (`sdfsrn.data.one_object`).
        folder: where the files go; it is made.
        config: the settings; by default all of them.
        progress: is told the phase, the step and how many there are.
        subject: of an archive with several objects, the folder of the one to fit.
        skip_bad: leave views out that cannot be used, and name them in the result.

    Returns:
        What result.json holds: IoU of every view, of the views left out beside the visual hull's, timings, the mesh.

    Raises:
        BadDataset: names every view that cannot be used, and says what to do.
        ValueError: one view alone for a neural field.
        FitFailed: the field that was found is empty.
    """
    config = config or FitConfig()
    folder.mkdir(parents=True, exist_ok=True)
    began, clock = time.monotonic(), Stopwatch()
    with clock.measure("read"):
        found = source if isinstance(source, OneObject) else read_object(source, progress, subject=subject, skip_bad=skip_bad)
    taught, left_out = shared_out(found.views, config.hold_out)
    if config.representation == "neural":
        _check_enough(taught, left_out)
    with clock.measure("prepare"):
        run = METHODS[config.representation](taught, config)
        film = Film((left_out or taught)[0].mask, (left_out or taught)[0].camera)
    with clock.measure("fit"):
        run.run(_Watch(film, config, progress))
    with clock.measure("mesh"):
        progress("mesh", 0, 1)
        field, grid = run.field, GridField(run.field, GRID)
        mesh = write_mesh(_mesh(grid, field, config), found.to_sent, folder / f"mesh.{config.mesh_format}")
    seconds_to_mesh = time.monotonic() - began
    with clock.measure("figures"):
        ious = {view.name: view_iou(field, grid, view) for view in found.views}
        hull_grid = GridField(run.hull, HULL_GRID)
        hull_ious = {view.name: view_iou(run.hull, hull_grid, view) for view in left_out}
    with clock.measure("pictures"):
        progress("rendering", 0, len(left_out) + len(config.views))
        views = _write_views(field, grid, found, left_out, config, folder, progress)
        film.save(folder / "fit.gif")
        write_loss(run.history, folder / "loss.png")
    names = {view.name for view in left_out}
    result = {
        "representation": config.representation,
        "steps": run.step,
        "held_out_iou": _summary([ious[name] for name in ious if name in names]),
        "trained_iou": _summary([ious[name] for name in ious if name not in names]),
        "hull": {"held_out_iou": _summary(list(hull_ious.values()))},
        "views": [
            {"name": name, "role": "held_out" if name in names else "trained", "iou": iou, "hull_iou": hull_ious.get(name)}
            for name, iou in ious.items()
        ],
        "pictures": views,
        "mesh": mesh,
        "to_sent": found.to_sent.tolist(),
        "agreement": found.shares,
        "skipped": found.skipped,
        "seconds_to_mesh": round(seconds_to_mesh, 2),
        "timings_s": {part: round(spent_ms / 1000, 2) for part, spent_ms in clock.timings_ms.items()},
        "config": asdict(config),
    }
    write_json(result, folder / "result.json")
    return result


def shared_out(views: list[ObjectView], hold_out: int) -> tuple[list[ObjectView], list[ObjectView]]:
    """The views that teach, and every `hold_out`-th, which is left out; with 0, or fewer views than that, none is."""
    if not hold_out:
        return views, []
    left_out = views[hold_out - 1 :: hold_out]
    return [view for view in views if all(view is not other for other in left_out)], left_out


def view_iou(sdf: Sdf, grid: GridField, view: ObjectView) -> float:
    """IoU of a field's silhouette with a view's mask, at the mask's own resolution."""
    prediction = (silhouette_minima(sdf, grid, view.camera) < 0).numpy()
    return float((prediction & view.mask).sum() / (prediction | view.mask).sum())


def new_camera(azimuth_deg: float, elevation_deg: float, distance: float, size: int) -> Pinhole:
    """A camera that looks at the unit ball and sees all of it."""
    c2w = orbit_c2w(torch.tensor([float(azimuth_deg)]), torch.tensor([float(elevation_deg)]), distance)[0].double().numpy()
    focal = size / 2 * np.sqrt(distance**2 - 1) / FIELD_OF_VIEW_MARGIN
    return Pinhole(np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]]), c2w, size, size)


class _Watch:
    """Tells how far a fit is, and films it."""

    def __init__(self, film: Film, config: FitConfig, progress: Progress) -> None:
        self._film = film
        self._config = config
        self._progress = progress

    def __call__(self, run: Fit) -> None:
        self._progress("fitting", round(run.done * self._config.steps), self._config.steps)
        if run.done * FRAMES >= len(self._film.frames) or run.done >= 1:
            self._film.add(run.grid, run.done, f"step {run.step}")


def _check_enough(taught: list[ObjectView], left_out: list[ObjectView]) -> None:
    if len(taught) < 2:
        raise ValueError(
            f"{taught[0].name if taught else 'nothing'} is the only view that teaches"
            f"{' once others are left out' if left_out else ''}: one silhouette does not say how deep an object is, and a neural "
            "field assumes nothing about it; send two views or more from different sides, or choose representation spheres"
        )


def _mesh(grid: GridField, field: Sdf, config: FitConfig) -> Any:
    try:
        return extract_mesh(grid.finer(field, config.mesh_resolution))
    except EmptySurface as error:
        raise FitFailed(f"the fitted field is empty ({error}); lower learning_rate, or choose another seed") from error


def _write_views(
    field: Sdf,
    grid: GridField,
    found: OneObject,
    left_out: list[ObjectView],
    config: FitConfig,
    folder: Path,
    progress: Progress,
) -> list[dict[str, Any]]:
    distance = float(np.median([np.linalg.norm(view.c2w[:3, 3]) for view in found.views]))
    asked = [({"role": "held_out", "name": view.name}, view.camera) for view in left_out]
    for view in config.views:
        asked.append(({"role": "new", **asdict(view)}, new_camera(view.azimuth_deg, view.elevation_deg, distance, config.size)))
    written = []
    for i, (facts, camera) in enumerate(asked):
        progress("rendering", i, len(asked))
        seen = render_view(field, grid, camera)
        written.append({"number": i, **facts, **write_view(folder, i, seen, camera, found.to_sent)})
    return written


def _summary(ious: list[float]) -> dict[str, float] | None:
    return {"mean": float(np.mean(ious)), "min": min(ious)} if ious else None
