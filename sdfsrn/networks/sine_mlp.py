"""The field of one object: three fully connected layers on the sines of a point's coordinates."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

START_RADIUS = 0.5  # of the sphere that an untrained network represents, scene units


class SineMlp(nn.Module):
    """Points "batch n 3" -> signed distance "batch n", scene units, negative inside.

    A point enters with the sine and cosine of its coordinates at `octaves` wavelengths, 2, 1, 1/2 ... (Mildenhall et al. 2020,
    eq. 4). Weights start so that the field is roughly a ball (geometric initialisation, Atzmon & Lipman 2020; Yariv et al. 2020).
    """

    def __init__(self, hidden_dim: int, octaves: int) -> None:
        super().__init__()
        self.octaves = octaves
        self.first = nn.Linear(3 + 6 * octaves, hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)
        self.third = nn.Linear(hidden_dim, hidden_dim)
        self.out = nn.Linear(hidden_dim, 1)
        for layer in (self.first, self.second, self.third):
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / hidden_dim))
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.first.weight[:, 3:])
        nn.init.normal_(self.out.weight, math.sqrt(math.pi / hidden_dim), 1e-4)
        nn.init.constant_(self.out.bias, -START_RADIUS)

    def forward(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        return _field(points, self.octaves, *self.parameters())

    def search_sdf(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The same field without a graph in another, lower precision: to find where to look, not what is there."""
        weights = [parameter.detach().to(dtype) for parameter in self.parameters()]

        def field(points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
            return _field(points, self.octaves, *weights).float()

        if dtype == torch.bfloat16:
            field.points_at_once = 8_192  # type: ignore[attr-defined]  # half as much memory, and larger operations pay
        return field


def _field(points: Tensor, octaves: int, *weights: Tensor) -> Tensor:
    """The waves are of the points' own precision: a high one of a rounded coordinate would be noise."""
    hidden = encoded(points, octaves).to(weights[0].dtype)
    for weight, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        hidden = nn.functional.linear(hidden, weight, bias).relu_()
    distance: Tensor = nn.functional.linear(hidden, weights[-2], weights[-1])[..., 0]
    return distance


def encoded(points: Float[Tensor, "*batch 3"], octaves: int) -> Float[Tensor, "*batch features"]:
    """A point's coordinates, and their sines and cosines, 3 + 6 x octaves numbers."""
    frequencies = math.pi * 2.0 ** torch.arange(octaves, dtype=points.dtype, device=points.device)
    waves = (points[..., None] * frequencies).flatten(-2)
    return torch.cat([points, waves.sin(), waves.cos()], dim=-1)
