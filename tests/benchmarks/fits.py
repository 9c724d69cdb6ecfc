"""Fits of one object from renders of watertight meshes and from real views of a chair, beside the visual hull."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from PIL import Image

from sdfsrn.config import FitConfig
from sdfsrn.data.camera import FLIP
from sdfsrn.data.one_object import ObjectView, hull_of, placed
from sdfsrn.evaluation.metrics import surface_distance
from sdfsrn.fits import HULL_GRID, fit, shared_out
from sdfsrn.geometry.cameras import intrinsics, orbit_c2w, pixel_rays
from sdfsrn.geometry.meshes import extract_mesh
from sdfsrn.rendering.grids import GridField
from tests.benchmarks.strangers import DATA

VIEWS, SIZE, DISTANCE, FOVY_DEG = 24, 256, 2.0, 50.0
POINTS = 100_000  # on each surface
GOLDEN = 0.6180339887


def fit_quality(n_meshes: int | None = None, steps: int | None = None) -> dict[str, Any]:
    """Means over the meshes, of which the longest side is 1, and the chair; nothing where the data are absent."""
    config = FitConfig(views=()) if steps is None else FitConfig(views=(), steps=steps)
    rows = [_of_mesh(mesh, views, config) for mesh, views in list(_meshes(n_meshes))]
    found = {f"fit_{name}": float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}
    if rows:
        found["fit_heldout_iou_worst"] = min(row["heldout_iou"] for row in rows)
        found["fit_chamfer_over_hull"] = found["fit_chamfer"] / found["fit_chamfer_of_hull"]
        found["fit_meshes"] = len(rows)
    chair = chair_views()
    if chair:
        result = _fitted(chair, config)[0]
        found |= {
            "fit_chair_heldout_iou": result["held_out_iou"]["mean"],
            "fit_chair_heldout_iou_of_hull": result["hull"]["held_out_iou"]["mean"],
            "fit_chair_seconds": result["seconds_to_mesh"],
        }
    return found


def _of_mesh(truth: Any, views: list[ObjectView], config: FitConfig) -> dict[str, float]:
    result, mesh, hull = _fitted(views, config)
    return {
        "heldout_iou": result["held_out_iou"]["mean"],
        "heldout_iou_of_hull": result["hull"]["held_out_iou"]["mean"],
        "chamfer": chamfer(mesh, truth),
        "chamfer_of_hull": chamfer(hull, truth),
        "seconds": result["seconds_to_mesh"],
    }


def _fitted(views: list[ObjectView], config: FitConfig) -> tuple[dict[str, Any], Any, Any]:
    """The result, its mesh and the visual hull's, both in the coordinates of the views."""
    found = placed(views)
    with tempfile.TemporaryDirectory() as folder:
        result = fit(found, Path(folder), config)
        mesh: Any = trimesh.load(Path(folder) / result["mesh"]["file"], force="mesh")
    hull = hull_of(shared_out(found.views, config.hold_out)[0])
    hull_mesh: Any = extract_mesh(GridField(hull, HULL_GRID).finer(hull, config.mesh_resolution))
    hull_mesh.apply_transform(found.to_sent)
    return result, mesh, hull_mesh


def chamfer(mesh: Any, other: Any) -> float:
    """Mean of the two mean distances, not squared, from POINTS points on each surface to the other."""
    there, back = surface_distance(mesh, other, points=POINTS), surface_distance(other, mesh, points=POINTS)
    return float((there.mean() + back.mean()) / 2)


def _meshes(count: int | None) -> Iterator[tuple[Any, list[ObjectView]]]:
    for path in sorted((DATA / "meshes_watertight").glob("*.obj"))[:count]:
        mesh: Any = trimesh.load(path, force="mesh")
        mesh.apply_translation(-mesh.bounds.mean(axis=0))
        mesh.apply_scale(1 / mesh.extents.max())
        yield mesh, rendered(mesh, path.stem)


def rendered(mesh: Any, name: str, count: int = VIEWS, size: int = SIZE) -> list[ObjectView]:
    """Views spread over all azimuths, and elevations from -24 to 58 degrees, neighbours far apart."""
    number = torch.arange(count)
    azimuth = number * 7 * 360.0 / count % 360
    elevation = torch.rad2deg(torch.asin(-0.4 + 1.25 * (number * GOLDEN % 1)))
    poses = orbit_c2w(azimuth, elevation, DISTANCE)
    caster: Any = trimesh.ray.ray_pyembree.RayMeshIntersector(mesh)
    matrix = np.array(intrinsics(FOVY_DEG, size))
    views = []
    for i, (origins, directions) in enumerate(zip(*pixel_rays(poses, FOVY_DEG, size), strict=True)):
        mask = caster.intersects_any(origins.numpy(), directions.numpy()).reshape(size, size)
        views.append(ObjectView(f"{name} {i}", mask, matrix, poses[i].double().numpy()))
    return views


def chair_views() -> list[ObjectView]:
    """The real renders of `mv_chair`, from its cameras in OpenCV's axes; none where the data are absent."""
    folder = DATA / "mv_chair"
    if not (folder / "cameras.json").is_file():
        return []
    views = []
    for entry in json.loads((folder / "cameras.json").read_text())["views"]:
        turn, shift = np.array(entry["R"]), np.array(entry["t"])
        c2w = np.eye(4)
        c2w[:3, :3], c2w[:3, 3] = turn.T @ FLIP, -turn.T @ shift
        with Image.open(folder / entry["image"]) as picture:
            mask = np.asarray(picture.getchannel("A")) > 127
        views.append(ObjectView(entry["image"], mask, np.array(entry["K"]), c2w))
    return views
