"""The data set, held to the contract's digits."""

import dataclasses

import torch

from sdfsrn.config import SyntheticData
from sdfsrn.data.synthetic import families_of, make_shapes, make_views
from sdfsrn.images import TILE

DATA = SyntheticData(n_shapes=60, seed=7)


def test_extents_lie_in_their_ranges_and_x_is_not_below_z() -> None:
    data = dataclasses.replace(DATA, n_shapes=3000)
    extents = make_shapes(data).half_extents
    for family, low, high in (("sphere", 0.25, 0.75), ("box", 0.2, 0.55), ("ellipsoid", 0.25, 0.75)):
        own = extents[torch.tensor([name == family for name in families_of(data)])]
        assert low <= own.min() < low + 0.02
        assert high - 0.02 < own.max() <= high
        if family == "sphere":
            assert (own == own[:, :1]).all()
    assert (extents[:, 0] >= extents[:, 2]).all()


def test_one_camera_per_shape_in_the_contracts_range() -> None:
    _, views = make_views(DATA)
    assert len(views) == 60
    assert (views.camera_distance, views.fovy_deg, views.size) == (2.5, 50.0, 64)
    assert ((views.azimuth_deg >= 0) & (views.azimuth_deg < 360)).all()
    assert ((views.elevation_deg >= -10) & (views.elevation_deg <= 40)).all()
    torch.testing.assert_close(views.c2w[:, :3, 3].norm(dim=-1), torch.full((60,), 2.5))
    assert views.tiles.shape == (60, 3, TILE, TILE)
    assert (views.tiles[:, :, [0, -1]] == 0).all() and (views.tiles[..., [0, -1]] == 0).all(), "the background is black"


def test_same_seed_same_data_other_seed_other_data() -> None:
    digest = make_views(DATA)[1].digest(range(DATA.n_shapes))
    assert digest == make_views(DATA)[1].digest(range(DATA.n_shapes))
    assert digest != make_views(dataclasses.replace(DATA, seed=8))[1].digest(range(DATA.n_shapes))


def test_views_of_a_shape_are_neighbours() -> None:
    _, views = make_views(dataclasses.replace(DATA, n_shapes=3, views_per_shape=4))
    assert len(views) == 12
    assert len(set(views.azimuth_deg.tolist())) == 12


def test_mask_radius_of_discs_is_their_radius() -> None:
    _, views = make_views(SyntheticData(n_shapes=1, families=("sphere",), seed=2))
    area = float(views.masks.float().mean())
    assert abs(views.mean_mask_radius() - (area / torch.pi) ** 0.5) < 0.003
