"""What training sees: pictures, masks and known cameras; nothing three-dimensional."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import max_pool2d

from sdfsrn.geometry.cameras import ball_radius, pixel_rays
from sdfsrn.images import TILE_RADIUS, mask_circles


@dataclass(frozen=True)
class TrainingViews:
    """One entry per picture. Cameras are pinholes that look at the origin from about `camera_distance`; `fovy_deg` is vertical.

    `tiles` are what the encoder's pictures are made from (`sdfsrn.images.tile_of`); masks are the cameras' own. Each picture has
    a world of its own, `scale` times as large as the one in which all pictures of an object agree.
    """

    tiles: UInt8[Tensor, "n 3 side side"]
    masks: Bool[Tensor, "n size size"]
    c2w: Float[Tensor, "n 4 4"]
    azimuth_deg: Float[Tensor, " n"]
    elevation_deg: Float[Tensor, " n"]
    scale: Float[Tensor, " n"]
    camera_distance: float
    fovy_deg: float

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def size(self) -> int:
        """Pixels per side of the masks."""
        return self.masks.shape[-1]

    def __getitem__(self, index: Tensor | slice) -> "TrainingViews":
        """Some of the pictures."""
        part = {name: getattr(self, name)[index] for name in ("tiles", "masks", "c2w", "azimuth_deg", "elevation_deg", "scale")}
        return dataclasses.replace(self, **part)

    def seen_at(self, radius: float) -> "TrainingViews":
        """The same with tiles in which masks have another radius than TILE_RADIUS, for models that are older than that."""
        moves = torch.eye(2, 3)[None] * (TILE_RADIUS / radius)
        shape = [1, 3, *self.tiles.shape[-2:]]
        places = torch.nn.functional.affine_grid(moves, shape, align_corners=False)
        tiles = [torch.nn.functional.grid_sample(tile[None].float(), places, align_corners=False)[0] for tile in self.tiles]
        return dataclasses.replace(self, tiles=torch.stack(tiles).round().to(torch.uint8))

    def digest(self, first: Sequence[int]) -> str:
        """SHA-256 of everything that training sees; `first` are the first pictures of the objects."""
        grouped = "" if len(first) == len(self) else f" {list(first)}"
        digest = hashlib.sha256(f"{self.camera_distance} {self.fovy_deg}{grouped}".encode())
        for part in (self.tiles, self.masks, self.c2w):
            for some in part.split(64):
                digest.update(some.contiguous().numpy().data)
        return "sha-256:" + digest.hexdigest()

    def mask_radii(self) -> Float[Tensor, " n"]:
        """Of each mask, as a share of the picture's side (`sdfsrn.images.mask_circles`)."""
        radii = [torch.from_numpy(mask_circles(some.numpy())[2]) for some in self.masks.split(4_096)]
        return (torch.cat(radii) / self.size).float()

    def mean_mask_radius(self) -> float:
        """The mean of `mask_radii`; empty masks do not count."""
        radii = self.mask_radii()
        return float(radii[radii > 0].mean())

    def scales(self, mask_radius: float) -> Float[Tensor, " n"]:
        """By how much each picture's world must grow for its mask to have `mask_radius` from `camera_distance`.

        The size of an object cannot be known from its picture: from twice as far, an object of twice the size looks the same.
        Other shapes than balls are off by a few hundredths at most.
        """
        radii = self.mask_radii()
        wanted = ball_radius(torch.tensor(mask_radius), self.fovy_deg) * self.camera_distance
        found = ball_radius(radii, self.fovy_deg) * torch.linalg.vector_norm(self.c2w[:, :3, 3], dim=-1)
        return torch.where(radii > 0, wanted / found, 1.0)

    def scaled(self, scales: Float[Tensor, " n"]) -> "TrainingViews":
        """The same pictures in worlds that are so much larger."""
        c2w = self.c2w.clone()
        c2w[:, :3, 3] *= scales[:, None]
        return dataclasses.replace(self, c2w=c2w, scale=self.scale * scales)


def outline_bands(masks: Bool[Tensor, "n size size"], width: int) -> Bool[Tensor, "n size size"]:
    """The pixels that have both object and background within `width` pixels."""
    bands = torch.empty_like(masks)
    for some, band in zip(masks.split(64), bands.split(64), strict=True):
        both = torch.stack([some, ~some], dim=1).half()
        band.copy_(max_pool2d(both, 2 * width + 1, stride=1, padding=width).amin(dim=1) > 0)
    return bands


def pixels_outwards(fovy_deg: float, size: int) -> tuple[Int64[Tensor, " pixels"], Float[Tensor, " pixels"]]:
    """All pixels of a picture from the middle outwards, and for each minus the cosine of its angle with the axis."""
    straight = torch.eye(4)[None]
    straight[0, 2, 3] = 1.0  # any camera that looks at the origin: pixels at one distance from the axis are at one angle
    _, rays_d = pixel_rays(straight, fovy_deg, size)
    cosines, order = rays_d[0, :, 2].sort(stable=True)  # the camera looks along -z
    return order, cosines


def pixels_reaching(cosines: Float[Tensor, " pixels"], distances: Float[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """How many pixels, of those of `pixels_outwards`, look at the unit sphere from so far away."""
    widest = (1 - distances.clamp(min=1).square().reciprocal()).sqrt()  # a camera within the sphere sees it everywhere
    return torch.searchsorted(cosines, -widest)
