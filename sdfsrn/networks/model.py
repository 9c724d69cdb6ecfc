"""Encoder and decoder as one module: what is trained, stored and served."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from sdfsrn.networks.decoder import Decoder
from sdfsrn.networks.encoder import Encoder


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the networks, and what they assume: with `symmetry` "mirror" every field is its own mirror image in x = 0."""

    latent_dim: int = 128
    hidden_dim: int = 128
    symmetry: str = "none"


class Model(nn.Module):
    """A picture's latent, and the signed distance field of a latent."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.latent_dim)
        self.decoder = Decoder(config.latent_dim, config.hidden_dim)

    def encode(self, images: Float[Tensor, "batch 3 64 64"]) -> Float[Tensor, "batch latent_dim"]:
        """The latents of pictures; with a mirror plane the mean of a picture's and of its mirror image's: both show one object."""
        latents: Tensor = self.encoder(images)
        if self.config.symmetry == "mirror":
            latents = (latents + self.encoder(images.flip(-1))) / 2
        return latents

    def sdf(self, latent: Float[Tensor, "batch latent_dim"]) -> Callable[[Tensor], Tensor]:
        """The fields of a batch of latents: points "batch n 3" -> "batch n"."""

        def field(points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
            distance: Tensor = self.decoder(latent, self._folded(points))
            return distance

        return field

    def search_sdf(self, latent: Float[Tensor, "batch latent_dim"], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The same fields without a graph in another, lower precision: to find where to look, not what is there."""
        weights = {name: value.detach().to(dtype) for name, value in self.decoder.named_parameters()}
        low = latent.detach().to(dtype)

        def field(points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
            distance: Tensor = functional_call(self.decoder, weights, (low, self._folded(points).to(dtype))).float()
            return distance

        if dtype == torch.bfloat16:
            field.points_at_once = 8_192  # type: ignore[attr-defined]  # half as much memory, and larger operations pay
        return field

    def _folded(self, points: Tensor) -> Tensor:
        """Where the decoder is asked: with a mirror plane always on the same side of it."""
        if self.config.symmetry == "none":
            return points
        x, y, z = points.unbind(-1)
        return torch.stack([x.abs(), y, z], dim=-1)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.out.weight.device
