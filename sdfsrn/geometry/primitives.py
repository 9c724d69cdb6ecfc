"""Spheres, axis-aligned boxes and ellipsoids at the origin, in closed form: the truth that predictions are held against."""

from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Primitives:
    """A batch of shapes: `half_extents` (n, 3) are semi-axes, or half edges where `is_box`; a sphere has three equal ones."""

    half_extents: Float[Tensor, "batch 3"]
    is_box: Bool[Tensor, " batch"]

    def __len__(self) -> int:
        return len(self.is_box)

    def __getitem__(self, index: Tensor | slice) -> "Primitives":
        return Primitives(self.half_extents[index], self.is_box[index])


def contains(shapes: Primitives, points: Float[Tensor, "n 3"]) -> Bool[Tensor, "batch n"]:
    """Which points lie inside which shape."""
    scaled = points / shapes.half_extents[:, None]
    return torch.where(shapes.is_box[:, None], scaled.abs().amax(-1), torch.linalg.vector_norm(scaled, dim=-1)) < 1


def intersect(
    shapes: Primitives, rays_o: Float[Tensor, "batch n 3"], rays_d: Float[Tensor, "batch n 3"]
) -> tuple[Bool[Tensor, "batch n"], Float[Tensor, "batch n"], Float[Tensor, "batch n 3"]]:
    """Which rays hit their shape, at which `t`, and the outward unit normal there (both meaningless where there is no hit)."""
    box_hit, box_t, box_normal = _intersect_box(shapes.half_extents, rays_o, rays_d)
    hit, t, normal = _intersect_ellipsoid(shapes.half_extents, rays_o, rays_d)
    is_box = shapes.is_box[:, None]
    return (
        torch.where(is_box, box_hit, hit),
        torch.where(is_box, box_t, t),
        torch.where(is_box[..., None], box_normal, normal),
    )


def _intersect_ellipsoid(extents: Tensor, rays_o: Tensor, rays_d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    origin, direction = rays_o / extents[:, None], rays_d / extents[:, None]
    a = direction.square().sum(-1)
    b = (origin * direction).sum(-1)
    discriminant = b.square() - a * (origin.square().sum(-1) - 1)
    t = (-b - discriminant.clamp(min=0).sqrt()) / a
    normal = (rays_o + t[..., None] * rays_d) / extents[:, None].square()
    return (discriminant > 0) & (t > 0), t, torch.nn.functional.normalize(normal, dim=-1)


def _intersect_box(extents: Tensor, rays_o: Tensor, rays_d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The slab method (Kay and Kajiya 1986)."""
    safe = torch.where(rays_d.abs() < 1e-12, torch.full_like(rays_d, 1e-12), rays_d)
    to_low, to_high = (-extents[:, None] - rays_o) / safe, (extents[:, None] - rays_o) / safe
    t, axis = torch.minimum(to_low, to_high).max(dim=-1)
    leave = torch.maximum(to_low, to_high).amin(dim=-1)
    normal = torch.nn.functional.one_hot(axis, 3).to(rays_d.dtype) * -rays_d.sign()
    return (t < leave) & (t > 0), t, normal


def sample_surface(shapes: Primitives, n_points: int, seed: int) -> list[np.ndarray]:
    """`n_points` points on each shape's surface, uniform by area (on a fine triangulation), float64 (n, 3) each."""
    meshes = []
    for extents, is_box in zip(shapes.half_extents.cpu().numpy(), shapes.is_box.tolist(), strict=True):
        mesh = trimesh.creation.box(extents=[2, 2, 2]) if is_box else trimesh.creation.icosphere(subdivisions=4)
        mesh.apply_scale(extents)
        meshes.append(np.asarray(mesh.sample(n_points, seed=seed)))
    return meshes
