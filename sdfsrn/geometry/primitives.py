"""Shapes in closed form at the origin: the truth that predictions are held against.

Ellipsoids and boxes are mirror-symmetric in x, y and z. Wedges and L-blocks are so only in z: what assumes another symmetry
shows there what it costs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, Int
from torch import Tensor

KINDS = ("ellipsoid", "box", "wedge", "l_block")
Hits = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Primitives:
    """A batch of shapes: `half_extents` (n, 3) of the bounding box, `kind` an index into KINDS; a sphere is an ellipsoid.

    A wedge is the half of its box below the plane x / a + y / b = 0, an L-block its box without the quarter x > 0, y > 0.
    """

    half_extents: Float[Tensor, "batch 3"]
    kind: Int[Tensor, " batch"]

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, index: Tensor | slice) -> "Primitives":
        return Primitives(self.half_extents[index], self.kind[index])


def contains(shapes: Primitives, points: Float[Tensor, "n 3"]) -> Bool[Tensor, "batch n"]:
    """Which points lie inside which shape."""
    scaled = points / shapes.half_extents[:, None]
    kind = shapes.kind[:, None]
    in_box = scaled.abs().amax(-1) < 1
    inside = torch.where(kind == KINDS.index("ellipsoid"), torch.linalg.vector_norm(scaled, dim=-1) < 1, in_box)
    inside &= (kind != KINDS.index("wedge")) | (scaled[..., :2].sum(-1) < 0)
    return inside & ((kind != KINDS.index("l_block")) | (scaled[..., :2] < 0).any(-1))


def intersect(
    shapes: Primitives, rays_o: Float[Tensor, "batch n 3"], rays_d: Float[Tensor, "batch n 3"]
) -> tuple[Bool[Tensor, "batch n"], Float[Tensor, "batch n"], Float[Tensor, "batch n 3"]]:
    """Which rays hit their shape, at which `t`, and the outward unit normal there (both meaningless where there is no hit)."""
    hit, t, normal = torch.zeros(rays_o.shape[:2], dtype=torch.bool), torch.zeros(rays_o.shape[:2]), torch.zeros(rays_o.shape)
    for kind in shapes.kind.unique().tolist():
        rows = shapes.kind == kind
        found = _METHODS[KINDS[kind]](shapes.half_extents[rows][:, None], rays_o[rows], rays_d[rows])
        hit[rows], t[rows], normal[rows] = found
    return hit, t, normal


def _intersect_ellipsoid(extents: Tensor, rays_o: Tensor, rays_d: Tensor) -> Hits:
    origin, direction = rays_o / extents, rays_d / extents
    a = direction.square().sum(-1)
    b = (origin * direction).sum(-1)
    discriminant = b.square() - a * (origin.square().sum(-1) - 1)
    t = (-b - discriminant.clamp(min=0).sqrt()) / a
    normal = (rays_o + t[..., None] * rays_d) / extents.square()
    return (discriminant > 0) & (t > 0), t, torch.nn.functional.normalize(normal, dim=-1)


def _slabs(low: Tensor, high: Tensor, rays_o: Tensor, rays_d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays enter and leave a box, and the normal where they enter (Kay and Kajiya 1986)."""
    safe = torch.where(rays_d.abs() < 1e-12, torch.full_like(rays_d, 1e-12), rays_d)
    to_low, to_high = (low - rays_o) / safe, (high - rays_o) / safe
    enter, axis = torch.minimum(to_low, to_high).max(dim=-1)
    leave = torch.maximum(to_low, to_high).amin(dim=-1)
    return enter, leave, torch.nn.functional.one_hot(axis, 3).to(rays_d.dtype) * -rays_d.sign()


def _intersect_box(extents: Tensor, rays_o: Tensor, rays_d: Tensor) -> Hits:
    enter, leave, normal = _slabs(-extents, extents, rays_o, rays_d)
    return (enter < leave) & (enter > 0), enter, normal


def _intersect_wedge(extents: Tensor, rays_o: Tensor, rays_d: Tensor) -> Hits:
    enter, leave, normal = _slabs(-extents, extents, rays_o, rays_d)
    slope = torch.nn.functional.normalize(torch.cat([1 / extents[..., :2], torch.zeros_like(extents[..., :1])], dim=-1), dim=-1)
    height, climb = (rays_o * slope).sum(-1), (rays_d * slope).sum(-1)
    crossing = -height / torch.where(climb.abs() < 1e-12, torch.full_like(climb, 1e-12), climb)
    through_slope = (climb < 0) & (crossing > enter)
    enter = torch.where(through_slope, crossing, enter)
    leave = torch.where(climb > 0, torch.minimum(leave, crossing), leave)
    outside = (climb.abs() < 1e-12) & (height > 0)
    normal = torch.where(through_slope[..., None], slope.expand_as(normal), normal)
    return (enter < leave) & (enter > 0) & ~outside, enter, normal


def _intersect_l_block(extents: Tensor, rays_o: Tensor, rays_d: Tensor) -> Hits:
    """The nearer hit of its foot (y < 0) and its upright (x < 0)."""
    foot, upright = (_slabs(-extents, extents * extents.new_tensor(cut), rays_o, rays_d) for cut in ([1, 0, 1], [0, 1, 1]))
    foot_t, upright_t = (torch.where((enter < leave) & (enter > 0), enter, torch.inf) for enter, leave, _ in (foot, upright))
    t = torch.minimum(foot_t, upright_t)
    return t.isfinite(), t, torch.where((foot_t < upright_t)[..., None], foot[2], upright[2])


_METHODS: dict[str, Callable[[Tensor, Tensor, Tensor], Hits]] = {
    "ellipsoid": _intersect_ellipsoid,
    "box": _intersect_box,
    "wedge": _intersect_wedge,
    "l_block": _intersect_l_block,
}


def surface_mesh(kind: str) -> trimesh.Trimesh:
    """The shape of half extents 1, watertight, curved ones finely triangulated."""
    if kind == "ellipsoid":
        sphere: trimesh.Trimesh = trimesh.creation.icosphere(subdivisions=4)
        return sphere
    outlines = {
        "box": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "wedge": [(-1, -1), (1, -1), (-1, 1)],
        "l_block": [(-1, -1), (1, -1), (1, 0), (0, 0), (0, 1), (-1, 1)],  # every corner is seen from the first
    }
    outline = outlines[kind]
    fan = [(0, i, i + 1) for i in range(1, len(outline) - 1)]
    mesh: trimesh.Trimesh = trimesh.creation.extrude_triangulation(np.array(outline, dtype=float), np.array(fan), height=2.0)
    mesh.apply_translation([0, 0, -1])
    return mesh


def surfaces(shapes: Primitives) -> list[trimesh.Trimesh]:
    """Each shape's surface as a mesh, scene units."""
    meshes: list[Any] = [surface_mesh(KINDS[kind]) for kind in shapes.kind.tolist()]  # trimesh's methods carry no types
    for mesh, extents in zip(meshes, shapes.half_extents.cpu().numpy(), strict=True):
        mesh.apply_scale(extents)
    return meshes
