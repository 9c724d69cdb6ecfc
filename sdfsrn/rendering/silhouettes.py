"""Soft silhouettes with one differentiable sample per ray.

After DFR (Wu & Sun 2020): rays are tested against the unit sphere, sampled in strata of which each ray and stratum has its own
jitter (eq. 2), samples are evaluated without a graph, and one picked sample per ray again with it (eq. 3-5). Picked is the
minimum, for hit and miss alike, so that what is rendered is the silhouette of Mini SDF-SRN, sigmoid(-min_sdf / temperature).
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.rendering import Sdf

# Points evaluated at once without a graph: small enough for the activations to stay in the processor's cache.
CHUNK = 8_192

# The signed distance of rays that miss the unit sphere: far outside at any temperature in use.
MISS = 1.0


def evaluate(sdf: Sdf, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
    """The field without a graph, in chunks."""
    step = CHUNK // points.shape[0] if points.device.type == "cpu" else points.shape[1]
    with torch.no_grad():
        return torch.cat([sdf(part) for part in points.split(max(1, step), dim=1)], dim=1)


def stratified(
    near: Float[Tensor, "*rays"], far: Float[Tensor, "*rays"], n_samples: int, generator: torch.Generator | None
) -> Float[Tensor, "*rays n_samples"]:
    """One `t` in each of `n_samples` equal segments, near to far; jittered with a generator (a CPU one), else at mid-segment."""
    if generator is None:
        offset = torch.full((1,), 0.5, device=near.device)
    else:
        offset = torch.rand(*near.shape, n_samples, generator=generator).to(near.device)
    fraction = (torch.arange(n_samples, device=near.device) + offset) / n_samples
    return near[..., None] + (far - near)[..., None] * fraction


def points_at(
    rays_o: Float[Tensor, "*rays 3"], rays_d: Float[Tensor, "*rays 3"], t: Float[Tensor, "*rays samples"]
) -> Float[Tensor, "*rays samples 3"]:
    """Where samples of rays lie."""
    return rays_o[..., None, :] + t[..., None] * rays_d[..., None, :]


def along(
    sdf: Sdf,
    rays_o: Float[Tensor, "batch n 3"],
    rays_d: Float[Tensor, "batch n 3"],
    t: Float[Tensor, "batch n samples"],
) -> Float[Tensor, "batch n samples"]:
    """The field at samples of rays, without a graph; at no time are all points in memory."""
    at_once = max(1, 16 * CHUNK // (t.shape[0] * t.shape[2]))  # rays of each picture: their samples are a handful of chunks
    parts = zip(*(each.split(at_once, 1) for each in (rays_o, rays_d, t)), strict=True)
    return torch.cat([evaluate(sdf, points_at(*part).flatten(1, 2)).view(part[2].shape) for part in parts], dim=1)


def lowest(
    values: Float[Tensor, "batch n samples"], t: Float[Tensor, "batch n samples"]
) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n"]]:
    """The `t` of each ray's smallest sample and the value there."""
    smallest, index = values.min(dim=-1)
    return t.gather(-1, index[..., None])[..., 0], smallest


def pick_minimum(
    sdf: Sdf,
    rays_o: Float[Tensor, "batch n 3"],
    rays_d: Float[Tensor, "batch n 3"],
    t: Float[Tensor, "batch n samples"],
) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n"]]:
    """`lowest` of the field `along` rays."""
    return lowest(along(sdf, rays_o, rays_d, t), t)


def seek_minimum(
    sdf: Sdf,
    rays_o: Float[Tensor, "batch n 3"],
    rays_d: Float[Tensor, "batch n 3"],
    t: Float[Tensor, "batch n samples"],
) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n"]]:
    """`pick_minimum` from little more than half of the samples: every second one, and the two beside the smallest of these.

    For where either of two nearly equal minima will do: a true distance changes no faster than its ray goes on, so what is
    skipped is smaller by less than the way from one sample to the next. `t` rises along a ray.
    """
    coarse = along(sdf, rays_o, rays_d, t[..., ::2])
    middle = 2 * coarse.argmin(dim=-1, keepdim=True)
    beside = torch.cat([(middle - 1).clamp(min=0), (middle + 1).clamp(max=t.shape[-1] - 1)], dim=-1)
    t_beside = t.gather(-1, beside)
    values = torch.cat([coarse.amin(dim=-1, keepdim=True), along(sdf, rays_o, rays_d, t_beside)], dim=-1)
    return lowest(values, torch.cat([t.gather(-1, middle), t_beside], dim=-1))


def inside_span(
    values: Float[Tensor, "batch n samples"], t: Float[Tensor, "batch n samples"]
) -> tuple[Float[Tensor, "batch n 2"], Bool[Tensor, "batch n"]]:
    """The `t` of each ray's first and last sample inside, and whether it has any; `t` rises along a ray."""
    inside = values < 0
    return t.gather(-1, first_and_last(inside)), inside.any(dim=-1)


def first_and_last(chosen: Bool[Tensor, "batch n samples"]) -> Int64[Tensor, "batch n 2"]:
    """The places of each ray's first and last chosen sample; of a ray that has none, all of it."""
    marks = chosen.to(torch.uint8)
    return torch.stack([marks.argmax(-1), chosen.shape[-1] - 1 - marks.flip(-1).argmax(-1)], dim=-1)


def ray_minimum(
    sdf: Sdf,
    rays_o: Float[Tensor, "batch n 3"],
    rays_d: Float[Tensor, "batch n 3"],
    n_samples: int,
    generator: torch.Generator | None = None,
    search: Sdf | None = None,
) -> Float[Tensor, "batch n"]:
    """The smallest signed distance among each ray's samples, differentiable in whatever `sdf` depends on (not in the rays).

    `search`, a cheaper version of `sdf`, picks the samples in its stead; the values returned are always those of `sdf`.
    A ray that misses the unit sphere meets nothing and gets the constant MISS.
    """
    near, far, meets = unit_sphere_interval(rays_o, rays_d)
    t = stratified(near, far, n_samples, generator)
    reached = meets.any(dim=0)  # whole pictures have corners that look past the sphere
    rays_o, rays_d = rays_o[:, reached], rays_d[:, reached]
    t_picked, _ = pick_minimum(search or sdf, rays_o, rays_d, t[:, reached])
    picked = sdf(rays_o + t_picked[..., None] * rays_d)
    minima = torch.full(meets.shape, MISS, dtype=picked.dtype, device=picked.device)
    minima[:, reached] = picked
    return torch.where(meets, minima, MISS)


def soft_silhouette(min_sdf: Float[Tensor, "..."], temperature: float) -> Float[Tensor, "..."]:
    """Mini SDF-SRN's soft silhouette, in [0, 1]: sigmoid(-min_sdf / temperature)."""
    return torch.sigmoid(-min_sdf / temperature)
