"""The unit sphere's hit test."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdfsrn.geometry.bounds import unit_sphere_interval


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_interval_is_where_the_ray_is_in_the_ball(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rays_o = torch.randn(64, 3, dtype=torch.float64, generator=generator) * 2
    rays_d = torch.nn.functional.normalize(torch.randn(64, 3, dtype=torch.float64, generator=generator), dim=-1)
    near, far, meets = unit_sphere_interval(rays_o, rays_d)
    t = torch.linspace(0, 12, 4001, dtype=torch.float64)
    inside = (rays_o[:, None] + t[None, :, None] * rays_d[:, None]).norm(dim=-1) < 1
    for i in range(64):
        if inside[i].any():
            assert meets[i]
            assert abs(t[inside[i]].min() - near[i]) < 0.004
            assert abs(t[inside[i]].max() - far[i]) < 0.004
        elif meets[i]:
            assert far[i] - near[i] < 0.004


def test_miss_has_the_nearest_point_as_both_ends() -> None:
    near, far, meets = unit_sphere_interval(torch.tensor([[0.0, 2.0, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]]))
    assert (near.item(), far.item(), meets.item()) == (3.0, 3.0, False)


def test_sphere_behind_the_camera_is_missed() -> None:
    _, _, meets = unit_sphere_interval(torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[0.0, 0.0, 1.0]]))
    assert not meets


def test_origin_inside_starts_at_itself() -> None:
    near, far, meets = unit_sphere_interval(torch.tensor([[0.0, 0.0, 0.5]]), torch.tensor([[0.0, 0.0, -1.0]]))
    assert (near.item(), far.item(), meets.item()) == (0.0, 1.5, True)
