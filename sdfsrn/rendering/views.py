"""Finished pictures of one shape: silhouettes, depth and normals, at a cost far below evaluating every sample of every ray.

A grid of the field finds where each ray comes closest to the surface; coarse rays decide whole blocks of pixels that lie far
from the outline; the field itself is asked only where it matters, at the picked samples.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdfsrn.config import View
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import chosen_rays, orbit_c2w, pixel_rays
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.grids import GridField
from sdfsrn.rendering.silhouettes import MISS, along, brackets, evaluate, first_and_last, pick_minimum, sharpen, stratified
from sdfsrn.threads import free_threads, share_out, undivided_operations

BLOCKS = (8, 4)  # pixels per side that one coarse ray may decide, each a multiple of the next
WIDEST = 0.15  # of these blocks, scene units: far beside a ray it says little
SAMPLES = 48  # along the unit sphere's diameter
SPACING = 2 / SAMPLES  # at most, scene units
STEPS = (12, 24, 36, SAMPLES)  # of them: what a ray is searched with that need be on a part of the diameter only
FINER = 8  # samples between the neighbours of one that may be a ray's smallest
OUTLINE = 1.25  # pixels beside the outline: beyond them a softened silhouette is within 2/255 of black or white
SHARP = 0.75  # pixels beside the outline: further out a soft edge hardly changes, and the first look is enough
SHARPNESS = 0.05  # pixels: how far off a minimum at the outline may be
BISECTIONS = 8
RAYS_AT_ONCE = 32_768


@dataclass(frozen=True)
class Camera:
    """Square pictures of `size` pixels per side from poses `c2w` (batch, 4, 4)."""

    c2w: Float[Tensor, "batch 4 4"]
    fovy_deg: float
    size: int

    @classmethod
    def on_orbit(cls, views: Sequence[View], distance: float, fovy_deg: float, size: int, device: torch.device) -> "Camera":
        """Looking at the object's centre from `distance` scene units."""
        azimuth = torch.tensor([float(view.azimuth_deg) for view in views])
        elevation = torch.tensor([float(view.elevation_deg) for view in views])
        return cls(orbit_c2w(azimuth, elevation, distance).to(device), fovy_deg, size)

    def rays(self) -> tuple[Float[Tensor, "1 rays 3"], Float[Tensor, "1 rays 3"]]:
        """All rays of all views as those of one shape."""
        rays_o, rays_d = pixel_rays(self.c2w, self.fovy_deg, self.size)
        return rays_o.reshape(1, -1, 3), rays_d.reshape(1, -1, 3)

    def distance(self) -> float:
        """From the object's centre, scene units."""
        return float(torch.linalg.vector_norm(self.c2w[0, :3, 3]))

    def pixel_width(self) -> float:
        """Of one pixel at the object's centre, scene units."""
        return 2 * self.distance() * math.tan(math.radians(self.fovy_deg) / 2) / self.size


def share_views(work: Callable[[Camera], Tensor], camera: Camera) -> Tensor:
    """`work(camera)` of all views; on a CPU each thread takes its share of the views from beginning to end.

    Where there are fewer views than threads, `work` has to share out what it can.
    """
    threads = free_threads()
    if camera.c2w.device.type != "cpu" or len(camera.c2w) < threads:
        return work(camera)
    with undivided_operations():
        return torch.cat(share_out(work, [replace(camera, c2w=poses) for poses in camera.c2w.tensor_split(threads)]))


def minimum_picture(sdf: Sdf, grid: GridField, camera: Camera) -> Float[Tensor, "batch size size"]:
    """The smallest distance on each pixel's ray, scene units: the field's beside the outline, of the right sign elsewhere.

    At the outline it is exact to SHARPNESS. Distances are the field divided by the grid's `slope`.
    """
    return share_views(functools.partial(_minimum_picture, sdf, grid), camera)


