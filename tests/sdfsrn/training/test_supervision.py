"""Whose masks teach a picture's shape: its own, or half of the time those of another picture of the same object."""

import dataclasses
from pathlib import Path

import pytest
import torch

from sdfsrn.config import SyntheticData
from sdfsrn.data.dataset import Dataset, open_dataset, save_dataset, synthetic_dataset
from sdfsrn.data.views import TrainingViews
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.geometry.primitives import KINDS, Primitives, intersect
from sdfsrn.images import TILE
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
    with pytest.raises(ValueError, match=r"supervision is 'pair', .* every object has one picture \(12 objects\); choose 'own'"):
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


def _from_its_end(tmp_path: Path) -> tuple[Dataset, Primitives]:
    """A long box, walked around at unequal distances, saved and read as an upload is; and the box in the world of each picture."""
    distances = torch.tensor([4.0, 1.7, 3.0, 2.2])
    azimuth_deg, elevation_deg = torch.tensor([0.0, 90.0, 180.0, 250.0]), torch.tensor([0.0, 5.0, 20.0, 10.0])
    c2w, box = orbit_c2w(azimuth_deg, elevation_deg, distances), torch.tensor([[0.25, 0.2, 0.85]])
    shown = Primitives(box.expand(4, 3), torch.full((4,), KINDS.index("box")))
    masks = intersect(shown, *pixel_rays(c2w, 60.0, 64))[0].view(4, 64, 64)
    tiles = torch.zeros(4, 3, TILE, TILE, dtype=torch.uint8)
    views = TrainingViews(tiles, masks, c2w, azimuth_deg, elevation_deg, torch.ones(4), 2.5, 60.0)
    save_dataset(views, ["box"] * 4, tmp_path / "views")
    dataset = open_dataset(tmp_path / "views")
    return dataset, Primitives(shown.half_extents * dataset.views.scale[:, None], shown.kind)


def test_what_reaches_out_of_the_unit_sphere_is_not_asked_for(tmp_path: Path) -> None:
    """Seen from its end an object is large in its world: what another picture sees beyond the sphere is never rendered."""
    dataset, boxes = _from_its_end(tmp_path)
    run, batch = Run(PAIR, dataset, torch.device("cpu")), torch.arange(4).repeat(50)
    rays_o, rays_d, inside, _ = run._rays(batch, torch.Generator().manual_seed(2))
    met = intersect(Primitives(boxes.half_extents[batch], boxes.kind[batch]), rays_o, rays_d)[0]
    _, _, meets = unit_sphere_interval(rays_o, rays_d)
    assert bool((inside == (met & meets)).all())
    assert 0.02 < float((met & ~meets).float().mean()) < 0.3, "there are such rays"
    assert float(meets[:, PAIR.n_rays // 2 :].float().mean()) > 0.7, "few rays teach nothing"


def test_pairs_go_on_from_a_checkpoint_to_the_bit() -> None:
    dataset, device = synthetic_dataset(DATA), torch.device("cpu")
    whole, first, second = (Run(PAIR, dataset, device) for _ in range(3))
    for run in (whole, whole, first):
        run.train_epoch()
    second.restore(first.checkpoint())
    second.train_epoch()
    for name, value in whole.checkpoint().weights.items():
        assert torch.equal(value, second.checkpoint().weights[name]), name


def test_another_grouping_is_another_data_set(tmp_path: Path) -> None:
    views = _from_its_end(tmp_path)[0].views
    digests = set()
    for subjects in (["a"] * 4, ["a", "a", "b", "b"], ["a", "b", "c", "d"]):
        save_dataset(views, subjects, tmp_path / "grouped")
        digests.add(open_dataset(tmp_path / "grouped").digest)
    assert len(digests) == 3


@pytest.mark.parametrize("n_rays", [8, 9])
def test_own_pictures_get_the_odd_ray(n_rays: int) -> None:
    run = Run(dataclasses.replace(PAIR, n_rays=n_rays), synthetic_dataset(DATA), torch.device("cpu"))
    rays_o, *_ = run._rays(torch.arange(36), torch.Generator().manual_seed(1))
    own = (rays_o - run.views.c2w[:, None, :3, 3]).norm(dim=-1) < 1e-5
    assert own.sum(dim=1).tolist() == [n_rays - n_rays // 2] * 36
