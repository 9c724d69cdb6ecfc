"""Pinhole cameras on an orbit around the origin, OpenGL axes (x right, y up, -z forward) as in NeRF's transforms.json."""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def orbit_c2w(
    azimuth_deg: Float[Tensor, " batch"], elevation_deg: Float[Tensor, " batch"], distance: float | Float[Tensor, " batch"]
) -> Float[Tensor, "batch 4 4"]:
    """Camera-to-world poses looking at the origin from `distance` scene units.

    Azimuth 0 looks from +z, 90 from +x; elevation 90 from +y. At the poles "up" is the limit along the meridian.
    """
    azimuth, elevation = torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg)
    zero = torch.zeros_like(azimuth)
    right = torch.stack([azimuth.cos(), zero, -azimuth.sin()], dim=-1)
    backward = torch.stack([azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()], dim=-1)
    up = torch.linalg.cross(backward, right)
    c2w = torch.zeros(*azimuth.shape, 4, 4, dtype=azimuth.dtype, device=azimuth.device)
    place = backward * torch.as_tensor(distance, dtype=azimuth.dtype, device=azimuth.device)[..., None]
    c2w[..., :3, :] = torch.stack([right, up, backward, place], dim=-1)
    c2w[..., 3, 3] = 1
    return c2w


def ball_radius(mask_radius: Float[Tensor, "..."], fovy_deg: float) -> Float[Tensor, "..."]:
    """The radius of the ball at distance 1 whose mask has this radius, a share of the picture's side.

    A ball of radius r at distance d is seen under the angle asin(r / d).
    """
    return torch.sin(torch.atan(mask_radius * 2 * math.tan(math.radians(fovy_deg) / 2)))


def pixel_rays(
    c2w: Float[Tensor, "batch 4 4"], fovy_deg: float, size: int
) -> tuple[Float[Tensor, "batch pixels 3"], Float[Tensor, "batch pixels 3"]]:
    """Origins and unit directions of the rays through the pixel centres of a square picture, row by row from the top left."""
    return _from_cameras(c2w, _pixel_directions(c2w, fovy_deg, size, 1))


def rays_through(
    c2w: Float[Tensor, "batch 4 4"], fovy_deg: float, size: int, pixel: Int64[Tensor, "batch n"]
) -> tuple[Float[Tensor, "batch n 3"], Float[Tensor, "batch n 3"]]:
    """The rays through some pixels of each picture, named by their places in the order of `pixel_rays`."""
    return _from_cameras(c2w, _pixel_directions(c2w, fovy_deg, size, 1)[pixel])


def _from_cameras(c2w: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
    rays_d = local @ c2w[:, :3, :3].transpose(1, 2)
    return c2w[:, None, :3, 3].expand_as(rays_d), rays_d


def chosen_rays(
    c2w: Float[Tensor, "batch 4 4"], fovy_deg: float, size: int, chosen: Bool[Tensor, "batch blocks blocks"], block: int = 1
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """The rays of some pixels only, in the order of `pixel_rays`.

    Or one ray through the centre of each chosen block of `block` x `block` pixels; the last ones may reach beyond the picture.
    """
    view, pixel = chosen.flatten(1).nonzero().unbind(-1)
    local = _pixel_directions(c2w, fovy_deg, size, block)[pixel]
    return c2w[view, :3, 3], (c2w[view, :3, :3] @ local[..., None])[..., 0]


def _pixel_directions(c2w: Tensor, fovy_deg: float, size: int, block: int) -> Float[Tensor, "pixels 3"]:
    """In the camera's own frame."""
    half = math.tan(math.radians(fovy_deg) / 2)
    pixel = (torch.arange(-(-size // block), dtype=c2w.dtype, device=c2w.device) + 0.5) * block
    centres = (pixel / size * 2 - 1) * half
    y, x = torch.meshgrid(-centres, centres, indexing="ij")
    local = torch.stack([x, y, -torch.ones_like(x)], dim=-1).reshape(-1, 3)
    return torch.nn.functional.normalize(local, dim=-1)


def intrinsics(fovy_deg: float, size: int) -> list[list[float]]:
    """K, 3x3 in pixels, origin at the picture's top left corner, square pixels."""
    focal = size / 2 / math.tan(math.radians(fovy_deg) / 2)
    return [[focal, 0.0, size / 2], [0.0, focal, size / 2], [0.0, 0.0, 1.0]]


def project(points: Float[Tensor, "*batch 3"], c2w: Float[Tensor, "4 4"], fovy_deg: float, size: int) -> Float[Tensor, "*batch 2"]:
    """Column and row, in pixels from the top left corner, where a camera sees points that lie before it."""
    local = (points - c2w[:3, 3]) @ c2w[:3, :3]
    focal = size / 2 / math.tan(math.radians(fovy_deg) / 2)
    x, y, z = local.unbind(-1)
    return torch.stack([x, -y], dim=-1) / -z[..., None] * focal + size / 2
