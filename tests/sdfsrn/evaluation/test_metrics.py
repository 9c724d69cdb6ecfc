"""Measures on cases worked by hand."""

import numpy as np
import pytest
import torch

from sdfsrn.evaluation.metrics import chamfer_l1, iou
from sdfsrn.evaluation.protocol import rays_meet_inside
from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.rendering.grids import GridField
from tests.sdfsrn.rendering.fields import ball, box, decoder_field
from tests.sdfsrn.rendering.plain import dense_minimum


def test_iou_by_hand() -> None:
    prediction = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    truth = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]).bool()
    torch.testing.assert_close(iou(prediction, truth), torch.tensor([1 / 3, 1, 1, 0]))


def test_chamfer_by_hand() -> None:
    assert chamfer_l1(np.array([[0.0, 0, 0]]), np.array([[3.0, 4, 0]])) == 5
    assert chamfer_l1(np.array([[0.0, 0, 0]]), np.array([[0.0, 0, 0], [2.0, 0, 0]])) == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["ball", "box", "decoder"])
def test_rays_that_meet_the_inside_are_those_of_plain_sampling(name: str) -> None:
    sdf = {"ball": ball(0.5), "box": box((0.5, 0.3, 0.2)), "decoder": decoder_field(1)[1]}[name]
    rays_o, rays_d = pixel_rays(orbit_c2w(torch.tensor([70.0]), torch.tensor([10.0]), 2.5), 50.0, 48)
    found = rays_meet_inside(sdf, GridField(sdf), rays_o, rays_d)
    exact = dense_minimum(sdf, rays_o, rays_d, 128)
    assert ((found == (exact < 0)) | (exact.abs() < 1e-5)).all()
