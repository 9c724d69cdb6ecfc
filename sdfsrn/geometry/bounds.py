"""The unit sphere that every shape lies in."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def unit_sphere_interval(
    rays_o: Float[Tensor, "... 3"], rays_d: Float[Tensor, "... 3"]
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."], Bool[Tensor, "..."]]:
    """Distances `near <= far` along unit rays at which they enter and leave the unit sphere, and whether they meet it in front.

    A ray that misses gets the point nearest to the centre as both ends. An origin inside the sphere has `near` 0.
    """
    middle = -(rays_o * rays_d).sum(-1)
    half_squared = middle.square() - rays_o.square().sum(-1) + 1
    half = half_squared.clamp(min=0).sqrt()
    near, far = (middle - half).clamp(min=0), (middle + half).clamp(min=0)
    return near, far, (half_squared > 0) & (far > 0)


def points_in_ball(batch: int, n_points: int, generator: torch.Generator) -> Float[Tensor, "batch n_points 3"]:
    """Uniform in the unit ball, on the CPU; every second point is the one before it mirrored in the origin.

    So the mean over what is the same on both sides of the origin is the origin itself, however few points there are.
    """
    direction = torch.nn.functional.normalize(torch.randn(batch, n_points // 2, 3, generator=generator), dim=-1)
    points = direction * torch.rand(batch, n_points // 2, 1, generator=generator).pow(1 / 3)
    return torch.stack([points, -points], dim=2).flatten(1, 2)
