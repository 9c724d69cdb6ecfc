"""What the trainings that the recipe is compared with are told."""

import pytest
import torch

from sdfsrn.config import SdfSrnConfig, SyntheticData
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import pixel_rays
from sdfsrn.geometry.primitives import intersect
from sdfsrn.training.sdf_srn import Drawn
from tests.benchmarks.machine import DEVICE
from tests.benchmarks.plain import CountingRun, EqualRaysRun, PickingRun, PlainRun
from tests.benchmarks.recipes import CeilingRun

BATCH = torch.arange(6)


def drawn_by(kind: type[PlainRun]) -> tuple[PlainRun, Drawn]:
    run = kind(SdfSrnConfig(), synthetic_dataset(SyntheticData(n_shapes=6)), DEVICE)
    return run, run._draw(BATCH, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [EqualRaysRun, PickingRun])
def test_opponents_waste_no_ray(kind: type[PlainRun]) -> None:
    run, drawn = drawn_by(kind)
    assert drawn.rays_d.shape[:2] == (6, run.config.n_rays)
    assert unit_sphere_interval(drawn.rays_o, drawn.rays_d)[2].all()


def test_whole_pictures_are_all_rays_that_meet_the_sphere_and_no_other_is_in_the_loss() -> None:
    run, drawn = drawn_by(CountingRun)
    _, _, met = unit_sphere_interval(drawn.rays_o, drawn.rays_d)
    everywhere = pixel_rays(run.views.c2w[BATCH], run.views.fovy_deg, run.views.size)
    assert torch.equal(met.sum(dim=1), unit_sphere_interval(*everywhere)[2].sum(dim=1))
    with torch.no_grad():
        minima, inside = run._rendered(run.model.encode(drawn.images), drawn)
    assert not met.all() and minima.shape == inside.shape == (1, int(met.sum()))
    assert torch.equal(inside[0], drawn.inside[met])


def test_counting_has_the_gradients_of_whole_pictures() -> None:
    data, few = synthetic_dataset(SyntheticData(n_shapes=2)), torch.arange(2)
    runs = [kind(SdfSrnConfig(n_samples=4), data, DEVICE) for kind in (PlainRun, CountingRun)]
    (loss, plain), (counted_loss, counted) = (run._gradients(run._draw(few, torch.Generator().manual_seed(0)), 1.0) for run in runs)
    assert torch.allclose(loss, counted_loss, atol=1e-6)
    for one, other in zip(plain, counted, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


def test_the_ceiling_is_told_views_of_one_world() -> None:
    dataset = synthetic_dataset(SyntheticData(n_shapes=3, views_per_shape=24))
    told = CeilingRun(SdfSrnConfig(), dataset, DEVICE).told.views
    assert dataset.shapes is not None
    for i in range(3):
        own = told[slice(24 * i, 24 * i + 24)]
        for c2w, mask in zip(own.c2w, own.masks, strict=True):
            seen, _, _ = intersect(dataset.shapes[i : i + 1], *pixel_rays(c2w[None], own.fovy_deg, own.size))
            assert int((seen[0] != mask.flatten()).sum()) <= 1, "the outline may run through a pixel's centre"
