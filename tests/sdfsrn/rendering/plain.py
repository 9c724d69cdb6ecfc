"""The renderer as one would write it first: every sample of every ray in the graph. The yardstick of the fast one."""

import torch
from torch import Tensor

from sdfsrn.rendering import Sdf


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
        smallest = plain_minimum(sdf, rays_o, rays_d, middle[..., None] + half[..., None] * fraction)
    return torch.where(squared > 0, smallest, torch.ones_like(smallest))
