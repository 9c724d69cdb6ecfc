"""The evaluation of the HTTP contract: silhouettes against the training views, and at six angles that no view showed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float
from torch import Tensor

from sdfsrn.data.dataset import Dataset
from sdfsrn.data.views import TrainingViews
from sdfsrn.evaluation.metrics import chamfer_l1, iou
from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.geometry.meshes import EmptySurface, extract_mesh, grid_points
from sdfsrn.geometry.primitives import Primitives, contains, intersect, surfaces
from sdfsrn.networks.encoder import encoder_images
from sdfsrn.networks.model import Model
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.grids import GridField
from sdfsrn.rendering.silhouettes import ray_minimum, soft_silhouette

OFFSETS_DEG = tuple(30.0 + 60.0 * i for i in range(6))
ELEVATIONS_DEG = (-10.0, 10.0, 25.0, 40.0, 0.0, 20.0)
LOSS_SAMPLES = 64
NOVEL_SAMPLES = 128
SURFACE_POINTS = 2_000  # where the gradient's length is measured
IMAGES_AT_ONCE = 8

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """`report` is what evaluation.json holds; the masks (shape, view, size, size) are what the figures show.

    Where the truth is not known there is no `novel_truth`, and what needs it is None in the report.
    """

    report: dict[str, Any]
    novel_truth: Bool[Tensor, "shape view size size"] | None
    novel_prediction: Bool[Tensor, "shape view size size"]


def evaluate_model(model: Model, dataset: Dataset, temperature: float, progress: Progress = lambda done, total: None) -> Evaluation:
    """Measure a model as the HTTP contract defines it: the fit of all views, and the shape that each object's first view gives.

    A shape whose field has no inside is a failure: it counts as IoU 0, not at all in the distances, and in `n_failures`.
    """
    views, shapes = dataset.views, dataset.shapes
    progress(0, len(dataset))
    latents = encode(model, views)
    loss, wrong, input_iou = training_fit(model, views, latents, temperature, each_part=lambda: progress(0, len(dataset)))
    novel, solid, chamfer, floor, gradient, truths, predictions = [], [], [], [], [], [], []
    for i, first in enumerate(dataset.first):
        sdf = model.sdf(latents[first][None])
        grid = GridField(sdf, 64, model.device)
        azimuth_deg = float(views.azimuth_deg[first])
        predictions.append(novel_prediction(sdf, grid, azimuth_deg, views))
        empty = bool((grid.values >= 0).all())
        surface = _surface(grid) if not empty else None
        if surface is not None:
            points = torch.tensor(np.asarray(surface.sample(SURFACE_POINTS, seed=0)), dtype=torch.float32)
            gradient.append(_gradient_norm(sdf, points.to(model.device)))
        if shapes is not None:
            truths.append(novel_truth(shapes[i : i + 1], azimuth_deg, views))
            inside_truth = contains(shapes[i : i + 1], grid_points(64).reshape(-1, 3))
            novel.append(iou(predictions[-1].flatten(1), truths[-1].flatten(1)) * (not empty))
            solid.append(iou((grid.values.cpu() < 0).reshape(1, -1), inside_truth)[0] * (not empty))
            if surface is not None:
                (true_surface,) = surfaces(shapes[i : i + 1])
                chamfer.append(chamfer_l1(surface, true_surface))
                floor.append(chamfer_l1(true_surface, true_surface))
        progress(i + 1, len(dataset))
    report = {
        "silhouette_loss": loss,
        "temperature": temperature,
        "wrong_pixels": wrong,
        "input_iou": input_iou,
        "novel_view_iou": summary(torch.stack(novel), list(dataset.names)) if novel else None,
        "iou_3d": float(torch.stack(solid).mean()) if solid else None,
        "chamfer_l1": float(np.mean(chamfer)) if chamfer else None,
        "chamfer_l1_floor": float(np.mean(floor)) if floor else None,
        "surface_gradient_norm": float(np.mean(gradient)) if gradient else None,
        "n_shapes": len(dataset),
        "n_failures": len(dataset) - len(gradient),
    }
    return Evaluation(report, torch.stack(truths) if truths else None, torch.stack(predictions))


def encode(model: Model, views: TrainingViews) -> Float[Tensor, "n latent_dim"]:
    """Latents of all pictures, without a graph."""
    with torch.no_grad():
        parts = torch.arange(len(views)).split(256)
        return torch.cat([model.encode(encoder_images(views.tiles[part].to(model.device))) for part in parts])


def training_fit(
    model: Model,
    views: TrainingViews,
    latents: Tensor,
    temperature: float,
    search: Callable[[Tensor], Sdf] | None = None,
    each_part: Callable[[], None] = lambda: None,
) -> tuple[float, float, float]:
    """`silhouette_loss`, `wrong_pixels` and `input_iou`, each over all views and pixels.

    The nearest samples may be searched with what `search` gives for the latents; what counts is the field's own distance there.
    `each_part` is called before each few pictures.
    """
    squared, wrong, ious = [], [], []
    for part in torch.arange(len(views)).split(IMAGES_AT_ONCE):
        each_part()
        rays_o, rays_d = pixel_rays(views.c2w[part].to(model.device), views.fovy_deg, views.size)
        with torch.no_grad():
            cheaper = search(latents[part]) if search else None
            minima = ray_minimum(model.sdf(latents[part]), rays_o, rays_d, LOSS_SAMPLES, search=cheaper).cpu()
        truth = views.masks[part].flatten(1)
        squared.append((soft_silhouette(minima, temperature) - truth.float()).square().mean(dim=1))
        wrong.append(((minima < 0) != truth).float().mean(dim=1))
        ious.append(iou(minima < 0, truth))
    return float(torch.cat(squared).mean()), float(torch.cat(wrong).mean()), float(torch.cat(ious).mean())


def novel_truth(shape: Primitives, azimuth_deg: float, views: TrainingViews) -> Bool[Tensor, "6 size size"]:
    """The true silhouettes at the six unseen views of one shape whose known view is at `azimuth_deg`."""
    truth, _, _ = intersect(shape, *novel_rays(azimuth_deg, views))
    return truth.view(-1, views.size, views.size)


def novel_prediction(sdf: Sdf, grid: GridField, azimuth_deg: float, views: TrainingViews) -> Bool[Tensor, "6 size size"]:
    """A field's silhouettes at the same views."""
    rays_o, rays_d = (rays.to(grid.values.device) for rays in novel_rays(azimuth_deg, views))
    return rays_meet_inside(sdf, grid, rays_o, rays_d).cpu().view(-1, views.size, views.size)


