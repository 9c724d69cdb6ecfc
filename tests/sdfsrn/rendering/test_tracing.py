"""Sphere tracing against a ball in closed form, and gradients against finite differences in float64."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from sdfsrn.rendering.tracing import differentiable_normals, differentiable_t, steepest_slope, trace

CENTRE = (0.1, -0.2, 0.05)


class Ball:
    """A field of slope `steepness`, with what it depends on: centre and radius."""

    def __init__(self, steepness: float = 1.0, dtype: torch.dtype = torch.float64) -> None:
        self.centre = torch.tensor(CENTRE, dtype=dtype)
        self.radius = torch.tensor(0.4, dtype=dtype)
        self.steepness = steepness

    def __call__(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        return self.steepness * (torch.linalg.vector_norm(points - self.centre, dim=-1) - self.radius)


class Bumpy:
    """A field that is no distance: an ellipsoid with waves."""

    def __init__(self) -> None:
        self.axes = torch.tensor([0.6, 0.45, 0.5], dtype=torch.float64)

    def __call__(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        waves = 0.05 * (points * 6).sin().sum(-1)
        return 0.5 * (torch.linalg.vector_norm(points / self.axes, dim=-1) - 1) + waves


def _rays(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    origins = 2.5 * torch.nn.functional.normalize(torch.randn(1, count, 3, generator=generator, dtype=torch.float64), dim=-1)
    aims = 0.5 * torch.randn(1, count, 3, generator=generator, dtype=torch.float64)
    return origins, torch.nn.functional.normalize(aims - origins, dim=-1)


def _exact(ball: Ball, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    middle = -((origins - ball.centre) * directions).sum(-1)
    passed = (origins - ball.centre + middle[..., None] * directions).norm(dim=-1)
    half = (ball.radius**2 - passed**2).clamp(min=0).sqrt()
    return middle - half, middle + half, passed < ball.radius


@pytest.mark.parametrize("steepness", [1.0, 2.5, 0.4])
def test_both_ends_of_a_ball_are_found(steepness: float) -> None:
    ball, (origins, directions) = Ball(steepness), _rays(2_000)
    slope = steepest_slope(ball, 1_000, torch.Generator().manual_seed(0), torch.float64)
    assert slope == pytest.approx(1.05 * steepness, rel=1e-6)
    found = trace(ball, origins, directions, slope, 1e-6)
    entry, leave, hit = _exact(ball, origins, directions)
    grazing = (leave - entry).abs() < 0.02
    assert (found.hit == hit)[~grazing].all() and 0.2 < hit.float().mean() < 0.8
    sure = hit & ~grazing
    assert (found.entry - entry)[sure].abs().max() < 1e-3
    assert (found.leave - leave)[sure].abs().max() < 1e-3
    assert found.sampled.float().mean() < 0.1, "few rays need samples"


def test_a_thin_shell_is_not_passed() -> None:
    """Longer steps are taken back where the balls that they skip may hide something."""

    def shell(points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        return (torch.linalg.vector_norm(points, dim=-1) - 0.5).abs() - 0.004

    origins, directions = _rays(1_000, seed=2)
    found = trace(shell, origins, directions, 1.0, 1e-6)
    middle = -(origins * directions).sum(-1)
    passed = (origins + middle[..., None] * directions).norm(dim=-1)
    half = (0.504**2 - passed**2).clamp(min=0).sqrt()
    sure = passed < 0.49
    assert found.hit[sure].all()
    assert (found.entry - (middle - half))[sure].abs().max() < 1e-3
    assert (found.leave - (middle + half))[sure].abs().max() < 1e-3


def test_a_field_that_is_steeper_than_told_is_sampled_where_the_ends_disagree() -> None:
    field, (origins, directions) = Bumpy(), _rays(500, seed=3)
    slope = steepest_slope(field, 4_000, torch.Generator().manual_seed(0), torch.float64)
    found = trace(field, origins, directions, slope, 1e-6)
    t = torch.linspace(1.4, 3.6, 4_000, dtype=torch.float64)
    points = origins[0, :, None] + t[:, None] * directions[0, :, None]
    inside = (field(points) < 0) & (points.norm(dim=-1) < 1)
    hit = inside.any(-1)
    assert (found.hit[0] == hit).float().mean() > 0.98
    both = found.hit[0] & hit
    first = t[inside.to(torch.uint8).argmax(-1)]
    assert (found.entry[0] - first)[both].abs().quantile(0.98) < 2e-3


def _hits(field: Bumpy | Ball, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rays that meet the field well, and where."""
    origins, directions = _rays(200, seed=1)
    found = trace(field, origins, directions, 3.0, 1e-10)
    chosen = (found.hit & (found.leave - found.entry > 0.3))[0].nonzero()[:count, 0]
    return origins[:, chosen], directions[:, chosen], found.entry[:, chosen]


def _settled(field: Bumpy, origins: Tensor, directions: Tensor, t: Tensor) -> Tensor:
    """The crossing to machine precision, by Newton's method with numerical slopes."""
    for _ in range(30):
        here, there = (field(origins + (t + step)[..., None] * directions) for step in (-1e-6, 1e-6))
        t = t - field(origins + t[..., None] * directions) / ((there - here) / 2e-6)
    return t


def test_depths_have_the_gradients_of_finite_differences() -> None:
    """In the shape of the field and in the rays."""
    field = Bumpy()
    origins, directions, t = _hits(field, 12)
    t = _settled(field, origins, directions, t)
    field.axes.requires_grad_()
    leaves = (field.axes, origins.requires_grad_(), directions.requires_grad_())
    weights = torch.linspace(0.5, 1.5, t.shape[1], dtype=torch.float64)
    found = differentiable_t(field, origins, directions, t)
    assert torch.allclose(found, t, atol=1e-9)
    gradients = torch.autograd.grad((found * weights).sum(), leaves)

    def measure() -> float:
        return float((_settled(field, origins, directions, t).detach() * weights).sum())

    for leaf, gradient in zip(leaves, gradients, strict=True):
        for place in range(0, leaf.numel(), 5):
            expected = _difference(leaf, place, measure)
            assert gradient.flatten()[place].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_normals_have_the_gradients_of_finite_differences() -> None:
    """Also by way of the place: where the surface moves, the ray meets another part of it."""
    field = Bumpy()
    origins, directions, t = _hits(field, 12)
    t = _settled(field, origins, directions, t)
    field.axes.requires_grad_()

    def normals() -> Tensor:
        settled = _settled(field, origins, directions, t).detach()
        points = (origins + settled[..., None] * directions).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(field(points).sum(), points)
        return gradient / gradient.norm(dim=-1, keepdim=True)

    light = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
    points = origins + differentiable_t(field, origins, directions, t)[..., None] * directions
    found = differentiable_normals(field, points)
    assert torch.allclose(found, normals(), atol=1e-9)
    (gradient,) = torch.autograd.grad((found @ light).sum(), field.axes)
    for place in range(3):
        expected = _difference(field.axes, place, lambda: float((normals() @ light).sum().detach()))
        assert gradient[place].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def _difference(leaf: Tensor, place: int, measure) -> float:  # type: ignore[no-untyped-def]
    """Central difference of a measure in one number of a tensor."""
    step, found = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            leaf.view(-1)[place] += sign * step
        found.append(measure())
        with torch.no_grad():
            leaf.view(-1)[place] -= sign * step
    return (found[0] - found[1]) / (2 * step)
