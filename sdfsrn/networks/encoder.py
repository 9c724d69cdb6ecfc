"""Mini SDF-SRN's encoder: four stride-2 convolutions and two fully connected layers, one picture to one latent."""

from itertools import pairwise

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

IMAGE_SIZE = 64


def encoder_images(
    tiles: UInt8[Tensor, "batch 3 side side"], jitter: float = 0.0, generator: torch.Generator | None = None
) -> Float[Tensor, "batch 3 64 64"]:
    """What the encoder sees of tiles (`sdfsrn.images.tile_of`) of twice its size: RGB in [0, 1], each pixel a mean of four.

    With `jitter` each tile is first moved by up to this share of its side, along both axes, and made larger or smaller by up
    to twice this share: masks of real pictures are never exact, and an encoder learns the very pixel of each edge if it can.
    A pixel then lies anywhere between four of the tile, so its sharpness varies too.
    """
    if not jitter:
        return torch.nn.functional.interpolate(tiles.float(), (IMAGE_SIZE, IMAGE_SIZE), mode="area") / 255
    amounts = (torch.rand(len(tiles), 3, generator=generator) * 2 - 1).to(tiles.device) * 2 * jitter
    moves = torch.zeros(len(tiles), 2, 3, device=tiles.device)
    moves[:, 0, 0] = moves[:, 1, 1] = amounts[:, 2].exp()
    moves[:, :, 2] = amounts[:, :2]  # the side is 2 in the units of affine_grid
    places = torch.nn.functional.affine_grid(moves, [len(tiles), 3, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    return torch.nn.functional.grid_sample(tiles.float(), places, align_corners=False) / 255


AZIMUTHS = 36  # views that the encoder tells apart, evenly around the object, the first at azimuth 0


class Encoder(nn.Module):
    """images "batch 3 64 64" in [0, 1] -> latent "batch latent_dim"; deterministic.

    With a `view_head` it also says where the picture was taken from: cameras are known in training and not in use.
    """

    def __init__(self, latent_dim: int, view_head: bool = False) -> None:
        super().__init__()
        channels = (3, 32, 64, 128, 256)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(channels):
            layers += [nn.Conv2d(n_in, n_out, kernel_size=3, stride=2, padding=1), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(256 * (IMAGE_SIZE // 16) ** 2, 256), nn.ReLU(), nn.Linear(256, latent_dim))
        if view_head:
            self.view = nn.Linear(256, AZIMUTHS + 1)

        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                # torch's default shrinks the signal layer by layer until all pictures have one latent
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, images: Float[Tensor, "batch 3 64 64"]) -> Float[Tensor, "batch latent_dim"]:
        latent: Tensor = self.head[2](self.features(images))
        return latent

    def features(self, images: Float[Tensor, "batch 3 64 64"]) -> Float[Tensor, "batch 256"]:
        """What latent and view are read off."""
        found: Tensor = self.head[1](self.head[0](self.convolutions(images).flatten(1)))
        return found
