"""Where any rays meet a field, to a tolerance: silhouettes and depths of pictures of any size from any camera."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdfsrn.geometry.pinholes import Pinhole
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.grids import GridField
from sdfsrn.rendering.silhouettes import MISS, along, brackets, evaluate, points_at, sharpen, stratified
from sdfsrn.rendering.views import field_normals

BLOCK = 4  # pixels per side that one ray may decide
SAMPLES = 64  # between a ray's entry to the ball of a grid and its exit
SHARPNESS = 0.05  # pixels: how far off a minimum at the outline may be
BISECTIONS = 10
RAYS_AT_ONCE = 32_768


def silhouette_minima(sdf: Sdf, grid: GridField, camera: Pinhole) -> Float[Tensor, "height width"]:
    """The smallest value of a field on each pixel's ray: of the right sign everywhere, and sharp beside the outline.

    One ray first decides each block of pixels: two rays of a block pass any place of the unit ball within a block's width of each
    other, so that where one is far inside or outside, the others are too.
    """
    height, width, block = camera.height, camera.width, BLOCK
    rows, columns = np.indices((-(-height // block), -(-width // block))).reshape(2, -1)
    origins, directions = camera.rays(rows * block + block // 2, columns * block + block // 2)
    coarse = _on_grid(grid, origins, directions).reshape(-(-height // block), -(-width // block))
    picture = coarse.repeat_interleave(block, 0).repeat_interleave(block, 1)[:height, :width].contiguous()
    reach = camera.pixel_width * block * (1 + 1 / float(np.linalg.norm(camera.place)))
    spacing = 2 * grid.radius / SAMPLES
    row, column = (picture.abs() < grid.lipschitz * (reach + spacing / 2) + grid.error).nonzero().numpy().T
    if len(row):
        rays_o, rays_d = camera.rays(row, column)
        picture[row, column] = ray_minima(sdf, grid, rays_o, rays_d, SHARPNESS * camera.pixel_width)
    return picture


def _on_grid(grid: GridField, rays_o: Float[Tensor, "n 3"], rays_d: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """The grid's smallest sample on each ray; of one that misses its ball, the value where it comes closest to that."""
    near, far, _ = grid.ball_interval(rays_o[None], rays_d[None])
    return along(grid, rays_o[None], rays_d[None], stratified(near, far, SAMPLES, None)).amin(-1)[0]


def ray_minima(
    sdf: Sdf, grid: GridField, rays_o: Float[Tensor, "n 3"], rays_d: Float[Tensor, "n 3"], tolerance: float
) -> Float[Tensor, " n"]:
    """The smallest value of a field on each ray, in units of `grid.slope`; a ray that misses the ball of the grid has MISS.

    Its sign is right where a ray passes the surface by `tolerance`, and within that of it the value is about as exact. Rays that
    lie further inside have what the grid says. `grid` is one of `sdf`.
    """
    parts = zip(rays_o.split(RAYS_AT_ONCE), rays_d.split(RAYS_AT_ONCE), strict=True)
    return torch.cat([_minima(sdf, grid, origins[None], directions[None], tolerance) for origins, directions in parts])


