"""Mini SDF-SRN's encoder: four stride-2 convolutions and two fully connected layers, one picture to one latent."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

IMAGE_SIZE = 64


class Encoder(nn.Module):
    """images "batch 3 64 64" in [0, 1] -> latent "batch latent_dim"; deterministic."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        channels = (3, 32, 64, 128, 256)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(channels):
            layers += [nn.Conv2d(n_in, n_out, kernel_size=3, stride=2, padding=1), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(256 * (IMAGE_SIZE // 16) ** 2, 256), nn.ReLU(), nn.Linear(256, latent_dim))

        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                # torch's default shrinks the signal layer by layer until all pictures have one latent
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, images: Float[Tensor, "batch 3 64 64"]) -> Float[Tensor, "batch latent_dim"]:
        latent: Tensor = self.head(self.convolutions(images).flatten(1))
        return latent
