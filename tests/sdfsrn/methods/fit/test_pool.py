"""Which rays a fit draws, against the masks that they were taken from."""

import numpy as np
import torch

from sdfsrn.data.one_object import placed
from sdfsrn.methods.fit import pool
from sdfsrn.methods.fit.pool import NEAR_OUTLINE, RayPool
from tests.sdfsrn.data import scene

VIEWS = placed(scene.object_views()).views


def test_rays_know_whether_they_meet_the_object() -> None:
    """Of the true scene, in closed form, taken to the unit ball's world."""
    found = placed(scene.object_views())
    to_ball = np.linalg.inv(found.to_sent)
    rays = RayPool(found.views, seed=0).draw(4_000, torch.Generator().manual_seed(0))
    assert torch.allclose(torch.linalg.vector_norm(rays.directions, dim=-1), torch.ones(len(rays.inside)), atol=1e-6)
    meets = torch.zeros(len(rays.inside), dtype=torch.bool)
    for centre, radius in scene.BALLS:
        away = rays.origins - torch.from_numpy((to_ball @ [*centre, 1.0])[:3]).float()
        along = (away * rays.directions).sum(-1)
        meets |= along.square() - away.square().sum(-1) + (radius * to_ball[0, 0]) ** 2 >= 0
    assert (meets == rays.inside).float().mean() > 0.999


def test_three_quarters_run_near_an_outline() -> None:
    """Near means that a pixel of the other kind is a few pixels away."""
    drawn = RayPool(VIEWS, seed=0).draw(4_000, torch.Generator().manual_seed(0))
    near, others = drawn.inside[: round(4_000 * NEAR_OUTLINE)], drawn.inside[round(4_000 * NEAR_OUTLINE) :]
    assert 0.35 < near.float().mean() < 0.65, "both sides of the outline"
    assert len(others) == 1_000 and 0.05 < others.float().mean() < 0.95


def test_all_views_are_drawn_from_and_the_same_seed_draws_the_same() -> None:
    chosen = RayPool(VIEWS, seed=3)
    rays = chosen.draw(2_000, torch.Generator().manual_seed(1))
    places = {tuple(view.c2w[:3, 3].astype(np.float32).tolist()) for view in VIEWS}
    assert {tuple(origin.tolist()) for origin in rays.origins} == places
    again = RayPool(VIEWS, seed=3).draw(2_000, torch.Generator().manual_seed(1))
    assert all(torch.equal(one, other) for one, other in zip(rays, again, strict=True))


def test_memory_has_a_limit(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(pool, "MOST", 600)
    small = RayPool(VIEWS, seed=0)
    assert all(len(view) <= 600 for view, _, _ in small._kinds)
