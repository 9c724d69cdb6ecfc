"""A pinhole camera of any kind: any picture size, any intrinsics, any pose."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pinhole:
    """K (3, 3) in pixels from the picture's top left corner, camera-to-world (4, 4) with OpenGL axes (x right, y up, -z forward).

    Example:
        >>> import numpy as np
        >>> pose = np.eye(4); pose[2, 3] = 2.0
        >>> camera = Pinhole(np.array([[50.0, 0, 32], [0, 50.0, 24], [0, 0, 1]]), pose, 64, 48)
        >>> camera.directions(np.array([[32.0, 24.0]])).tolist()
        [[0.0, 0.0, -1.0]]
    """

    intrinsics: Matrix
    c2w: Matrix
    width: int
    height: int

    @property
    def place(self) -> Matrix:
        """Where it stands."""
        place: Matrix = self.c2w[:3, 3]
        return place

    @property
    def forward(self) -> Matrix:
        """The unit vector along which depth is measured."""
        forward: Matrix = -self.c2w[:3, 2]
        return forward

    @property
    def pixel_width(self) -> float:
        """Of one pixel at the distance of the world's origin, scene units."""
        return float(np.linalg.norm(self.place) / max(self.intrinsics[0, 0], self.intrinsics[1, 1]))

    def directions(self, pixels: Matrix) -> Matrix:
        """Unit directions in the world, (n, 3), of places (n, 2), column and row, in pixels from the top left corner."""
        homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
        local = homogeneous @ np.linalg.inv(self.intrinsics).T * (1.0, -1.0, -1.0)
        world = local @ self.c2w[:3, :3].T
        found: Matrix = world / np.linalg.norm(world, axis=1, keepdims=True)
        return found

    def rays(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Origins and unit directions of the rays through the centres of pixels."""
        rays_d = torch.from_numpy(self.directions(np.stack([columns, rows], axis=-1).astype(np.float64) + 0.5)).float()
        return torch.from_numpy(self.place.copy()).float().expand_as(rays_d), rays_d

    def reduced(self, times: int) -> "Pinhole":
        """The same camera with pixels `times` as large; a last row or column that is not full is left out."""
        return Pinhole(np.diag([1 / times, 1 / times, 1.0]) @ self.intrinsics, self.c2w, self.width // times, self.height // times)
