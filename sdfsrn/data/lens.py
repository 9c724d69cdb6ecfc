"""Lenses that bend: OpenCV's perspective and fisheye models, as nerfstudio and instant-ngp write them.

Points are (x, y) on the plane at depth 1 before the camera, x to the right and y down. `bend` takes where a straight (pinhole) ray
meets that plane to where the picture shows it, `straighten` takes it back. Source: OpenCV, "Camera Calibration and 3D
Reconstruction" and "Fisheye camera model".
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

_WIDEST = np.tan(np.radians(85.0))  # radius on the plane at depth 1 beyond which nothing is read
_STEPS = 20_000  # of the table that a radius is looked up in: exact to 1e-6
_ROUNDS = 20  # in which the tangential part, which is small, is found


@dataclass(frozen=True)
class Lens:
    """`radial` is k1, k2, k3 (k4 of a fisheye), `tangential` p1, p2; a fisheye has none of these."""

    radial: tuple[float, float, float, float]
    tangential: tuple[float, float] = (0.0, 0.0)
    is_fisheye: bool = False

    def bend(self, points: Points) -> Points:
        """Where straight rays are seen, (..., 2); nan where the numbers of the lens hold no more."""
        radius = np.linalg.norm(points, axis=-1)
        known = radius <= self._table[0][-1]
        scale = np.where(known, self._bent_radius(np.where(known, radius, 0.0)) / np.maximum(radius, 1e-12), np.nan)
        scale = np.where(radius < 1e-12, 1.0, scale)
        bent: Points = points * scale[..., None] + self._sideways(points)
        return bent

    def straighten(self, points: Points) -> Points:
        """The straight rays of what is seen, (..., 2); nan where the numbers of the lens hold no more."""
        straight = self._straight_radially(points)
        for _ in range(_ROUNDS if any(self.tangential) else 0):
            straight = self._straight_radially(points - self._sideways(straight))
        return straight

    def _straight_radially(self, points: Points) -> Points:
        straight, bent = self._table
        radius = np.linalg.norm(points, axis=-1)
        scale = np.interp(radius, bent, straight, right=np.nan) / np.maximum(radius, 1e-12)
        found: Points = points * np.where(radius < 1e-12, 1.0, scale)[..., None]
        return found

    @cached_property
    def _table(self) -> tuple[Points, Points]:
        """Straight and bent radii as far as both grow."""
        straight = np.linspace(0, _WIDEST, _STEPS)
        if self.is_fisheye:  # evenly by angle
            straight = np.tan(np.linspace(0, np.radians(85.0), _STEPS))
        bent = self._bent_radius(straight)
        falls = np.flatnonzero(np.diff(bent) <= 0)
        end = falls[0] + 1 if len(falls) else _STEPS
        return straight[:end], bent[:end]

    def _bent_radius(self, radius: Points) -> Points:
        along = np.arctan(radius) if self.is_fisheye else radius
        k1, k2, k3, k4 = self.radial
        square = along**2
        bent: Points = along * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4))))
        return bent

    def _sideways(self, points: Points) -> Points:
        p1, p2 = self.tangential
        x, y = points[..., 0], points[..., 1]
        square = x**2 + y**2
        return np.stack([2 * p1 * x * y + p2 * (square + 2 * x**2), p1 * (square + 2 * y**2) + 2 * p2 * x * y], axis=-1)