def _minimum_picture(sdf: Sdf, grid: GridField, camera: Camera) -> Float[Tensor, "batch size size"]:
    n_views, size, width = len(camera.c2w), camera.size, camera.pixel_width()
    blocks = [*(block for block in BLOCKS if block * width <= WIDEST), 1]
    n_blocks = -(-size // blocks[0])
    picture = torch.zeros(n_views, n_blocks, n_blocks, device=camera.c2w.device)
    low, high, tolerance = torch.zeros_like(picture), torch.full_like(picture, torch.inf), math.inf
    for block, finer in itertools.pairwise(blocks):
        # in the unit sphere no two rays of a block are further apart than behind its centre
        reach = (1 + 1 / camera.distance()) * block / math.sqrt(2) * width
        undecided = picture.abs() < tolerance
        rays_o, rays_d = (rays[None] for rays in chosen_rays(camera.c2w, camera.fovy_deg, size, undecided, block))
        found = _block_minima(grid, rays_o, rays_d, low[undecided][None], high[undecided][None], reach)
        for part, value in zip((picture, low, high), found, strict=True):
            part[undecided] = value[0]
        picture, low, high = (_spread(part, block // finer, -(-size // finer)) for part in (picture, low, high))
        tolerance = _at_most(grid, reach, SPACING)
    undecided = picture.abs() < tolerance
    rays_o, rays_d = (rays[None] for rays in chosen_rays(camera.c2w, camera.fovy_deg, size, undecided))
    near, far, meets = unit_sphere_interval(rays_o, rays_d)
    low, high = (torch.clamp(end[undecided][None], near, far) for end in (low, high))
    picture[undecided] = torch.where(meets, _ray_minima(sdf, grid, rays_o, rays_d, low, high, width), MISS)[0]
    return picture


def _at_most(grid: GridField, beside: float, spacing: float | Tensor) -> Any:
    """The most that the grid's smallest sample on a ray can be, if the ray passes a surface at a distance of `beside`.

    Where it comes closest, the way to the surface is at right angles to it, and a sample is half the spacing away at most.
    """
    return grid.lipschitz * (beside**2 + (spacing / 2) ** 2) ** 0.5 + grid.error


def _spread(blocks: Float[Tensor, "batch n n"], times: int, size: int) -> Float[Tensor, "batch size size"]:
    return blocks.repeat_interleave(times, 1).repeat_interleave(times, 2)[:, :size, :size].contiguous()


def _block_minima(
    grid: GridField, rays_o: Tensor, rays_d: Tensor, low: Tensor, high: Tensor, reach: float
) -> tuple[Float[Tensor, "1 n"], Float[Tensor, "1 n"], Float[Tensor, "1 n"]]:
    """For one ray per block of pixels: its minimum, and between which `t` a ray of the block may have its own.

    It is between `low` and `high`. A ray `reach` beside it cannot be lowest where it is higher above its own minimum than both
    can differ. The ball is searched with a margin, else a ray that just touches it would speak for others that go deep.
    """
    slack = grid.lipschitz * reach + _at_most(grid, reach, SPACING) + grid.error
    near, far, reaches = grid.ball_interval(rays_o, rays_d, reach)
    low, high = torch.clamp(low, near, far), torch.clamp(high, near, far)
    minima = evaluate(grid, rays_o + near[..., None] * rays_d)  # of a ray that misses the ball, where it is nearest
    begin, end = torch.zeros_like(near), torch.full_like(near, torch.inf)
    for part, n_samples in _by_length(low, high):
        part &= reaches
        t = stratified(low[part][None], high[part][None], n_samples, None)
        values = along(grid, rays_o[part][None], rays_d[part][None], t)
        minima[part] = values.amin(-1)[0]
        ends = t.gather(-1, first_and_last(values < minima[part][None, :, None] + slack))
        spacing = t[..., 1] - t[..., 0]
        begin[part], end[part] = (ends[..., 0] - spacing)[0], (ends[..., 1] + spacing)[0]
    return minima, begin, end


def _ray_minima(
    sdf: Sdf, grid: GridField, rays_o: Tensor, rays_d: Tensor, low: Tensor, high: Tensor, width: float
) -> Float[Tensor, "1 n"]:
    """The smallest value between `low` and `high`: the grid's, and beside the outline the field's; a pixel has `width`.

    A ray may pass the surface more than once: each of its minima that may be the smallest is looked at.
    """
    minima = torch.empty_like(low)
    found = []
    for part, n_samples in _by_length(low, high):
        part_o, part_d, part_low, part_high = (ends[part][None] for ends in (rays_o, rays_d, low, high))
        t = stratified(part_low, part_high, n_samples, None)
        values = along(grid, part_o, part_d, t)
        minima[part] = values.amin(-1)[0]
        spacing = (part_high - part_low) / n_samples
        ray, sample = brackets(values, _at_most(grid, OUTLINE * width, spacing))
        step = spacing[0, ray]
        found.append((part[0].nonzero()[ray, 0], t[0, ray, sample] - step, t[0, ray, sample] + step))
    if not found:
        return minima  # there are no rays
    ray, begin, end = (torch.cat(each) for each in zip(*found, strict=True))
    span = torch.stack([torch.maximum(begin, low[0, ray]), torch.minimum(end, high[0, ray])], dim=-1)
    several = _sharp_minima(sdf, grid, rays_o[0, ray], rays_d[0, ray], span, width)
    minima[0, ray] = torch.inf
    minima[0] = minima[0].scatter_reduce(0, ray, several, "amin")
    return minima


def _sharp_minima(
    sdf: Sdf, grid: GridField, rays_o: Tensor, rays_d: Tensor, span: Tensor, width: float
) -> Float[Tensor, " n"]:
    """The smallest value within each `span` of `t`: the grid's, and beside the outline the field's."""
    outline = OUTLINE * width
    samples = stratified(span[None, :, 0], span[None, :, 1], FINER, None)
    t, smallest = (found[0] for found in pick_minimum(grid, rays_o[None], rays_d[None], samples))
    spacing = (span[:, 1] - span[:, 0]) / FINER
    close = (smallest < _at_most(grid, outline, spacing)) & (smallest > -grid.lipschitz * outline - grid.error)
    t, span, rays_o, rays_d = (each[close] for each in (t, span, rays_o, rays_d))
    field = grid.scaled(sdf)
    values = field((rays_o + t[:, None] * rays_d)[None])[0]
    # the field's minimum is no lower than the grid's may be, and at most half a cell beside the grid's
    sharp = SHARP * width
    highest = min(sharp + 2 * grid.error, grid.lipschitz * math.hypot(sharp, grid.margin / 2))
    near = (values > -sharp) & (values < highest)
    t, at, span, rays_o, rays_d = (each[near] for each in (t, values, span, rays_o, rays_d))
    values[near] = sharpen(field, rays_o, rays_d, t, at, span, grid.margin / 2, grid.lipschitz, SHARPNESS * width)
    smallest[close] = values
    return smallest


def _by_length(low: Tensor, high: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Which rays need which number of samples between `low` and `high`."""
    lengths = torch.tensor(STEPS[:-1], device=low.device) * 2 / SAMPLES
    steps = torch.bucketize(high - low, lengths + 1e-4)
    for i, n_samples in enumerate(STEPS):
        part = steps == i
        if part.any():
            yield part, n_samples


@dataclass(frozen=True)
class Surface:
    """What each pixel's ray hits first: `depth` along the camera's axis (NaN: background), world-frame unit `normals` (0 there)."""

    hit: Bool[Tensor, "batch size size"]
    depth: Float[Tensor, "batch size size"]
    normals: Float[Tensor, "batch size size 3"]


def surface_picture(sdf: Sdf, grid: GridField, camera: Camera, minima: Float[Tensor, "batch size size"]) -> Surface:
    """Depth and normals at each ray's first crossing: found on the grid, sharpened on the field by bisection.

    `minima` is the camera's `minimum_picture`; only rays that it says are inside are followed.
    """
    rays_o, rays_d = camera.rays()
    near, far, _ = unit_sphere_interval(rays_o, rays_d)
    hit = (minima < 0).reshape(1, -1)
    t = torch.full_like(near, float("nan"))
    parts = zip(*(rays[hit].split(RAYS_AT_ONCE) for rays in (rays_o, rays_d, near, far)), strict=True)
    t[hit] = torch.cat([_first_crossing(sdf, grid, *(rays[None] for rays in part))[0] for part in parts])
    points = (rays_o + t[..., None] * rays_d)[hit]
    normals = torch.zeros_like(rays_o)
    if len(points):
        normals[hit] = field_normals(sdf, points[None])[0]
    forward = -camera.c2w[:, None, None, :3, 2]
    shape = (len(camera.c2w), camera.size, camera.size)
    depth = t.view(shape) * (rays_d.view(*shape, 3) * forward).sum(-1)
    return Surface(hit.view(shape), torch.where(hit.view(shape), depth, torch.nan), normals.view(*shape, 3))


def _first_crossing(sdf: Sdf, grid: GridField, rays_o: Tensor, rays_d: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """The `t` at which rays that do enter the surface enter it first."""
    t = stratified(near, far, SAMPLES, None)
    values = along(grid, rays_o, rays_d, t)
    # A ray that only grazes the surface may be inside at none of these samples: it enters at its smallest one.
    first = torch.where((values < 0).any(-1), (values < 0).float().argmax(-1), values.argmin(-1))[..., None]
    high = t.gather(-1, first)[..., 0]
    low = torch.where(first == 0, near[..., None], t.gather(-1, (first - 1).clamp(min=0)))[..., 0]
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        is_inside = evaluate(sdf, rays_o + middle[..., None] * rays_d) < 0
        low, high = torch.where(is_inside, low, middle), torch.where(is_inside, middle, high)
    return (low + high) / 2


def field_normals(sdf: Sdf, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 3"]:
    """The field's unit gradient, outward at the surface."""
    parts = []
    for part in points.split(65_536, dim=1):
        leaf = part.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(sdf(leaf).sum(), leaf)
        parts.append(torch.nn.functional.normalize(gradient, dim=-1))
    return torch.cat(parts, dim=1)
