"""Pictures from any camera, against a ball and a box in closed form."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdfsrn.geometry.pinholes import Pinhole
from sdfsrn.geometry.primitives import KINDS, Primitives, intersect
from sdfsrn.rendering.grids import GridField
from sdfsrn.rendering.rays import render_view, silhouette_minima
from tests.sdfsrn.data.scene import orbit

CENTRE, RADIUS = torch.tensor([0.1, -0.15, 0.05]), 0.45
CAMERA = Pinhole(np.array([[170.0, 0, 85], [0, 160.0, 60], [0, 0, 1]]), orbit(35, 25, 2.4), 180, 130)


def ball(points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
    """Of a true distance."""
    return torch.linalg.vector_norm(points - CENTRE, dim=-1) - RADIUS


def box(points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
    """Of half extents 0.5, 0.3, 0.02: a board thinner than the grid's cells."""
    beyond = points.abs() - torch.tensor([0.5, 0.3, 0.02])
    return torch.linalg.vector_norm(beyond.clamp(min=0), dim=-1) + beyond.amax(-1).clamp(max=0)


def _all_rays() -> tuple[Tensor, Tensor]:
    rows, columns = np.indices((CAMERA.height, CAMERA.width)).reshape(2, -1)
    return CAMERA.rays(rows, columns)


def test_a_balls_silhouette_depth_and_normals_are_exact() -> None:
    origins, directions = _all_rays()
    middle = -((origins - CENTRE) * directions).sum(-1)
    missed = ((origins - CENTRE).square().sum(-1) - middle.square()).sqrt() - RADIUS
    seen = render_view(ball, GridField(ball, 64), CAMERA)
    found = seen.minima.flatten()
    close = missed.abs() < CAMERA.pixel_width
    assert close.sum() > 200
    assert (found - missed)[close].abs().max() < 0.1 * CAMERA.pixel_width
    assert ((found < 0) == (missed < 0)).float().mean() > 0.9998
    hit = missed < -0.01
    t = middle - (RADIUS**2 - (missed + RADIUS).square()).clamp(min=0).sqrt()
    depth = t * (directions @ torch.from_numpy(CAMERA.forward.copy()).float())
    assert (seen.depth.flatten() - depth)[hit].abs().max() < 1e-3
    outward = (origins + t[:, None] * directions - CENTRE) / RADIUS
    assert (seen.normals.view(-1, 3) - outward)[hit].abs().max() < 5e-3
    assert seen.depth.flatten()[found > 0].isnan().all() and (seen.normals.view(-1, 3)[found > 0] == 0).all()


def test_a_thin_board_is_seen_whole() -> None:
    shape = Primitives(torch.tensor([[0.5, 0.3, 0.02]]), torch.tensor([KINDS.index("box")]))
    for azimuth in (0, 80, 90):
        camera = Pinhole(CAMERA.intrinsics, orbit(azimuth, 5, 2.4), CAMERA.width, CAMERA.height)
        rows, columns = np.indices((camera.height, camera.width)).reshape(2, -1)
        truth = intersect(shape, *(rays[None] for rays in camera.rays(rows, columns)))[0].view(camera.height, camera.width)
        found = silhouette_minima(box, GridField(box, 64), camera) < 0
        assert float((found & truth).sum() / (found | truth).sum()) > 0.99


def test_a_shape_out_of_sight_makes_an_empty_picture() -> None:
    away = Pinhole(CAMERA.intrinsics, orbit(0, 0, 2.4) @ np.diag([-1.0, 1, -1, 1]), 40, 30)
    seen = render_view(ball, GridField(ball, 64), away)
    assert (seen.minima > 0).all() and seen.depth.isnan().all()
    assert math.isfinite(float(seen.minima.max()))
