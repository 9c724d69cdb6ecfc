"""The renderer as one would write it first: every sample of every ray in the graph. The yardstick of the fast one."""

import torch
from torch import Tensor

from sdfsrn.rendering import Sdf

RAYS_AT_ONCE = 512  # so that what is in between stays in the processor's cache


def plain_minimum(sdf: Sdf, rays_o: Tensor, rays_d: Tensor, t: Tensor) -> Tensor:
    """The smallest signed distance among the samples at `t` (batch, n, samples), all differentiable."""
    batch, n_rays, n_samples = t.shape
    points = rays_o[:, :, None] + t[..., None] * rays_d[:, :, None]
    return sdf(points.reshape(batch, n_rays * n_samples, 3)).reshape(t.shape).amin(dim=-1)


def dense_minimum(sdf: Sdf, rays_o: Tensor, rays_d: Tensor, n_samples: int) -> Tensor:
    """The smallest signed distance on the part of each ray inside the unit sphere, densely sampled; misses count as 1."""
    middle = -(rays_o * rays_d).sum(-1)
    squared = middle**2 - (rays_o**2).sum(-1) + 1
    half = squared.clamp(min=0).sqrt()
    fraction = (torch.arange(n_samples) + 0.5) / n_samples * 2 - 1
    with torch.no_grad():
        parts = zip(*(each.split(RAYS_AT_ONCE, dim=1) for each in (rays_o, rays_d, middle, half)), strict=True)
        minima = [plain_minimum(sdf, o, d, at[..., None] + reach[..., None] * fraction) for o, d, at, reach in parts]
    smallest = torch.cat(minima, dim=1)
    return torch.where(squared > 0, smallest, torch.ones_like(smallest))


def exact_minimum(sdf: Sdf, rays_o: Tensor, rays_d: Tensor) -> Tensor:
    """The minimum of a true distance on each ray in double precision, within 0.02 of a surface; elsewhere a sample near it.

    Ternary search between the neighbours of the smallest of dense samples, on which the distance to one body has one minimum.
    """
    rays_o, rays_d = rays_o[0].double(), rays_d[0].double()
    middle = -(rays_o * rays_d).sum(-1)
    half = (middle**2 - (rays_o**2).sum(-1) + 1).clamp(min=0).sqrt()
    t = middle[:, None] + half[:, None] * torch.linspace(-1, 1, 49, dtype=torch.float64)
    parts = zip(*(each.split(16_384) for each in (rays_o, rays_d, t)), strict=True)
    values = torch.cat([sdf((o[:, None] + at[..., None] * d[:, None]).float()).double() for o, d, at in parts])
    minima, place = values.min(dim=-1)
    close = minima < 0.04
    rays_o, rays_d, t, place = (each[close] for each in (rays_o, rays_d, t, place[:, None]))
    low, high = (t.gather(1, (place + side).clamp(0, 48))[:, 0] for side in (-1, 1))
    for _ in range(50):
        third = (high - low) / 3
        left, right = (sdf(rays_o + at[:, None] * rays_d) for at in (low + third, high - third))
        low, high = torch.where(left < right, low, low + third), torch.where(left < right, high - third, high)
    minima[close] = sdf(rays_o + low[:, None] * rays_d)
    return minima
