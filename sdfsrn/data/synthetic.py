"""The synthetic data set of the HTTP contract: simple shapes, each seen by its own few cameras and no other."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sdfsrn.config import SyntheticData
from sdfsrn.data.views import TrainingViews
from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.geometry.primitives import KINDS, Primitives, intersect

CAMERA_DISTANCE = 2.5
FOVY_DEG = 50.0
SIZE = 64
ELEVATION_RANGE_DEG = (-10.0, 40.0)
CURVED_RANGE = (0.25, 0.75)  # radii and semi-axes
FLAT_RANGE = (0.2, 0.55)  # half edges of boxes, wedges and L-blocks
AMBIENT = 0.3
RENDERED_AT_ONCE = 64

# done, total; may raise, which is how a caller stops
Progress = Callable[[int, int], None]


def make_shapes(data: SyntheticData) -> Primitives:
    """`n_shapes` primitives, families dealt out in turn, relabelled so that the x extent is never below the z extent.

    Without the relabelling a box at azimuth a and its x/z swap at a + 90 make the same picture, and no answer is right.
    """
    generator = torch.Generator().manual_seed(data.seed)
    unit = torch.rand(data.n_shapes, 3, generator=generator)
    family = families_of(data)
    kind = torch.tensor([KINDS.index("ellipsoid" if name == "sphere" else name) for name in family])
    is_sphere = torch.tensor([name == "sphere" for name in family])
    unit = torch.where(is_sphere[:, None], unit[:, :1], unit)
    low, high = extent_range(family).unbind(-1)
    extents = low[:, None] + (high - low)[:, None] * unit
    x, y, z = extents.unbind(-1)
    return Primitives(torch.stack([torch.maximum(x, z), y, torch.minimum(x, z)], dim=-1), kind)


def extent_range(families: Sequence[str]) -> Float[Tensor, "n 2"]:
    """The smallest and the largest half extent of each family named."""
    return torch.tensor([CURVED_RANGE if name in ("sphere", "ellipsoid") else FLAT_RANGE for name in families])


def families_of(data: SyntheticData) -> list[str]:
    """The family of each shape of `make_shapes`."""
    return [data.families[i % len(data.families)] for i in range(data.n_shapes)]


def make_views(data: SyntheticData, progress: Progress = lambda done, total: None) -> tuple[Primitives, TrainingViews]:
    """The shapes and their pictures; picture i shows shape i // views_per_shape."""
    shapes = make_shapes(data)
    generator = torch.Generator().manual_seed(data.seed + 1_000_003)
    count = data.n_shapes * data.views_per_shape
    azimuth = torch.rand(count, generator=generator) * 360
    low, high = ELEVATION_RANGE_DEG
    elevation = low + torch.rand(count, generator=generator) * (high - low)
    albedo = (0.25 + 0.75 * torch.rand(data.n_shapes, 3, generator=generator)).repeat_interleave(data.views_per_shape, 0)
    light = torch.randn(count, 3, generator=generator)
    light[:, 2] = light[:, 2].abs() + 0.3  # in the camera's frame, from the camera's side of the object
    light = torch.nn.functional.normalize(light, dim=-1)
    c2w = orbit_c2w(azimuth, elevation, CAMERA_DISTANCE)
    owner = torch.arange(count) // data.views_per_shape
    pictures = []
    for part in torch.arange(count).split(RENDERED_AT_ONCE):
        progress(int(part[0]), count)
        pictures.append(shade(shapes[owner[part]], c2w[part], albedo[part], light[part], SIZE))
    images, masks = (torch.cat(kind) for kind in zip(*pictures, strict=True))
    return shapes, TrainingViews(images, masks, c2w, azimuth, elevation, CAMERA_DISTANCE, FOVY_DEG)


def shade(shapes: Primitives, c2w: Tensor, albedo: Tensor, light: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Lambertian pictures on black, uint8 (n, 3, size, size), and masks; `light` points to the light in the camera's frame."""
    rays_o, rays_d = pixel_rays(c2w, FOVY_DEG, size)
    hit, _, normal = intersect(shapes, rays_o, rays_d)
    to_light = (c2w[:, :3, :3] @ light[..., None])[..., 0]
    lambert = (normal * to_light[:, None]).sum(-1).clamp(min=0)
    brightness = (AMBIENT + (1 - AMBIENT) * lambert) * hit
    colour = (albedo[:, None] * brightness[..., None] * 255).round().to(torch.uint8)
    return colour.transpose(1, 2).reshape(-1, 3, size, size), hit.view(-1, size, size)
