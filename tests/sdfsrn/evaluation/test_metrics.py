"""Measures on cases worked by hand."""

import pytest
import torch
import trimesh

from sdfsrn.evaluation.metrics import CHAMFER_POINTS, chamfer_l1, iou, surface_distance
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
    sphere, larger = (trimesh.creation.icosphere(subdivisions=5, radius=radius) for radius in (0.5, 0.6))
    assert chamfer_l1(sphere, larger) == pytest.approx(0.1, rel=0.01)
    assert chamfer_l1(larger, sphere) == pytest.approx(0.1, rel=0.01)
    assert chamfer_l1(sphere, sphere) < 1e-4, "no noise of sampling"
    # of a cube shifted by 0.1 in x: one face stands out by 0.1, one lies inside, near its edges less deep, and a twentieth of the
    # other four stands out by 0.05 on average
    cube, shifted = trimesh.creation.box((2, 2, 2)), trimesh.creation.box((2, 2, 2))
    shifted.apply_translation([0.1, 0, 0])
    by_hand = (0.1 + (1 - 0.9**3) / 3 + 4 * 0.05 * 0.05) / 6
    assert chamfer_l1(cube, shifted) == pytest.approx(by_hand, rel=0.03)


def test_distances_to_a_surface_are_trimeshs_own() -> None:
    one, other = trimesh.creation.capsule(height=0.6, radius=0.2), trimesh.creation.annulus(0.2, 0.5, 0.3)
    points, _ = trimesh.sample.sample_surface(one, CHAMFER_POINTS, seed=0)
    some = slice(0, 200)
    exact = trimesh.proximity.ProximityQuery(other).on_surface(points[some])[1]
    found = surface_distance(one, other, seed=0)[some]
    assert (found >= exact - 1e-9).all() and (found - exact).mean() < 3e-4


@pytest.mark.parametrize("name", ["ball", "box", "decoder"])
def test_rays_that_meet_the_inside_are_those_of_plain_sampling(name: str) -> None:
    sdf = {"ball": ball(0.5), "box": box((0.5, 0.3, 0.2)), "decoder": decoder_field(1)[1]}[name]
    rays_o, rays_d = pixel_rays(orbit_c2w(torch.tensor([70.0]), torch.tensor([10.0]), 2.5), 50.0, 48)
    found = rays_meet_inside(sdf, GridField(sdf), rays_o, rays_d)
    exact = dense_minimum(sdf, rays_o, rays_d, 128)
    assert ((found == (exact < 0)) | (exact.abs() < 1e-5)).all()
