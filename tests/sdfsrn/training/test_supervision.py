"""Whose masks teach a picture's shape: its own, or half of the time those of another picture of the same object."""

import dataclasses

import pytest
import torch

from sdfsrn.config import SyntheticData
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.geometry.primitives import Primitives, intersect
from sdfsrn.training.sdf_srn import Run
from tests.sdfsrn.conftest import TINY_CONFIG

DATA = SyntheticData(n_shapes=12, views_per_shape=3, seed=4)
PAIR = dataclasses.replace(TINY_CONFIG, supervision="pair", n_rays=128)


def test_other_pictures_are_of_the_same_object() -> None:
    run = Run(PAIR, synthetic_dataset(DATA), torch.device("cpu"))
    batch, generator = torch.arange(36), torch.Generator().manual_seed(0)
    drawn = torch.stack([run._others(batch, generator) for _ in range(40)])
    assert bool((drawn // 3 == batch // 3).all()) and bool((drawn != batch).all())
    assert all(len(set(column.tolist())) == 2 for column in drawn.T), "both others come up"


def test_an_object_of_one_picture_is_taught_by_it_alone() -> None:
    dataset = synthetic_dataset(DATA)
    kept = torch.tensor([0, *range(3, 36)])  # of the first object one picture is left
    few = dataclasses.replace(dataset, views=dataset.views[kept], first=(0, *range(1, 34, 3)))
    drawn = Run(PAIR, few, torch.device("cpu"))._others(torch.arange(34), torch.Generator())
    assert int(drawn[0]) == 0 and bool((drawn[1:] != torch.arange(1, 34)).all())


def test_pairs_need_two_pictures_of_some_object() -> None:
    with pytest.raises(ValueError, match=r"supervision is 'pair', .* each of the 12 has one; choose 'own'"):
        Run(PAIR, synthetic_dataset(dataclasses.replace(DATA, views_per_shape=1)), torch.device("cpu"))


def test_rays_of_a_pair_see_one_solid() -> None:
    """Every ray, its own or the other picture's, says of the true shape in the picture's own world whether it is met."""
    dataset = synthetic_dataset(DATA)
    run, batch = Run(PAIR, dataset, torch.device("cpu")), torch.arange(36)
    rays_o, rays_d, inside, _ = run._rays(batch, torch.Generator().manual_seed(1))
    assert dataset.shapes is not None
    to_own = dataset.views.scale / dataset.views.scale[batch // 3 * 3]  # the shapes are as large as in their first pictures
    own = Primitives(dataset.shapes.half_extents[batch // 3] * to_own[:, None], dataset.shapes.kind[batch // 3])
    met = intersect(own, rays_o, rays_d)[0]
    assert bool((met == inside).all())
    assert 0.2 < float(inside.float().mean()) < 0.8
    cameras = torch.stack([rays_o[:, 0], rays_o[:, 64]], dim=1)
    assert float((cameras[:, 0] - cameras[:, 1]).norm(dim=-1).min()) > 0.01, "two cameras"


@pytest.mark.parametrize("n_rays", [8, 9])
def test_own_pictures_get_the_odd_ray(n_rays: int) -> None:
    run = Run(dataclasses.replace(PAIR, n_rays=n_rays), synthetic_dataset(DATA), torch.device("cpu"))
    rays_o, *_ = run._rays(torch.arange(36), torch.Generator().manual_seed(1))
    own = (rays_o - run.views.c2w[:, None, :3, 3]).norm(dim=-1) < 1e-5
    assert own.sum(dim=1).tolist() == [n_rays - n_rays // 2] * 36
