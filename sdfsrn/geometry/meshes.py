"""Closed triangle meshes out of signed distance fields."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float
from skimage import measure
from torch import Tensor

# A little more than the unit sphere, so that a shape which touches the sphere is still closed.
BOUND = 1.05


class EmptySurface(RuntimeError):
    """The field has no zero level set inside the unit sphere."""


def grid_points(resolution: int, device: torch.device | None = None) -> Float[Tensor, "n n n 3"]:
    """The `resolution`^3 nodes of the cube [-BOUND, BOUND]^3, indexed x, y, z."""
    axis = torch.linspace(-BOUND, BOUND, resolution, device=device)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def cut_to_sphere(sdf: Float[Tensor, "*batch"], points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
    """The intersection with the unit sphere, so that the zero level set is closed."""
    return torch.maximum(sdf, torch.linalg.vector_norm(points, dim=-1) - 1)


def ask_nodes(
    sdf: Callable[[Tensor], Tensor],
    points: Float[Tensor, "n n n 3"],
    values: Float[Tensor, "n n n"],
    asked: Bool[Tensor, "n n n"],
    mirror: bool,
) -> Float[Tensor, "n n n"]:
    """`values` at the nodes `points` of `grid_points`, with the field at those that are `asked`.

    With `mirror` the field is its own mirror image in x = 0, and nodes at x < 0 get what is at x > 0.
    """
    half = len(values) // 2
    if mirror:
        asked = asked.clone()
        asked[:half] = False
    with torch.no_grad():
        values[asked] = sdf(points[asked][None])[0]
    return torch.cat([values[-half:].flip(0), values[half:]]) if mirror else values


def sample_grid(
    sdf: Callable[[Tensor], Tensor], resolution: int, device: torch.device | None = None, mirror: bool = False
) -> Float[Tensor, "n n n"]:
    """The field at the nodes of `grid_points`, cut off at the unit sphere so that its zero level set is closed.

    Nodes more than a cell outside are not asked: they get their distance to the sphere, which is less than the field there.
    Nor, with `mirror`, are those at x < 0: the field is its own mirror image.
    """
    points = grid_points(resolution, device)
    values: Tensor = torch.linalg.vector_norm(points, dim=-1) - 1
    asked = values < 2 * BOUND / (resolution - 1)
    return ask_nodes(lambda nodes: cut_to_sphere(sdf(nodes), nodes), points, values, asked, mirror)


def extract_mesh(values: Float[Tensor, "n n n"]) -> trimesh.Trimesh:
    """Marching cubes (Lewiner et al. 2003) over the nodes of `grid_points`, in scene units, normals outward, watertight.

    Raises EmptySurface when no node is inside.
    """
    volume = values.detach().float().cpu().numpy()
    if not np.isfinite(volume).all():
        raise EmptySurface("the signed distance field is not finite")
    # A node exactly on the surface makes degenerate triangles that break the mesh where they are merged.
    volume = np.where(np.abs(volume) < 1e-5, 1e-5, volume)
    if volume.min() >= 0:
        raise EmptySurface(f"no point of a {volume.shape[0]}^3 grid is inside the surface, smallest sdf {volume.min():.4f}")
    spacing = 2 * BOUND / (volume.shape[0] - 1)
    vertices, faces, _, _ = measure.marching_cubes(volume, 0.0, spacing=(spacing,) * 3, gradient_direction="descent")
    return trimesh.Trimesh(vertices - BOUND, faces, process=True)


def save_mesh(mesh: trimesh.Trimesh, path: Path) -> None:
    """Write a mesh; the suffix names the format: .glb, .obj, .ply or .stl."""
    mesh.export(path)
