"""The loop of a fit: what it learns of three balls, how it searches rays, how it ends."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sdfsrn.config import FitConfig
from sdfsrn.data.one_object import placed
from sdfsrn.fits import view_iou
from sdfsrn.methods.fit.neural import NeuralFit
from sdfsrn.rendering.grids import GridField
from tests.sdfsrn.data import scene

FOUND = placed(scene.object_views(12, scene.AROUND))
SMALL = FitConfig(steps=100, hidden_dim=64, n_rays=1024)


@pytest.fixture(scope="module")
def fitted() -> NeuralFit:
    """A fit that has ended."""
    run = NeuralFit(FOUND.views, SMALL)
    run.run(lambda _: None)
    return run


def test_three_balls_are_found_in_space(fitted: NeuralFit) -> None:
    """IoU with the true balls, in closed form, at random points: twelve silhouettes of 96 x 72 pixels."""
    points = 2 * torch.rand(1, 20_000, 3, generator=torch.Generator().manual_seed(0)) - 1
    points = points[points.norm(dim=-1) < 1][None]
    to_ball = np.linalg.inv(FOUND.to_sent)
    truth = torch.zeros(points.shape[1], dtype=torch.bool)
    for centre, radius in scene.BALLS:
        middle = torch.from_numpy((to_ball @ [*centre, 1.0])[:3]).float()
        truth |= (points[0] - middle).norm(dim=-1) < radius * to_ball[0, 0]
    found = fitted.averaged(points)[0] < 0
    assert (found & truth).sum() / (found | truth).sum() > 0.85
    assert fitted.history[-1]["silhouette"] < 0.01
    assert 0.75 < GridField(fitted.averaged).slope < 1.25, "nearly a distance beside the surface"


def test_the_search_finds_the_lowest_place_of_a_ray(fitted: NeuralFit) -> None:
    """Against the network itself at two thousand places of each ray."""
    run = fitted
    run.grid = GridField(run.network.search_sdf(torch.float32), 64)
    rays = run.pool.draw(200, torch.Generator().manual_seed(5))
    t = run._search(rays, torch.rand(200, 40, generator=torch.Generator().manual_seed(6)))
    places = torch.linspace(0, 5, 2_000)
    with torch.no_grad():
        exact = run.network(rays.origins[:, None] + places[:, None] * rays.directions[:, None])
        inside = (rays.origins[:, None] + places[:, None] * rays.directions[:, None]).norm(dim=-1) < 1
        exact = torch.where(inside, exact, torch.inf).amin(dim=-1)
        found = run.network((rays.origins + t[:, None] * rays.directions)[None])[0]
    off = found - exact
    assert float(off.median()) < 5e-4 and float(off.quantile(0.95)) < 5e-3


def test_a_time_limit_ends_the_steps_and_lowers_the_rate() -> None:
    run = NeuralFit(FOUND.views, FitConfig(steps=100_000, seconds=1.0, hidden_dim=16, n_rays=64))
    rates = []
    run.run(lambda each: rates.append(each.optimizer.param_groups[0]["lr"]))
    assert 5 < run.step < 10_000
    assert rates[-1] < 0.1 * max(rates)


def test_the_temperature_falls_to_a_part_of_a_pixel() -> None:
    run = NeuralFit(FOUND.views, FitConfig(steps=100, hidden_dim=16, n_rays=64))
    first = run.temperature
    run.step = 100
    assert run.temperature < first
    assert run.temperature < run.pixel


def test_tracing_finds_the_same_places_as_samples(fitted: NeuralFit) -> None:
    """The two renderers of one field agree: the values where they say that rays are lowest, and what a fit with either reaches."""
    rays = fitted.pool.draw(400, torch.Generator().manual_seed(7))
    jitter = torch.rand(400, 40, generator=torch.Generator().manual_seed(8))
    fitted.grid = GridField(fitted.network.search_sdf(torch.float32), 64)
    values = []
    for config in (SMALL, replace(SMALL, ray_search="tracing")):
        fitted.config = config
        t = fitted._search(rays, jitter)
        with torch.no_grad():
            values.append(fitted.network((rays.origins + t[:, None] * rays.directions)[None])[0])
    off = (values[0] - values[1]).abs()
    assert float(off.median()) < 1e-3 and float(off.quantile(0.9)) < 0.02
    assert ((values[0] < 0) == (values[1] < 0)).float().mean() > 0.98


@pytest.mark.slow
def test_a_fit_that_traces_rays_explains_the_views() -> None:
    run = NeuralFit(FOUND.views, replace(SMALL, ray_search="tracing", steps=60, n_rays=512))
    run.run(lambda _: None)
    grid = GridField(run.field)
    assert min(view_iou(run.field, grid, view) for view in FOUND.views[:3]) > 0.95


def test_the_same_seed_makes_the_same_fit() -> None:
    few = FitConfig(steps=12, hidden_dim=32, n_rays=256)
    one, other = (NeuralFit(FOUND.views[:3], few) for _ in range(2))
    for run in (one, other):
        run.run(lambda _: None)
    assert one.history == other.history
    assert all(torch.equal(*pair) for pair in zip(one.averaged.parameters(), other.averaged.parameters(), strict=True))
