"""Mini SDF-SRN's decoder: a 5-layer MLP with a skip (DeepSDF, Park et al. 2019), shared by all shapes."""

import math
from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

START_RADIUS = 0.5  # of the sphere that an untrained decoder represents, scene units


class Decoder(nn.Module):
    """latent "batch latent_dim" and points "batch n 3" -> signed distance "batch n", negative inside.

    Latent and point enter the first and the third layer. Their linear maps are kept apart, so that the latent's share is
    computed once per shape and not per point (as in Occupancy Networks' decoder). Weights start so that every latent is
    roughly a ball of radius 0.5 (geometric initialisation, Atzmon & Lipman 2020).
    """

    def __init__(self, latent_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.point_in = nn.Linear(3, hidden_dim, bias=False)
        self.latent_in = nn.Linear(latent_dim, hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)
        self.third = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.point_skip = nn.Linear(3, hidden_dim, bias=False)
        self.latent_skip = nn.Linear(latent_dim, hidden_dim)
        self.fourth = nn.Linear(hidden_dim, hidden_dim)
        self.out = nn.Linear(hidden_dim, 1)
        self._initialise(hidden_dim)

    def _initialise(self, hidden_dim: int) -> None:
        for layer in (self.point_in, self.second, self.third, self.fourth):
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / hidden_dim))
        for latent_layer in (self.latent_in, self.latent_skip):
            nn.init.normal_(latent_layer.weight, 0.0, 0.02 / math.sqrt(hidden_dim))  # else each latent starts elsewhere, or empty
        nn.init.zeros_(self.point_skip.weight)
        nn.init.normal_(self.out.weight, math.sqrt(math.pi / hidden_dim), 1e-4)
        nn.init.constant_(self.out.bias, -START_RADIUS)
        for layer in (self.latent_in, self.second, self.latent_skip, self.fourth):
            nn.init.zeros_(layer.bias)

    def forward(self, latent: Float[Tensor, "batch latent_dim"], points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        return decode(dict(self.named_parameters()), latent, points)


def decode(
    weights: Mapping[str, Tensor], latent: Float[Tensor, "batch latent_dim"], points: Float[Tensor, "batch n 3"]
) -> Float[Tensor, "batch n"]:
    """A Decoder's answer with these weights, by the names of its parameters; several threads may ask at once.

    (`torch.func.functional_call` puts other weights into the module for a while, where another thread would find them.)
    """
    # In place where no gradient needs the old value: half as much memory is touched.
    hidden = _layer(weights, "point_in", points).add_(_layer(weights, "latent_in", latent)[:, None]).relu_()
    hidden = _layer(weights, "second", hidden).relu_()
    hidden = _layer(weights, "third", hidden).add_(_layer(weights, "point_skip", points))
    hidden = hidden.add_(_layer(weights, "latent_skip", latent)[:, None]).relu_()
    hidden = _layer(weights, "fourth", hidden).relu_()
    distance: Tensor = _layer(weights, "out", hidden)[..., 0]
    return distance


def _layer(weights: Mapping[str, Tensor], name: str, given: Tensor) -> Tensor:
    return functional.linear(given, weights[f"{name}.weight"], weights.get(f"{name}.bias"))
