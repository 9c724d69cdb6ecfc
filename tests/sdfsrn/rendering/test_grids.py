"""The grid that stands in for a field."""

import pytest
import torch

from sdfsrn.geometry.meshes import sample_grid
from sdfsrn.rendering.grids import GridField
from tests.sdfsrn.rendering.fields import ball, box, decoder_field


def test_interpolation_errs_by_less_than_two_margins_which_is_where_the_field_is_asked() -> None:
    sdf = box((0.5, 0.3, 0.2))
    grid = GridField(sdf)
    points = (torch.rand(1, 5000, 3) - 0.5) * 1.1
    assert (grid(points) - sdf(points)).abs().max() < 2 * grid.margin


def test_axes_are_not_swapped() -> None:
    grid = GridField(box((0.7, 0.4, 0.1)))
    probes = torch.tensor([[[0.6, 0.0, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, 0.6]]])
    assert (grid(probes)[0] < 0).tolist() == [True, False, False]


@pytest.mark.parametrize("case", ["ball", "box", "decoder"])
def test_finer_is_the_field_itself_near_the_surface(case: str) -> None:
    sdf = {"ball": ball(0.6), "box": box((0.5, 0.3, 0.2)), "decoder": decoder_field(1)[1]}[case]
    grid = GridField(sdf)
    finer, exact = grid.finer(sdf, 96), sample_grid(lambda points: sdf(points) / grid.slope, 96)
    cell = 2 * 1.05 / 95
    near = exact.abs() < cell
    assert near.sum() > 100
    torch.testing.assert_close(finer[near], exact[near], atol=1e-6, rtol=1e-5)
    assert ((finer < 0) == (exact < 0)).all()


@pytest.mark.parametrize("resolution", [31, 32])
def test_half_of_a_mirrored_field_says_it_all(resolution: int) -> None:
    asked: list[float] = []

    def field(points: torch.Tensor) -> torch.Tensor:
        asked.append(float(points[..., 0].min()))
        return box((0.4, 0.3, 0.2))(torch.stack([points[..., 0].abs() - 0.3, points[..., 1] + 0.1, points[..., 2]], dim=-1))

    whole = GridField(field, resolution)
    finer = whole.finer(field, 2 * resolution)
    assert min(asked) < -0.9
    asked.clear()
    half = GridField(field, resolution, mirror=True)
    torch.testing.assert_close(half.finer(field, 2 * resolution), finer)
    assert min(asked) > -1e-6
    torch.testing.assert_close(half.values, whole.values)
    assert (half.error, half.radius) == pytest.approx((whole.error, whole.radius), rel=1e-4)
