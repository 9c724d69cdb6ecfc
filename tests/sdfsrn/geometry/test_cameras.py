"""Poses, rays and intrinsics against the contract's words and against one another."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdfsrn.geometry.cameras import chosen_rays, intrinsics, orbit_c2w, pixel_rays, project, rays_through

FAR = 2.5


def _pose(azimuth: float, elevation: float) -> torch.Tensor:
    return orbit_c2w(torch.tensor([azimuth], dtype=torch.float64), torch.tensor([elevation], dtype=torch.float64), FAR)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "position"),
    [(0, 0, (0, 0, FAR)), (90, 0, (FAR, 0, 0)), (180, 0, (0, 0, -FAR)), (0, 90, (0, FAR, 0)), (77, -90, (0, -FAR, 0))],
)
def test_position_is_the_contracts(azimuth: float, elevation: float, position: tuple[float, float, float]) -> None:
    found = _pose(azimuth, elevation)[0, :3, 3]
    torch.testing.assert_close(found, torch.tensor(position, dtype=torch.float64), atol=1e-12, rtol=0)


def test_rays_through_some_pixels_are_those_of_the_whole_pictures() -> None:
    c2w = orbit_c2w(torch.tensor([20.0, 200.0]), torch.tensor([10.0, -30.0]), FAR)
    pixel = torch.tensor([[0, 7, 63], [9, 9, 8]])
    for whole, some in zip(pixel_rays(c2w, 50.0, 8), rays_through(c2w, 50.0, 8, pixel), strict=True):
        torch.testing.assert_close(some, whole[torch.arange(2)[:, None], pixel])


@settings(max_examples=50, deadline=None)
@given(st.floats(-720, 720), st.floats(-90, 90))
def test_pose_is_a_rotation_that_looks_at_the_origin_with_y_up(azimuth: float, elevation: float) -> None:
    pose = _pose(azimuth, elevation)[0]
    rotation = pose[:3, :3]
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert torch.linalg.det(rotation) == pytest.approx(1)
    torch.testing.assert_close(pose[:3, 3] - FAR * pose[:3, 2], torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert pose[1, 0] == 0, "the horizon is level"
    assert pose[1, 1] >= -1e-12, "up is up"


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 360), st.floats(-90, 90), st.floats(5, 120), st.integers(2, 40))
def test_projecting_with_k_and_c2w_returns_each_rays_pixel(azimuth: float, elevation: float, fovy: float, size: int) -> None:
    pose = _pose(azimuth, elevation)
    rays_o, rays_d = pixel_rays(pose, fovy, size)
    t = torch.rand(size * size, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(size)) * 3 + 0.5
    world = rays_o[0] + t * rays_d[0]
    local = (world - pose[0, :3, 3]) @ pose[0, :3, :3]
    opencv = local * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)  # x right, y down, z forward
    projected = opencv @ torch.tensor(intrinsics(fovy, size), dtype=torch.float64).T
    pixel = projected[:, :2] / projected[:, 2:]
    row, column = torch.arange(size).repeat_interleave(size), torch.arange(size).repeat(size)
    torch.testing.assert_close(pixel, torch.stack([column, row], dim=-1) + 0.5, atol=1e-8, rtol=1e-9, check_dtype=False)


def test_rays_are_unit_and_the_first_is_top_left() -> None:
    rays_o, rays_d = pixel_rays(_pose(0, 0), 50.0, 8)
    torch.testing.assert_close(rays_d.norm(dim=-1), torch.ones(1, 64, dtype=torch.float64))
    torch.testing.assert_close(rays_o[0, 5], torch.tensor([0, 0, FAR], dtype=torch.float64))
    assert rays_d[0, 0, 0] < 0 < rays_d[0, 0, 1]
    assert rays_d[0, 0, 2] < 0


def test_field_of_view_is_the_full_height() -> None:
    focal = intrinsics(50.0, 64)[0][0]
    assert 2 * math.degrees(math.atan(32 / focal)) == pytest.approx(50)


def test_a_point_on_a_pixels_ray_projects_to_its_centre() -> None:
    c2w = orbit_c2w(torch.tensor([130.0]), torch.tensor([-20.0]), 2.5)
    rays_o, rays_d = pixel_rays(c2w, 50.0, 8)
    found = project(rays_o[0] + 2.2 * rays_d[0], c2w[0], 50.0, 8)
    rows, columns = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    torch.testing.assert_close(found, torch.stack([columns, rows], dim=-1).reshape(-1, 2), atol=1e-4, rtol=0)


def test_chosen_rays_are_those_of_the_whole_picture() -> None:
    c2w = orbit_c2w(torch.tensor([10.0, 200.0]), torch.tensor([5.0, -30.0]), 2.5)
    chosen = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.3
    all_o, all_d = pixel_rays(c2w, 50.0, 8)
    some_o, some_d = chosen_rays(c2w, 50.0, 8, chosen)
    torch.testing.assert_close(some_o, all_o[chosen.flatten(1)])
    torch.testing.assert_close(some_d, all_d[chosen.flatten(1)])
