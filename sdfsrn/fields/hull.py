"""The visual hull of several masks as a field (Laurentini 1994): the largest shape that explains them all."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

BEHIND = 1.0  # scene units: the distance of what lies behind a camera, which no mask allows


class VisualHull:
    """How far points lie outside every view's cone of sight, scene units, negative inside all of them.

    The distance to a cone is that of the point's pixel to the mask's outline, times the width of a pixel at the point's depth.
    Outside it is at most the distance to the hull, so it is a lower bound of the distance to the object.

    Example:
        >>> import numpy as np, torch
        >>> disc = np.hypot(*np.mgrid[-31.5:32, -31.5:32]) < 16
        >>> K = np.array([[64.0, 0, 32], [0, 64.0, 32], [0, 0, 1]])
        >>> c2w = np.eye(4); c2w[2, 3] = 4.0
        >>> hull = VisualHull([disc], K[None], c2w[None])
        >>> bool(hull(torch.zeros(1, 1, 3)) < 0), bool(hull(torch.tensor([[[2.0, 0, 0]]])) > 0)
        (True, True)
    """

    points_at_once = 8_192

    def __init__(
        self,
        masks: Sequence[NDArray[np.bool_]],
        intrinsics: Float[np.ndarray, "views 3 3"],
        c2w: Float[np.ndarray, "views 4 4"],
    ) -> None:
        """Masks of any sizes; pinholes with K in each mask's pixels and poses with OpenGL axes."""
        self._distances = [torch.from_numpy(signed_distance(mask))[None, None] for mask in masks]
        self._intrinsics = torch.from_numpy(np.asarray(intrinsics)).float()
        w2c = np.linalg.inv(np.asarray(c2w))
        self._turn = torch.from_numpy(w2c[:, :3, :3]).float()
        self._shift = torch.from_numpy(w2c[:, :3, 3]).float()

    def __len__(self) -> int:
        """How many views it has."""
        return len(self._distances)

    def __call__(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        found = torch.full(points.shape[:2], -torch.inf)
        for i in range(len(self)):
            found = torch.maximum(found, self.beside(i, points))
        return found

    def across(self, view: int) -> Float[Tensor, "2 3"]:
        """The unit vectors to the right and up in one view's picture."""
        return self._turn[view][:2]

    def beside(self, view: int, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        """How far points lie outside one view's cone, negative inside it."""
        local = points @ self._turn[view].T + self._shift[view]
        depth = -local[..., 2]
        safe = depth.clamp(min=1e-6)
        matrix, distances = self._intrinsics[view], self._distances[view]
        plane = torch.stack([local[..., 0] / safe, -local[..., 1] / safe], dim=-1)
        pixel = plane @ matrix[:2, :2].T + matrix[:2, 2]
        size = torch.tensor([distances.shape[3], distances.shape[2]], dtype=pixel.dtype)
        within = torch.minimum(pixel.clamp(min=0), size)
        beyond = torch.linalg.vector_norm(pixel - within, dim=-1)
        place = (within / size * 2 - 1)[None].flatten(1, 2)[:, None]
        sampled = torch.nn.functional.grid_sample(distances, place, padding_mode="border", align_corners=False)
        away = sampled.view(depth.shape) + beyond
        # a pixel is as wide as this across the ray; seen at an angle, the way to the cone is shorter
        width = depth / matrix[[0, 1], [0, 1]].max() * (depth / torch.linalg.vector_norm(local, dim=-1).clamp(min=1e-6))
        return torch.where(depth > 1e-6, away * width, BEHIND)


def signed_distance(mask: Bool[np.ndarray, "height width"]) -> NDArray[np.float32]:
    """Of each pixel's centre to the mask's outline, pixels, negative inside; the outline runs midway between two centres."""
    if not mask.any():
        return np.full(mask.shape, np.hypot(*mask.shape), dtype=np.float32)
    outside, inside = ndimage.distance_transform_edt(~mask), ndimage.distance_transform_edt(mask)
    found: NDArray[np.float32] = np.where(mask, 0.5 - inside, outside - 0.5).astype(np.float32)
    return found
