"""Spheres: distances and passing rays in closed form, the cross-entropy of what they cover, where they start."""

import math

import numpy as np
import pytest
import torch

from sdfsrn.fields.hull import VisualHull
from sdfsrn.fields.spheres import Spheres, coverage_entropy, largest_within
from tests.sdfsrn.data.scene import orbit, silhouette

TWO = Spheres(torch.tensor([[0.0, 0, 0], [1.0, 0, 0]]), torch.tensor([0.5, 0.25]))


def test_distances_are_to_the_nearest_sphere() -> None:
    found = TWO(torch.tensor([[[0.0, 2, 0], [1.0, 0.1, 0], [0.6, 0, 0]]]))[0]
    assert found.tolist() == pytest.approx([1.5, -0.15, 0.1], abs=1e-6)


def test_rays_pass_as_near_as_their_distance_in_closed_form() -> None:
    origins = torch.tensor([[0.0, 0.3, 3], [1.0, 0, 3], [0.0, 0, 3]])
    directions = torch.tensor([[0.0, 0, -1], [0.0, 0, -1], [0.0, 0, 1]])
    found = TWO.beside(origins, directions)
    expected = [[0.3 - 0.5, math.hypot(1, 0.3) - 0.25], [0.5, -0.25], [2.5, math.hypot(1, 3) - 0.25]]
    assert np.allclose(found.detach().numpy(), expected, atol=1e-5)


def test_the_entropy_is_that_of_the_product_of_what_is_left_open() -> None:
    beside = torch.tensor([[0.03, -0.01], [0.4, 0.5], [-0.05, 0.2], [0.0, 0.0]], dtype=torch.float64)
    inside = torch.tensor([True, True, False, False])
    covered = 1 - (1 - torch.sigmoid(-beside / 0.02)).prod(dim=-1)
    exact = -(torch.where(inside, covered, 1 - covered)).log().mean() * 0.02
    assert float(coverage_entropy(beside, inside, 0.02)) == pytest.approx(float(exact), rel=1e-6)


def test_a_pixel_that_nothing_covers_draws_the_nearest_sphere_at_full_strength() -> None:
    beside = torch.tensor([[3.0, 3.5]], requires_grad=True)
    loss = coverage_entropy(beside, torch.tensor([True]), 0.01)
    (gradient,) = torch.autograd.grad(loss, beside)
    assert gradient[0].tolist() == pytest.approx([1.0, 0.0], abs=1e-3)
    assert float(loss.detach()) == pytest.approx(3.0, abs=0.01)


def _hull(*views: tuple[float, float]) -> VisualHull:
    size, focal = 240, 260.0
    balls = [((0.0, 0.0, 0.0), 0.4), ((0.5, 0.0, 0.0), 0.2)]
    poses = np.stack([orbit(*view) for view in views])
    matrix = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    masks = [silhouette(pose, focal, (size, size), balls) for pose in poses]
    return VisualHull(masks, np.stack([matrix] * len(poses)), poses)


def test_two_balls_are_found_as_the_largest_within_their_hull() -> None:
    found = largest_within(_hull(*[(a, e) for a in range(0, 360, 45) for e in (-45, 0, 45)]), 2, flat=False)
    assert np.allclose(found.radii.detach().numpy(), [0.4, 0.2], atol=0.05)
    assert np.allclose(found.centres.detach().numpy(), [[0, 0, 0], [0.5, 0, 0]], atol=0.08)


def test_those_of_one_view_lie_in_a_plane_across_its_axis() -> None:
    found = largest_within(_hull((30, 20)), 20, flat=True)
    axis = torch.from_numpy(orbit(30, 20)[:3, 2]).float()
    assert (found.centres @ axis).abs().max() < 1e-5
    assert float(found.radii.max().detach()) == pytest.approx(0.4, abs=0.02)
