"""Baselines on shapes where their answers can be worked out by hand."""

import dataclasses
from pathlib import Path

import pytest
import torch

from sdfsrn.config import SyntheticData
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.data.synthetic import make_views
from sdfsrn.evaluation.baselines import baselines, fit_extents, nearest_latents, visual_hull
from sdfsrn.evaluation.protocol import novel_rays
from sdfsrn.evaluation.report import compare_checkpoints
from sdfsrn.geometry.cameras import pixel_rays
from sdfsrn.geometry.primitives import intersect
from sdfsrn.networks.model import Model, ModelConfig
from sdfsrn.rendering.silhouettes import ray_minimum
from tests.sdfsrn.conftest import TinyTraining

DATA = SyntheticData(n_shapes=6, seed=11)


def test_the_hull_fills_its_own_mask_and_holds_the_shape() -> None:
    shapes, views = make_views(DATA)
    for i in range(1, 3):
        hull = visual_hull(views.masks[i], views.c2w[i], views.fovy_deg)
        own = ray_minimum(hull, *pixel_rays(views.c2w[i : i + 1], views.fovy_deg, views.size), 32) < 0
        assert (own.view(64, 64) == views.masks[i]).float().mean() > 0.999
        rays_o, rays_d = novel_rays(float(views.azimuth_deg[i]), views)
        truth = intersect(shapes[i : i + 1], rays_o, rays_d)[0]
        seen = ray_minimum(hull, rays_o, rays_d, 128) < 0
        assert (truth & ~seen).float().mean() < 1e-3, "a pixel's width of the outline at most"


def test_a_sphere_is_told_by_one_mask() -> None:
    shapes, views = make_views(dataclasses.replace(DATA, families=("sphere",)))
    found = fit_extents("sphere", views.masks[0], views.c2w[0], views.fovy_deg)
    torch.testing.assert_close(found.half_extents, shapes.half_extents[:1], atol=0.01, rtol=0)


def test_a_fit_explains_its_mask() -> None:
    _, views = make_views(DATA)
    found = fit_extents("box", views.masks[1], views.c2w[1], views.fovy_deg)
    again = intersect(found, *pixel_rays(views.c2w[1:2], views.fovy_deg, views.size))[0].view(64, 64)
    assert (again & views.masks[1]).sum() / (again | views.masks[1]).sum() > 0.97


def test_the_nearest_is_another_one() -> None:
    latents = torch.tensor([[0.0], [1.0], [3.0]])
    assert nearest_latents(latents, latents).tolist() == [1, 0, 1]
    many = torch.randn(60, 128, generator=torch.Generator().manual_seed(0)) * 10
    assert (nearest_latents(many, many) != torch.arange(60)).all(), "rounding does not make another of the very same"


@pytest.mark.slow
def test_all_baselines_of_spheres() -> None:
    """A sphere's mask is right from everywhere, up to the camera's perspective, which is the same; the hull is far too large."""
    data = synthetic_dataset(dataclasses.replace(DATA, families=("sphere",)))
    torch.manual_seed(0)
    found = baselines(Model(ModelConfig(8, 16)), data, data)
    assert found["input mask repeated"]["mean"] == pytest.approx(1, abs=0.03)
    assert found["fit of the right family"]["mean"] > 0.97
    assert found["visual hull of one mask"]["mean"] < 0.7
    assert found["nearest training shape"]["mean"] > 0.97, "in worlds in which their masks have one radius, all balls are one"
    assert found["mean shape"]["worst"] > 0.95


@pytest.mark.slow
def test_a_table_of_two_checkpoints(tiny_training: TinyTraining, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny_training.checkpoint.read_bytes())
    found = compare_checkpoints([tiny_training.checkpoint, other], SyntheticData(n_shapes=3, seed=5), tmp_path)
    assert found[str(tiny_training.checkpoint)] == found[str(other)]
    assert len(found) == 7
    assert {file.name for file in tmp_path.iterdir()} >= {"evaluation.json", "novel_views.png"}
