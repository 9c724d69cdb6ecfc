"""The synthetic data set of the HTTP contract: simple shapes, each seen by its own few cameras and no other."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from sdfsrn.config import SyntheticData
from sdfsrn.data.views import TrainingViews
from sdfsrn.geometry.cameras import orbit_c2w
from sdfsrn.geometry.primitives import KINDS, Primitives, intersect
from sdfsrn.images import TILE, TILE_RADIUS, Picture, mask_circle, tile_of

CAMERA_DISTANCE = 2.5
FOVY_DEG = 50.0
SIZE = 64
ELEVATION_RANGE_DEG = (-10.0, 40.0)
CURVED_RANGE = (0.25, 0.75)  # radii and semi-axes
FLAT_RANGE = (0.2, 0.55)  # half edges of boxes, wedges and L-blocks
AMBIENT = 0.3
RENDERED_AT_ONCE = 64
PHOTOGRAPHED = (48, 72, 104, 144)  # pixels per side of what a tile is cut from

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


@dataclass(frozen=True)
class Scenes:
    """What a synthetic data set shows, one entry per picture: a shape, its colour, a light in the camera's frame, a camera."""

    shapes: Primitives
    albedo: Float[Tensor, "n 3"]
    light: Float[Tensor, "n 3"]
    azimuth_deg: Float[Tensor, " n"]
    elevation_deg: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.azimuth_deg)

    def __getitem__(self, index: Tensor | slice) -> "Scenes":
        return Scenes(*(getattr(self, spec.name)[index] for spec in dataclasses.fields(self)))

    @property
    def c2w(self) -> Float[Tensor, "n 4 4"]:
        """Where the cameras stand."""
        return orbit_c2w(self.azimuth_deg, self.elevation_deg, CAMERA_DISTANCE)

    def masks(self) -> Bool[Tensor, "n size size"]:
        """Of the cameras' own pictures, SIZE pixels per side."""
        parts = torch.arange(len(self)).split(RENDERED_AT_ONCE)
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        return torch.cat([self[part]._hits(whole, SIZE)[0].view(-1, SIZE, SIZE) for part in parts])

    def photographs(self, windows: Float[Tensor, "n 4"], size: int) -> list[Picture]:
        """Lambertian pictures on black, `size` pixels per side, of some window of each camera's view.

        A window is left, top, right and bottom in shares of the camera's own picture; it may reach beyond.
        """
        pictures = []
        for part in torch.arange(len(self)).split(max(1, RENDERED_AT_ONCE * SIZE**2 // size**2)):
            hit, normal = self[part]._hits(windows[part], size)
            to_light = (self[part].c2w[:, :3, :3] @ self.light[part][..., None])[..., 0]
            lambert = (normal * to_light[:, None]).sum(-1).clamp(min=0)
            brightness = (AMBIENT + (1 - AMBIENT) * lambert) * hit
            colour = (self.albedo[part][:, None] * brightness[..., None] * 255).round().to(torch.uint8)
            pictures += [
                Picture(rgb.view(size, size, 3).numpy(), mask.view(size, size).numpy())
                for rgb, mask in zip(colour, hit, strict=True)
            ]
        return pictures

    def _hits(self, windows: Float[Tensor, "_ 4"], size: int) -> tuple[Bool[Tensor, "n rays"], Float[Tensor, "n rays 3"]]:
        """Which rays of a window hit the shape, and the normals there."""
        place = (torch.arange(size) + 0.5) / size
        left, top, right, bottom = (end[:, None] for end in windows.unbind(-1))
        half = math.tan(math.radians(FOVY_DEG) / 2)
        x = ((left + (right - left) * place) * 2 - 1) * half
        y = (1 - (top + (bottom - top) * place) * 2) * half
        local = torch.stack(
            [x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size), -torch.ones(len(x), size, size)], dim=-1
        )
        local = torch.nn.functional.normalize(local.flatten(1, 2), dim=-1)
        c2w = self.c2w
        rays_d = local @ c2w[:, :3, :3].transpose(1, 2)
        hit, _, normal = intersect(self.shapes, c2w[:, None, :3, 3].expand_as(rays_d).contiguous(), rays_d.contiguous())
        return hit, normal


def make_scenes(data: SyntheticData) -> Scenes:
    """Draw the shapes and how they are looked at; picture i shows shape i // views_per_shape."""
    generator = torch.Generator().manual_seed(data.seed + 1_000_003)
    count = data.n_shapes * data.views_per_shape
    azimuth = torch.rand(count, generator=generator) * 360
    low, high = ELEVATION_RANGE_DEG
    elevation = low + torch.rand(count, generator=generator) * (high - low)
    albedo = (0.25 + 0.75 * torch.rand(data.n_shapes, 3, generator=generator)).repeat_interleave(data.views_per_shape, 0)
    light = torch.randn(count, 3, generator=generator)
    light[:, 2] = light[:, 2].abs() + 0.3  # in the camera's frame, from the camera's side of the object
    light = torch.nn.functional.normalize(light, dim=-1)
    return Scenes(make_shapes(data)[torch.arange(count) // data.views_per_shape], albedo, light, azimuth, elevation)


def make_views(data: SyntheticData, progress: Progress = lambda done, total: None) -> tuple[Primitives, TrainingViews]:
    """The shapes and their pictures, in the sizes in which they were drawn.

    The tiles come from photographs of several sizes, as people's pictures do.
    """
    scenes = make_scenes(data)
    masks = scenes.masks()
    tiles = torch.empty(len(scenes), 3, TILE, TILE, dtype=torch.uint8)
    windows = torch.tensor([_window(mask) for mask in masks.numpy()])
    sides = torch.randint(len(PHOTOGRAPHED), (len(scenes),), generator=torch.Generator().manual_seed(data.seed + 2_000_003))
    done = 0
    for i, side in enumerate(PHOTOGRAPHED):
        for part in (sides == i).nonzero()[:, 0].split(256):
            progress(done, len(scenes))
            done += len(part)
            for place, picture in zip(part.tolist(), scenes[part].photographs(windows[part], side), strict=True):
                tiles[place] = torch.from_numpy(tile_of(picture).copy()).permute(2, 0, 1)
    views = TrainingViews(
        tiles, masks, scenes.c2w, scenes.azimuth_deg, scenes.elevation_deg, torch.ones(len(scenes)), CAMERA_DISTANCE, FOVY_DEG
    )
    return scenes.shapes[:: data.views_per_shape], views


def _window(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """A little more than what a tile shows of a picture."""
    x, y, radius = mask_circle(mask)
    half = radius / TILE_RADIUS / 2 * 1.1
    return (x - half) / SIZE, (y - half) / SIZE, (x + half) / SIZE, (y + half) / SIZE
