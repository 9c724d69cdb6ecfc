"""What a model's figure is held against: answers that need no training, each at the evaluation's six unseen angles.

None of them is a competitor: they say how much of a figure the data's own sameness, one mask, or copying would earn.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdfsrn.data.dataset import Dataset
from sdfsrn.data.synthetic import CAMERA_DISTANCE, extent_range
from sdfsrn.evaluation.metrics import iou
from sdfsrn.evaluation.protocol import NOVEL_SAMPLES, Progress, encode, novel_rays, rays_meet_inside, summary
from sdfsrn.geometry.cameras import pixel_rays, project
from sdfsrn.geometry.primitives import KINDS, Primitives, contains, intersect
from sdfsrn.images import mask_crop
from sdfsrn.networks.model import Model
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.grids import GridField
from sdfsrn.rendering.silhouettes import ray_minimum

FIT_CANDIDATES, FIT_ELITE, FIT_ROUNDS = 96, 12, 10
MEAN_OF = 500  # training shapes at most that the mean shape averages


def baselines(
    model: Model, trained_on: Dataset | None, dataset: Dataset, progress: Progress = lambda done, total: None
) -> dict[str, dict[str, Any]]:
    """Name -> `novel_view_iou` as in an evaluation's report, for the shapes of a data set whose truth is known.

    The model only says which training shape is nearest to a picture: the one whose picture's latent is, or another, if the
    picture itself was trained on. Without `trained_on` the baselines that need it are left out.
    """
    views, shapes, families = dataset.first_views, dataset.shapes, list(dataset.names)
    if shapes is None:
        raise ValueError("the true shapes of this data set are not known")
    known = trained_on.shapes if trained_on is not None else None
    common = mean_shape(known) if known is not None else None
    nearest = nearest_latents(encode(model, views), encode(model, trained_on.first_views)) if trained_on is not None else None
    found: dict[str, list[Tensor]] = {}
    for i in range(len(shapes)):
        one = slice(i, i + 1)
        rays_o, rays_d = novel_rays(float(views.azimuth_deg[i]), views)
        truth = intersect(shapes[one], rays_o, rays_d)[0]
        mask, c2w = views.masks[i], views.c2w[i]
        answers = {
            "input mask repeated": _from_the_mean_distance(mask, dataset.mask_radius).repeat(len(truth[0]) // mask.numel())[None],
            "visual hull of one mask": ray_minimum(visual_hull(mask, c2w, views.fovy_deg), rays_o, rays_d, NOVEL_SAMPLES) < 0,
            "fit of the right family": intersect(fit_extents(families[i], mask, c2w, views.fovy_deg), rays_o, rays_d)[0],
        }
        if known is not None and common is not None and nearest is not None:
            answers["mean shape"] = rays_meet_inside(common, common, rays_o, rays_d)
            answers["nearest training shape"] = intersect(known[nearest[one]], rays_o, rays_d)[0]
        for name, answer in answers.items():
            per_view = (part.view(len(rays_o[0]) // mask.numel(), -1) for part in (answer, truth))
            found.setdefault(name, []).append(iou(*per_view))
        progress(i + 1, len(shapes))
    return {name: summary(torch.stack(ious), families) for name, ious in found.items()}


def _from_the_mean_distance(mask: Bool[Tensor, "size size"], mask_radius: float) -> Bool[Tensor, " pixels"]:
    """The mask as large as the shape's silhouettes are."""
    return torch.from_numpy(mask_crop(mask.numpy(), mask_radius, len(mask)) > 0.5).flatten()


def nearest_latents(latents: Float[Tensor, "n dim"], others: Float[Tensor, "m dim"]) -> Tensor:
    """For each latent the index of the closest other one; one that is the very same is not an other."""
    distance = torch.cdist(latents, others, compute_mode="donot_use_mm_for_euclid_dist")  # which rounds away what is the very same
    return distance.masked_fill(distance < 1e-6, torch.inf).argmin(dim=1).cpu()


def mean_shape(shapes: Primitives) -> GridField:
    """The points that lie inside at least half of the shapes."""
    some = shapes[:MEAN_OF]

    def field(points: Tensor) -> Tensor:
        return 0.5 - contains(some, points[0]).float().mean(dim=0)[None]

    return GridField(field)


def visual_hull(mask: Bool[Tensor, "size size"], c2w: Float[Tensor, "4 4"], fovy_deg: float) -> Sdf:
    """-1 where a point of the unit sphere is seen inside the mask, else 1: all that one mask allows."""

    def field(points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        column, row = (project(points, c2w, fovy_deg, len(mask))).floor().long().unbind(-1)
        seen = (column >= 0) & (column < len(mask)) & (row >= 0) & (row < len(mask))
        inside = mask[row.clamp(0, len(mask) - 1), column.clamp(0, len(mask) - 1)] & seen
        return torch.where(inside, -1.0, 1.0)

    return field


def fit_extents(family: str, mask: Bool[Tensor, "size size"], c2w: Float[Tensor, "4 4"], fovy_deg: float) -> Primitives:
    """The primitive of a known family whose silhouette agrees best with one mask: what the mask tells whoever knows the family.

    Cross-entropy method (Rubinstein 1999) over the half extents, within the family's range.
    """
    generator = torch.Generator().manual_seed(0)
    kind = torch.tensor([KINDS.index("ellipsoid" if family == "sphere" else family)])
    low, high = extent_range([family])[0] * torch.linalg.vector_norm(c2w[:3, 3]) / CAMERA_DISTANCE  # a picture has its own scale
    rays_o, rays_d = pixel_rays(c2w[None], fovy_deg, len(mask))
    target = mask.reshape(1, -1)
    candidates = low + (high - low) * torch.rand(FIT_CANDIDATES, 3, generator=generator)
    best, agreement = candidates[:1], -1.0
    for _ in range(FIT_ROUNDS):
        if family == "sphere":
            candidates = candidates[:, :1].expand(-1, 3)
        shapes = Primitives(candidates, kind.expand(len(candidates)))
        expanded = (rays.expand(len(candidates), -1, -1) for rays in (rays_o, rays_d))
        ious = iou(intersect(shapes, *expanded)[0], target.expand(len(candidates), -1))
        order = ious.argsort(descending=True)
        if float(ious[order[0]]) > agreement:
            best, agreement = candidates[order[:1]], float(ious[order[0]])
        elite = candidates[order[:FIT_ELITE]]
        noise = torch.randn(FIT_CANDIDATES, 3, generator=generator)
        candidates = (elite.mean(dim=0) + noise * (elite.std(dim=0) + 1e-3)).clamp(low, high)
    return Primitives(best.contiguous(), kind)
