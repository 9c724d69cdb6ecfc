"""A camera of a stranger's picture, whatever file it came in: where pixels look, and where points are seen.

Cameras have OpenGL axes (x right, y up, looking along -z) in a world whose y axis is up. Pixels are those of the picture's file,
from its top left corner; the centre of the first is at 0.5, 0.5.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdfsrn.data.lens import Lens

Matrix = NDArray[np.float64]

LEAST, MOST = 1e-9, 1e9  # of lengths and focal lengths: what is beyond is a mistake, and may overflow
FLIP = np.diag([1.0, -1.0, -1.0])  # between OpenGL's axes and OpenCV's
_NEAR_MIDDLE = (0.7, 1.4)  # times half of the picture: where a centre of projection may lie
_ALIKE = 0.1
_SAME = 1e-5


@dataclass(frozen=True)
class Camera:
    """`intrinsics(width, height)` is K, 3x3 in pixels of a file of that size; `c2w` 4x4; `lens` is None for a pinhole.

    `size` is one for which K is known, and has the shape of the pictures where that is known.
    """

    intrinsics: Callable[[int, int], Matrix]
    c2w: Matrix
    lens: Lens | None = None
    size: tuple[int, int] = (100, 100)

    @property
    def place(self) -> Matrix:
        """Where it stands."""
        place: Matrix = self.c2w[:3, 3]
        return place

    def is_like(self, other: "Camera") -> bool:
        """Whether the two take the same picture."""
        if self.size != other.size or self.lens != other.lens:
            return False
        mine, theirs = self.intrinsics(*self.size), other.intrinsics(*other.size)
        return np.allclose(mine, theirs, rtol=_SAME) and np.allclose(self.c2w, other.c2w, rtol=_SAME, atol=_SAME)

    def moved(self, by: Matrix, scale: float = 1.0) -> "Camera":
        """The same camera in a world moved by `by`, then scaled."""
        c2w = self.c2w.copy()
        c2w[:3, 3] = (c2w[:3, 3] + by) * scale
        return dataclasses.replace(self, c2w=c2w)

    def directions(self, intrinsics: Matrix, pixels: Matrix) -> Matrix:
        """Where pixels (3, n), homogeneous, look, in the camera's axes; not of unit length. nan where the lens sees nothing."""
        seen = np.linalg.inv(intrinsics) @ pixels
        if self.lens:
            seen = np.concatenate([self.lens.straighten(seen[:2].T).T, np.ones((1, seen.shape[1]))])
        directions: Matrix = FLIP @ seen
        return directions

    def pixels(self, intrinsics: Matrix, points: Matrix) -> tuple[Matrix, Matrix]:
        """Where points (n, 3) of the world are seen, (n, 2), and how deep they lie; nan behind the camera."""
        local = (points - self.place) @ self.c2w[:3, :3] @ FLIP
        depth = local[:, 2]
        plane = local[:, :2] / np.where(depth > 0, depth, np.nan)[:, None]
        if self.lens:
            plane = self.lens.bend(plane)
        return plane @ intrinsics[:2, :2].T + intrinsics[:2, 2], depth


def checked(found: Camera) -> Camera:
    """The camera itself. Raises ValueError if no picture can have been taken with it."""
    matrix = found.intrinsics(*found.size)
    if not (min(matrix[0, 0], matrix[1, 1]) >= LEAST and np.abs(matrix).max() <= MOST):
        raise ValueError(f"the focal lengths must be positive, and they and the centre at most {MOST:g} pixels")
    distance = math.hypot(*found.place)
    if not distance <= MOST:
        raise ValueError(f"the camera is {distance:g} from the origin, at most {MOST:g} is accepted")
    return found


def check_centre(matrix: Matrix, width: int, height: int) -> None:
    """Raise ValueError if K is that of a picture of another size, or of one that was turned, as its centre tells."""
    x, y = float(matrix[0, 2]), float(matrix[1, 2])
    across, down = 2 * x / width, 2 * y / height
    low, high = _NEAR_MIDDLE
    if not low <= across <= high and across > 0 and abs(down / across - 1) < _ALIKE:
        raise ValueError(
            f"the centre of projection ({x:g}, {y:g}) is the middle of a picture of {2 * x:.0f} x {2 * y:.0f} pixels, this one "
            f"has {width} x {height}: give the focal lengths and the centre of this size, or w and h beside them"
        )
    if abs(across - 1) > _ALIKE and abs(2 * x / height - 1) < _ALIKE / 4 and abs(2 * y / width - 1) < _ALIKE / 4:
        raise ValueError(
            f"the centre of projection ({x:g}, {y:g}) is that of a picture of {height} x {width} pixels, this one has "
            f"{width} x {height}: was it turned by a quarter? Save it upright, as it was when the cameras were found"
        )
