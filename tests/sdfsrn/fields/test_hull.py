"""The visual hull against cones in closed form."""

import numpy as np
import torch

from sdfsrn.fields.hull import VisualHull, signed_distance
from tests.sdfsrn.data.scene import orbit, silhouette

SIZE, FOCAL, DISTANCE, RADIUS = 240, 260.0, 3.2, 0.5
INTRINSICS = np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
PIXEL = DISTANCE / FOCAL
BALL = [((0.0, 0.0, 0.0), RADIUS)]


def _hull(*views: tuple[float, float]) -> VisualHull:
    poses = [orbit(*view) for view in views]
    masks = [silhouette(pose, FOCAL, (SIZE, SIZE), BALL) for pose in poses]
    return VisualHull(masks, np.stack([INTRINSICS] * len(poses)), np.stack(poses))


def _points(count: int) -> torch.Tensor:
    return 1.6 * torch.rand(1, count, 3, generator=torch.Generator().manual_seed(0)) - 0.8


def test_one_view_gives_the_distance_to_its_cone() -> None:
    """The mask of a ball is a cone that touches it: a point at range r and angle a from the axis is r sin(a - b) outside."""
    points = _points(2_000)
    pose = orbit(40, 20)
    away = points[0].double().numpy() - pose[:3, 3]
    distance = np.linalg.norm(away, axis=1)
    angle = np.arccos(away @ -pose[:3, 2] / distance)
    exact = distance * np.sin(angle - np.arcsin(RADIUS / DISTANCE))
    found = _hull((40, 20))(points)[0].numpy()
    near = np.abs(exact) < 0.1
    assert near.sum() > 200
    assert np.abs(found - exact)[near].max() < PIXEL
    assert ((found > 0) == (exact > 0))[np.abs(exact) > PIXEL].all()


def test_what_all_views_see_holds_the_object_and_is_near_it() -> None:
    points = _points(4_000)
    exact = torch.linalg.vector_norm(points, dim=-1) - RADIUS
    found = _hull(*[(a, e) for a in range(0, 360, 30) for e in (-40, 0, 40)])(points)
    assert (found <= exact + PIXEL).all(), "a lower bound of the distance to the object"
    assert (found[exact > 0.03] > 0).all()


def test_what_lies_behind_a_camera_or_beside_its_picture_is_outside() -> None:
    hull = _hull((0, 0))
    found = hull(torch.tensor([[[0.0, 0, 9], [40.0, 0, 0], [0, 0, 0]]]))[0]
    assert (found > 0).tolist() == [True, True, False]


def test_the_outline_runs_between_pixels() -> None:
    mask = np.zeros((5, 8), dtype=bool)
    mask[:, 3:] = True
    assert signed_distance(mask)[2].tolist() == [2.5, 1.5, 0.5, -0.5, -1.5, -2.5, -3.5, -4.5]
    assert (signed_distance(np.zeros((4, 4), dtype=bool)) > 4).all()
