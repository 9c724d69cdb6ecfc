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


def distance_to_sphere(rays_o: Float[Tensor, "... 3"], rays_d: Float[Tensor, "... 3"]) -> Float[Tensor, "..."]:
    """How far a ray passes outside the unit sphere: a lower bound of the distance of any shape, 0 for rays that meet it."""
    t = -(rays_o * rays_d).sum(-1)
    nearest = rays_o + t.clamp(min=0)[..., None] * rays_d
    return (torch.linalg.vector_norm(nearest, dim=-1) - 1).clamp(min=0)
