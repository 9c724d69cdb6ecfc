"""Encoder and decoder as one module: what is trained, stored and served."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdfsrn.networks.decoder import Decoder, decode
from sdfsrn.networks.encoder import AZIMUTHS, Encoder


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the networks, and what they assume: with `symmetry` "mirror" every field is its own mirror image in x = 0.

    With a `view_head` the encoder also says where a picture was taken from.
    """

    latent_dim: int = 128
    hidden_dim: int = 128
    symmetry: str = "none"
    view_head: bool = False


@dataclass(frozen=True)
class Seen:
    """Where pictures were taken from: logits of AZIMUTHS azimuths, evenly from 0 on, and the elevation in degrees."""

    azimuth_logits: Float[Tensor, "batch azimuths"]
    elevation_deg: Float[Tensor, " batch"]


class Model(nn.Module):
    """A picture's latent, and the signed distance field of a latent."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.latent_dim, config.view_head)
        self.decoder = Decoder(config.latent_dim, config.hidden_dim)

    def encode(self, images: Float[Tensor, "batch 3 64 64"]) -> Float[Tensor, "batch latent_dim"]:
        """The latents of pictures; with a mirror plane the mean of a picture's and of its mirror image's: both show one object."""
        return self._read(self._features(images))

    def look(self, images: Float[Tensor, "batch 3 64 64"]) -> tuple[Float[Tensor, "batch latent_dim"], Seen]:
        """The latents, and where the pictures were taken from; for a model with a view head."""
        features = self._features(images)
        views = [self.encoder.view(each) for each in features]
        logits, elevation = views[0].split([AZIMUTHS, 1], dim=1)
        if len(views) == 2:  # a mirror image was taken from the opposite azimuth
            mirrored, other = views[1].split([AZIMUTHS, 1], dim=1)
            logits = (logits + mirrored[:, -torch.arange(AZIMUTHS, device=logits.device) % AZIMUTHS]) / 2
            elevation = (elevation + other) / 2
        return self._read(features), Seen(logits, elevation[:, 0] * 90)

    def _features(self, images: Tensor) -> list[Tensor]:
        """Of the pictures and, with a mirror plane, of their mirror images."""
        pictures = [images, images.flip(-1)] if self.config.symmetry == "mirror" else [images]
        return [self.encoder.features(each) for each in pictures]

    def _read(self, features: list[Tensor]) -> Tensor:
        latents: Tensor = sum(self.encoder.head[2](each) for each in features) / len(features)
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
            distance: Tensor = decode(weights, low, self._folded(points).to(dtype)).float()
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
