"""Measures of agreement."""

import numpy as np
import trimesh
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree
from torch import Tensor

CHAMFER_POINTS = 10_000  # on each surface
NEAREST = 4


def iou(prediction: Bool[Tensor, "*batch n"], truth: Bool[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Intersection over union along the last axis; 1 where both are empty."""
    union = (prediction | truth).sum(-1)
    return ((prediction & truth).sum(-1) / union.clamp(min=1)).where(union > 0, union.new_ones(()).float())


def chamfer_l1(mesh: trimesh.Trimesh, other: trimesh.Trimesh, seed: int = 0) -> float:
    """Mean of the two mean distances (not squared) from points on each surface to the other surface, scene units.

    The points are uniform by area, CHAMFER_POINTS on each.
    """
    there, back = (surface_distance(*pair, seed) for pair in ((mesh, other), (other, mesh)))
    return float((there.mean() + back.mean()) / 2)


def surface_distance(
    mesh: trimesh.Trimesh, other: trimesh.Trimesh, seed: int = 0, points: int = CHAMFER_POINTS
) -> Float[np.ndarray, " n"]:
    """How far so many points on one surface are from another.

    Points on the other and the centres of its triangles say which triangles may be nearest: those of the NEAREST few of them.
    The distance to each of these triangles is exact.
    """
    here, _ = trimesh.sample.sample_surface(mesh, points, seed=seed)
    others, face = trimesh.sample.sample_surface(other, points, seed=seed + 1)
    _, near = cKDTree(np.concatenate([others, other.triangles_center])).query(here, k=NEAREST)
    of_face = np.concatenate([face, np.arange(len(other.faces))])
    triangles = np.asarray(other.triangles)[of_face[near].ravel()]
    feet: np.ndarray = trimesh.triangles.closest_point(triangles, np.repeat(here, NEAREST, axis=0))  # type: ignore[no-untyped-call]
    distance: np.ndarray = np.linalg.norm(feet.reshape(-1, NEAREST, 3) - here[:, None], axis=-1).min(axis=1)
    return distance