def novel_rays(azimuth_deg: float, views: TrainingViews) -> tuple[Float[Tensor, "1 rays 3"], Float[Tensor, "1 rays 3"]]:
    """The rays of all pixels of the six unseen views of a shape whose known view is at `azimuth_deg`."""
    c2w = orbit_c2w(azimuth_deg + torch.tensor(OFFSETS_DEG), torch.tensor(ELEVATIONS_DEG), views.camera_distance)
    rays_o, rays_d = pixel_rays(c2w, views.fovy_deg, views.size)
    return rays_o.reshape(1, -1, 3), rays_d.reshape(1, -1, 3)


def rays_meet_inside(
    sdf: Sdf, grid: GridField, rays_o: Float[Tensor, "1 n 3"], rays_d: Float[Tensor, "1 n 3"]
) -> Bool[Tensor, "1 n"]:
    """Whether the field is negative at one of 128 samples of each ray.

    The grid's interpolation decides rays that stay clear of the surface; the others are sampled in full.
    """
    _, rough, meets = grid.ray_minimum(rays_o, rays_d, NOVEL_SAMPLES // 2)
    inside = rough < 0
    # half the way between two of its samples, and what the interpolation may be off
    close = meets & (rough.abs() < grid.lipschitz * 2 / NOVEL_SAMPLES + grid.error)
    if close.any():
        with torch.no_grad():
            inside[close] = ray_minimum(sdf, rays_o[close][None], rays_d[close][None], NOVEL_SAMPLES)[0] < 0
    return inside & meets


def _surface(grid: GridField) -> trimesh.Trimesh | None:
    """The predicted surface; None if there is none."""
    try:
        return extract_mesh(grid.values)
    except EmptySurface:
        return None


def _gradient_norm(sdf: Sdf, points: Float[Tensor, "n 3"]) -> float:
    """The mean length of the field's gradient."""
    leaf = points[None].requires_grad_()
    (gradient,) = torch.autograd.grad(sdf(leaf).sum(), leaf)
    return float(torch.linalg.vector_norm(gradient, dim=-1).mean())


def summary(novel_iou: Float[Tensor, "shape view"], families: list[str]) -> dict[str, Any]:
    """`novel_view_iou` of a report: means over views, then over shapes, by family and by offset."""
    per_shape = novel_iou.mean(dim=1)
    of_family = {
        family: float(per_shape[torch.tensor([name == family for name in families])].mean()) for family in dict.fromkeys(families)
    }
    others = torch.tensor([name != "sphere" for name in families])
    return {
        "mean": float(per_shape.mean()),
        "worst": float(per_shape.min()),
        **of_family,
        "without_spheres": float(per_shape[others].mean()) if others.any() else None,
        "by_offset": {f"{offset:.0f}": float(value) for offset, value in zip(OFFSETS_DEG, novel_iou.mean(dim=0), strict=True)},
    }
