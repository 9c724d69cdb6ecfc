"""The loss terms against closed forms."""

import math

import pytest
import torch

from sdfsrn.geometry.bounds import points_in_ball
from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.geometry.primitives import KINDS, Primitives, intersect
from sdfsrn.training.losses import (
    background_angle,
    bound_loss,
    centre_loss,
    eikonal_loss,
    hollow_loss,
    silhouette_entropy,
    thickness_loss,
)
from tests.sdfsrn.rendering.fields import ball, box

FOVY_DEG = 50.0


@pytest.mark.parametrize("temperature", [0.01, 0.05])
def test_silhouette_entropy_is_the_scaled_cross_entropy(temperature: float) -> None:
    minima = torch.tensor([[-0.03, 0.02]], dtype=torch.float64, requires_grad=True)
    inside = torch.tensor([[True, False]])
    loss = silhouette_entropy(minima, inside, temperature)
    by_hand = temperature * sum(math.log1p(math.exp(-abs(value) / temperature)) for value in (0.03, 0.02)) / 2
    assert loss.item() == pytest.approx(by_hand)
    (gradient,) = torch.autograd.grad(silhouette_entropy(-minima, inside, temperature), minima)
    assert gradient.abs().max() <= 0.5 + 1e-9, "two rays share a gradient of at most one, whatever the temperature"


def test_bound_loss_counts_only_what_lies_below_a_bound() -> None:
    sdf = torch.tensor([[0.1, 0.5, -0.4]])
    bound = torch.tensor([[0.3, 0.3, 0.0]])
    assert bound_loss(sdf, bound).item() == pytest.approx(0.2 / 3)


def test_eikonal_loss_vanishes_for_a_distance_and_not_for_its_double() -> None:
    points = torch.randn(1, 100, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(ball(0.5)(points).sum(), points)
    assert eikonal_loss(gradient).item() == pytest.approx(0, abs=1e-9)
    assert eikonal_loss(2 * gradient).item() == pytest.approx(1, abs=1e-5)


def test_centre_loss_is_the_squared_way_to_the_centre_of_mass() -> None:
    points = points_in_ball(1, 200_000, torch.Generator().manual_seed(0))
    offset = torch.tensor([0.1, -0.2, 0.05])
    assert centre_loss(ball(0.4)(points), points).item() < 1e-4
    # the soft edge is the same on all sides of a ball that lies well inside
    found = centre_loss(ball(0.3)(points - offset), points).item()
    assert found == pytest.approx(float(offset.square().sum()), rel=0.05)
    assert centre_loss(torch.ones(1, 200_000), points).item() < 1e-4, "an empty field has no centre to move"


def test_centre_loss_of_few_points_is_right_on_average() -> None:
    """As many points as a training step has; of a ball this size about seven of each half are inside."""
    points = points_in_ball(4000, 128, torch.Generator().manual_seed(5)) * 0.85
    offset = torch.tensor([0.2, -0.1, 0.1])
    found = centre_loss(ball(0.4)(points - offset), points).item()
    assert found == pytest.approx(float(offset.square().sum()), rel=0.08)


def test_centre_loss_of_few_points_prefers_no_size() -> None:
    points = torch.rand(4000, 256, 3, generator=torch.Generator().manual_seed(2)) * 1.6 - 0.8
    for radius in (0.2, 0.4):
        assert centre_loss(ball(radius)(points), points).item() == pytest.approx(0, abs=3e-4)
    paired = points_in_ball(1, 64, torch.Generator().manual_seed(3))
    assert centre_loss(ball(0.4)(paired), paired).item() == pytest.approx(0, abs=1e-12), "nor any noise where all is even"


def test_thickness_loss_raises_the_distance_at_the_ends_of_what_is_inside_and_nothing_else() -> None:
    sdf = torch.tensor([[[0.0, -0.05], [-0.02, -0.3]]], requires_grad=True)
    loss = thickness_loss(sdf, torch.tensor([[True, False]]))
    assert loss.item() == pytest.approx(0.05 * (0.5 + 1 / (1 + math.exp(-1))) / 4)
    (gradient,) = torch.autograd.grad(loss, sdf)
    assert (gradient[0, 0] < 0).all() and (gradient[0, 0] >= -1 / 16).all(), (
        "less of it where the distance rises, by a quarter at most"
    )
    assert (gradient[0, 1] == 0).all(), "a ray that met nothing has no ends"


def test_hollow_loss_counts_what_is_not_inside_beyond_doubt_between_two_inside_samples() -> None:
    sdf = torch.tensor([[0.1, -0.01, -0.5, 0.3]])
    loss = hollow_loss(sdf, torch.tensor([[True, True, True, False]]))
    assert loss.item() == pytest.approx((0.12 + 0.01) / 4)


def test_points_in_ball_fill_it_evenly() -> None:
    radius = points_in_ball(1, 100_000, torch.Generator().manual_seed(1))[0].norm(dim=-1)
    assert radius.max() <= 1
    assert float((radius < 0.5).float().mean()) == pytest.approx(1 / 8, abs=0.005)


@pytest.mark.parametrize("name", ["ball", "box"])
def test_background_angle_is_a_true_lower_bound_and_a_tight_one(name: str) -> None:
    """At every point of every background ray the exact distance is no smaller; beside the ball hardly larger."""
    half = (0.6, 0.6, 0.6) if name == "ball" else (0.5, 0.3, 0.2)
    sdf = ball(0.6) if name == "ball" else box(half)
    shape = Primitives(torch.tensor([half]), torch.tensor([KINDS.index("ellipsoid" if name == "ball" else "box")]))
    size = 64
    rays_o, rays_d = pixel_rays(orbit_c2w(torch.tensor([35.0]), torch.tensor([20.0]), 2.5), FOVY_DEG, size)
    mask = intersect(shape, rays_o, rays_d)[0].view(1, size, size)
    angle = background_angle(mask, FOVY_DEG).view(1, -1).float()
    assert (angle[mask.view(1, -1)] == 0).all()
    t = torch.linspace(1.5, 3.5, 200)
    points = rays_o[..., None, :] + t[:, None] * rays_d[..., None, :]
    distance = sdf(points.flatten(1, 2)).view(1, -1, 200)
    bound = t * angle.sin()[..., None]
    pixel = 2 * math.tan(math.radians(FOVY_DEG / 2)) / size
    background = ~mask.view(1, -1)
    assert ((distance - bound) / t)[background].min() > -0.02 * pixel
    if name == "ball":
        slack = (distance.amin(-1) - (bound - (distance > distance.amin(-1, keepdim=True)) * 9).amax(-1))[background]
        assert slack.median() < 2 * pixel * 2.5


def test_an_empty_mask_bounds_nothing() -> None:
    assert (background_angle(torch.zeros(1, 16, 16, dtype=torch.bool), FOVY_DEG) == 0).all()
