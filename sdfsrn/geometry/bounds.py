"""The unit sphere that every shape lies in."""

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
