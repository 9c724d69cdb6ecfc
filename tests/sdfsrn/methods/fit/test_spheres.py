"""Spheres are fitted to one silhouette, and to several, from within and from anywhere."""

import torch

from sdfsrn.config import FitConfig
from sdfsrn.data.one_object import ObjectView, placed
from sdfsrn.fields.spheres import Spheres
from sdfsrn.fits import view_iou
from sdfsrn.methods.fit.spheres import SpheresFit
from sdfsrn.rendering.grids import GridField
from tests.sdfsrn.data import scene

CONFIG = FitConfig(representation="spheres", steps=150, n_rays=512, n_spheres=24)


def _iou(views: list[ObjectView], start: Spheres | None = None, config: FitConfig = CONFIG) -> float:
    run = SpheresFit(views, config, start)
    run.run(lambda _: None)
    grid = GridField(run.field)
    return min(view_iou(run.field, grid, view) for view in views)


def test_one_silhouette_is_explained() -> None:
    assert _iou(placed(scene.object_views(count=1)).views) > 0.97


def test_several_silhouettes_are_explained_by_the_same_spheres() -> None:
    assert _iou(placed(scene.object_views(12, scene.AROUND)).views) > 0.95


def test_spheres_that_start_apart_and_small_grow_onto_the_silhouette() -> None:
    views = placed(scene.object_views(count=1)).views
    across = torch.from_numpy(views[0].c2w[:3, :2].T.copy()).float()
    centres = torch.rand(24, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    start = Spheres(centres @ across, torch.full((24,), 0.03))
    before = GridField(start)
    assert view_iou(start, before, views[0]) < 0.3
    assert _iou(views, start, FitConfig(representation="spheres", steps=200, n_rays=512, learning_rate=0.01)) > 0.95