def _minima(sdf: Sdf, grid: GridField, rays_o: Tensor, rays_d: Tensor, tolerance: float) -> Tensor:
    near, far, meets = grid.ball_interval(rays_o, rays_d)
    minima = torch.full(near.shape[1:], MISS)
    rays_o, rays_d, near, far = (each[meets][None] for each in (rays_o, rays_d, near, far))
    if not near.numel():
        return minima
    t = stratified(near, far, SAMPLES, None)
    values = along(grid, rays_o, rays_d, t)
    found = values.amin(-1)[0]
    spacing = (far - near)[0] / SAMPLES
    # between two samples the grid may be lower by its slope times half their distance
    reach = grid.lipschitz * (tolerance**2 + (spacing / 2) ** 2).sqrt() + grid.error
    is_open = found > -grid.error - grid.lipschitz * tolerance
    ray, sample = brackets(torch.where(is_open[None, :, None], values, torch.inf), reach[None])
    if len(ray):
        places = t[0, ray, sample]
        low, high = places - spacing[ray], places + spacing[ray]
        span = torch.stack([torch.maximum(low, near[0, ray]), torch.minimum(high, far[0, ray])], dim=-1)
        field = grid.scaled(sdf)
        some_o, some_d = rays_o[0, ray], rays_d[0, ray]
        at = field((some_o + places[:, None] * some_d)[None])[0]
        sharp = sharpen(field, some_o, some_d, places, at, span, float(spacing.mean()), grid.lipschitz, tolerance)
        found[ray] = torch.inf
        found = found.scatter_reduce(0, ray, sharp, "amin")
    minima[meets[0]] = found
    return minima


def first_hits(sdf: Sdf, grid: GridField, rays_o: Float[Tensor, "n 3"], rays_d: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """The `t` at which rays that do enter the surface enter it first: found on the grid, bisected on the field."""
    parts = zip(rays_o.split(RAYS_AT_ONCE), rays_d.split(RAYS_AT_ONCE), strict=True)
    return torch.cat([_first(sdf, grid, origins[None], directions[None])[0] for origins, directions in parts])


def _first(sdf: Sdf, grid: GridField, rays_o: Tensor, rays_d: Tensor) -> Tensor:
    near, far, _ = grid.ball_interval(rays_o, rays_d, grid.margin)
    t = stratified(near, far, SAMPLES, None)
    values = along(grid, rays_o, rays_d, t)
    # a ray that only grazes the surface may be inside at none of these samples: it enters at its smallest one
    first = torch.where((values < 0).any(-1), (values < 0).float().argmax(-1), values.argmin(-1))[..., None]
    # beside the surface the grid may be on the wrong side: the bracket is then one sample further in, or out
    ends = torch.cat([(first - 1).clamp(min=0), first], dim=-1)
    at_ends = evaluate(sdf, points_at(rays_o, rays_d, t.gather(-1, ends)).flatten(1, 2)).view(ends.shape)
    early, late = (at_ends[..., :1] < 0).long(), (at_ends[..., 1:] >= 0).long()
    high = t.gather(-1, (first + late).clamp(max=SAMPLES - 1))[..., 0]
    before = first - 1 - early
    low = torch.where(before < 0, near[..., None], t.gather(-1, before.clamp(min=0)))[..., 0]
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        is_inside = evaluate(sdf, rays_o + middle[..., None] * rays_d) < 0
        low, high = torch.where(is_inside, low, middle), torch.where(is_inside, middle, high)
    return (low + high) / 2


@dataclass(frozen=True, eq=False)
class RenderedView:
    """What each pixel of a picture (height, width) sees first.

    `minima` are the smallest values on the rays, `depth` is along the camera's axis (NaN: background), `normals` are unit vectors
    in the world (0 there).
    """

    minima: Float[Tensor, "height width"]
    depth: Float[Tensor, "height width"]
    normals: Float[Tensor, "height width 3"]


def render_view(sdf: Sdf, grid: GridField, camera: Pinhole) -> RenderedView:
    """Silhouette, depth and normals of one shape as a camera sees it; `grid` is one of `sdf`."""
    minima = silhouette_minima(sdf, grid, camera)
    depth, normals = torch.full(minima.shape, torch.nan), torch.zeros(*minima.shape, 3)
    inside = minima < 0
    row, column = inside.nonzero().numpy().T
    if len(row):
        rays_o, rays_d = camera.rays(row, column)
        t = first_hits(sdf, grid, rays_o, rays_d)
        depth[inside] = t * (rays_d @ torch.from_numpy(camera.forward.copy()).float())
        normals[inside] = field_normals(sdf, (rays_o + t[:, None] * rays_d)[None])[0]
    return RenderedView(minima, depth, normals)
