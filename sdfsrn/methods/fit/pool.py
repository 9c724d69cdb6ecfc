"""The rays that a fit draws from: all near the outlines, and some of the others, in memory of a fixed size."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from sdfsrn.data.one_object import ObjectView
from sdfsrn.fields.hull import signed_distance
from sdfsrn.geometry.bounds import unit_sphere_interval

NEAR_OUTLINE = 0.75  # of the rays drawn
BAND = 3.0  # pixels to either side of an outline that count as near it, of a mask that reaches 100 pixels across
MOST = 2_000_000  # rays of either kind, 17 bytes each


class Rays(NamedTuple):
    """Rays, and whether each one's pixel lies on the object."""

    origins: Float[Tensor, "n 3"]
    directions: Float[Tensor, "n 3"]
    inside: Bool[Tensor, " n"]


class RayPool:
    """Rays through pixels of several views; those that miss the unit ball are left out."""

    def __init__(self, views: list[ObjectView], seed: int) -> None:
        random = np.random.default_rng(seed)
        self._places = torch.from_numpy(np.stack([view.c2w[:3, 3] for view in views])).float()
        near, others = zip(*(_of_view(view, MOST // len(views), random) for view in views), strict=True)
        self._kinds = [self._packed(views, list(kind)) for kind in (near, others)]

    def _packed(self, views: list[ObjectView], pixels: list[NDArray[np.int64]]) -> tuple[Tensor, Tensor, Tensor]:
        """View, direction and side of each ray."""
        kept, directions, inside = [], [], []
        for i, (view, chosen) in enumerate(zip(views, pixels, strict=True)):
            origins, some = view.camera.rays(chosen[:, 0], chosen[:, 1])
            meets = unit_sphere_interval(origins, some)[2]
            directions.append(some[meets])
            inside.append(torch.from_numpy(view.mask[chosen[:, 0], chosen[:, 1]])[meets])
            kept.append(torch.full((len(directions[-1]),), i, dtype=torch.int32))
        return torch.cat(kept), torch.cat(directions), torch.cat(inside)

    def draw(self, n_rays: int, generator: torch.Generator) -> Rays:
        """Rays at random, NEAR_OUTLINE of them near an outline."""
        n_near = round(n_rays * NEAR_OUTLINE)
        drawn = []
        for (view, directions, inside), count in zip(self._kinds, (n_near, n_rays - n_near), strict=True):
            index = torch.randint(len(view), (count,), generator=generator) if len(view) else torch.empty(0, dtype=torch.long)
            drawn.append((self._places[view[index].long()], directions[index], inside[index]))
        return Rays(*(torch.cat(parts) for parts in zip(*drawn, strict=True)))


def _of_view(view: ObjectView, most: int, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pixels near the outline, and of the others; at most so many of either."""
    away = np.abs(signed_distance(view.mask))
    band = max(BAND / 2, BAND * np.sqrt(view.mask.sum()) / 100)
    near, others = np.argwhere(away < band), np.argwhere(away >= band)
    return _some(near, most, random), _some(others, most, random)


def _some(pixels: NDArray[np.int64], most: int, random: np.random.Generator) -> NDArray[np.int64]:
    return pixels if len(pixels) <= most else pixels[random.choice(len(pixels), most, replace=False)]
