"""Whether the views of one object agree: some region of space must lie inside all of its masks.

That region is the visual hull (Laurentini 1994). It is found on a coarse grid and on the safe side: masks are widened by a
pixel, and a cell counts as inside where any of it may be. Seen through a view's camera the hull explains a part of its mask, the
view's share: near 1 where cameras and pictures were understood, low where they were not.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from sdfsrn.data.camera import FLIP, Camera, Matrix
from sdfsrn.data.transforms_json import Z_UP_TO_Y_UP

GRID = 32  # cells along each side of the grid
SIDE = 64  # pixels of the longer side of a mask, cut out around the object
VIEWS = 200  # of an object, evenly picked, make its hull; all are compared with it
LOW = 0.95  # a view whose mask is explained less than that is named
LEAST = 0.25  # mean share below which nothing is explained
_MARGIN = 4  # pixels around the object in the mask cut out
_WIDENED = 1.0  # pixels by which a mask is widened
_ROUNDING = 0.5  # pixels by which a cell's place in a picture is rounded at most, along an axis
_REACH = 1.25  # times the furthest that any mask reaches from the meeting point: half the side of the first grid
_ROUNDS = 10  # of reweighting, in which rays that miss the others lose weight
_POINT = 1e-6  # of the cameras' distance: an object as small as that is none
_CLOSE = 0.0027  # of the directions' spread: views within about 6 degrees, which say too little about depth


@dataclass(frozen=True, eq=False)
class Silhouette:
    """What one view says about where its object is: its mask, small, with K in that mask's pixels.

    `outline` (3, n) are the directions of the corners of the whole mask's convex hull, `axis` (3) that of its middle; both in the
    camera's axes.
    """

    camera: Camera
    intrinsics: Matrix
    mask: NDArray[np.bool_]
    outline: Matrix
    axis: Matrix

    def reach(self, centre: Matrix) -> float:
        """The radius of the sphere around `centre` that the silhouette touches."""
        to_centre = self.camera.c2w[:3, :3].T @ (centre - self.camera.place)
        distance = float(np.linalg.norm(to_centre))
        cosine = (to_centre / max(distance, 1e-12)) @ self.outline / np.linalg.norm(self.outline, axis=0)
        return distance * float(np.sin(min(np.pi / 2, np.arccos(np.clip(cosine.min(), -1, 1)))))


@dataclass(frozen=True)
class Agreement:
    """`shares[i]` is the part of view i's mask that the hull explains; `centre` and `radius` are the hull's.

    Where there is no hull `centre` is None, and `against` are the views that leave out what most of the others have in common.
    """

    shares: list[float]
    centre: Matrix | None
    radius: float
    against: list[int]


def silhouette(mask: NDArray[np.bool_], intrinsics: Matrix, camera: Camera) -> Silhouette:
    """Of a mask and K in its pixels. Raises ValueError if the lens cannot have seen where the object is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = rows[0], columns[0]
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    cell = max(1, -(-max(part.shape) // (SIDE - 2 * _MARGIN)))
    height, width = (-(-side // cell) for side in part.shape)
    whole = np.zeros((height * cell, width * cell), dtype=np.bool_)
    whole[: part.shape[0], : part.shape[1]] = part
    small = np.pad(whole.reshape(height, cell, width, cell).any(axis=(1, 3)), _MARGIN)
    to_small = np.array([[1 / cell, 0, _MARGIN - left / cell], [0, 1 / cell, _MARGIN - top / cell], [0, 0, 1.0]])
    row, column = np.nonzero(mask)
    pixels = np.stack([column + 0.5, row + 0.5, np.ones(len(row))])
    corners = np.concatenate([_corners(pixels[:2].T), [pixels[:2].mean(axis=1)]])
    directions = camera.directions(intrinsics, np.concatenate([corners.T, np.ones((1, len(corners)))]))
    if not np.isfinite(directions).all():
        raise ValueError("the numbers of the lens do not hold where the object is: k1, k2, ... bend the picture back over itself")
    return Silhouette(camera, to_small @ intrinsics, small, directions[:, :-1], directions[:, -1])


def _corners(points: Matrix) -> Matrix:
    try:
        corners: Matrix = points[ConvexHull(points).vertices]
    except QhullError:  # all on one line
        corners = points[[int(points.sum(axis=1).argmin()), int(points.sum(axis=1).argmax())]]
    return corners


def agreement(views: list[Silhouette]) -> Agreement | None:
    """Of the views of one object; None where they cannot be compared: one alone, or all from nearly the same direction."""
    if len(views) < 2:
        return None
    some = [views[i] for i in np.unique(np.linspace(0, len(views) - 1, min(len(views), VIEWS)).round().astype(int))]
    places, directions = _rays(some)
    centre, spread = meeting_point(places, directions)
    reach = max(view.reach(centre) for view in some)
    if reach <= _POINT * np.linalg.norm(places, axis=1).max():  # all cameras stand in one place, and see the object all around it
        return Agreement([0.0] * len(views), None, 0.0, list(range(len(views))))
    half = np.full(3, max(1e-9, _REACH * reach))
    points, cell = _grid(centre, half)
    points, lonely = _in_all_but_one(some, points, cell)
    hull = points[lonely < 0]
    if not len(hull):
        return None if spread < _CLOSE else Agreement([0.0] * len(views), None, 0.0, _against(some, views, centre, half))
    low, high = hull.min(axis=0) - 2 * cell / np.sqrt(3), hull.max(axis=0) + 2 * cell / np.sqrt(3)
    points, cell = _grid((low + high) / 2, (high - low) / 2)
    points, lonely = _in_all_but_one(some, points, cell)
    hull = points[lonely < 0]
    if not len(hull):
        return Agreement([0.0] * len(views), None, 0.0, _against(some, views, (low + high) / 2, (high - low) / 2))
    shares = [_share(view, hull, cell) for view in views]
    blame = np.bincount(lonely[lonely >= 0], minlength=len(some))  # cells that one view alone leaves out
    against = [views.index(view) for view, cells in zip(some, blame, strict=True) if cells > max(len(hull), blame.max() / 2)]
    middle: Matrix = hull.mean(axis=0)
    return Agreement(shares, middle, float(np.linalg.norm(hull - middle, axis=1).max()), against)


def _rays(views: list[Silhouette]) -> tuple[Matrix, Matrix]:
    """Where the views stand, and the unit directions in which they see the middle of their masks, (n, 3) each."""
    places = np.stack([view.camera.place for view in views])
    directions = np.stack([view.camera.c2w[:3, :3] @ view.axis for view in views])
    return places, directions / np.linalg.norm(directions, axis=1, keepdims=True)


def meeting_point(places: Matrix, directions: Matrix) -> tuple[Matrix, float]:
    """The point nearest to lines (n, 3), and how much their directions differ, 0 to 2/3.

    Least squares, reweighted towards the sum of distances as angles, so that a few wrong lines count for little.
    """
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    weights = np.ones(len(places))
    centre = np.zeros(3)
    for _ in range(_ROUNDS):
        weighted = across * weights[:, None, None]
        centre = np.linalg.pinv(weighted.sum(axis=0), rcond=1e-9) @ np.einsum("nij,nj->i", weighted, places)
        away = np.linalg.norm(np.einsum("nij,nj->ni", across, centre - places), axis=1)
        distance = np.maximum(np.linalg.norm(centre - places, axis=1), 1e-12)
        weights = 1 / np.maximum(away / distance, 1e-3) / distance**2
        weights = weights / weights.max()
    return centre, float(np.linalg.eigvalsh(across.mean(axis=0))[0])


def _grid(centre: Matrix, half: Matrix) -> tuple[Matrix, float]:
    """The middles of the cells of a box, and how far a cell reaches from its middle."""
    axis = (np.arange(GRID) + 0.5) / GRID * 2 - 1
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3) * half + centre
    return points, float(np.linalg.norm(half)) / GRID


def _in_all_but_one(views: list[Silhouette], points: Matrix, cell: float) -> tuple[Matrix, NDArray[np.int64]]:
    """The cells that lie in all masks, or all but one; for each the view in whose mask it does not, -1 if there is none."""
    lonely = np.full(len(points), -1)
    for i in _far_apart_first(len(views)):
        outside = ~_inside(views[i], points, cell)
        kept = ~(outside & (lonely >= 0))
        lonely = np.where(outside, i, lonely)[kept]
        points = points[kept]
    return points, lonely


def _far_apart_first(count: int) -> Iterable[int]:
    """All views, neighbours not in turn, so that few cells are left soon."""
    return sorted(range(count), key=lambda i: (i * 0.6180339887) % 1)


def _inside(view: Silhouette, points: Matrix, cell: float) -> NDArray[np.bool_]:
    """Whether any of a cell may lie in a view's mask."""
    pixels, depth = view.camera.pixels(view.intrinsics, points)
    is_seen = (depth > cell) & np.isfinite(pixels).all(axis=1)
    limit = np.array(view.mask.shape[::-1]) - 1
    place = np.where(is_seen[:, None], pixels, 0.0) - 0.5
    nearest = np.clip(place.round(), 0, limit).astype(int)
    to_mask = ndimage.distance_transform_edt(~view.mask)[nearest[:, 1], nearest[:, 0]]
    beyond = np.linalg.norm(place - nearest, axis=1)
    inside: NDArray[np.bool_] = is_seen & (np.maximum(to_mask - beyond, beyond) <= _WIDENED + _radius(view, cell, depth))
    return inside


def _radius(view: Silhouette, cell: float, depth: Matrix) -> Matrix:
    """How many pixels a cell reaches."""
    focal = max(view.intrinsics[0, 0], view.intrinsics[1, 1])
    radius: Matrix = focal * cell / np.maximum(depth, cell)
    return radius


def _share(view: Silhouette, hull: Matrix, cell: float) -> float:
    pixels, depth = view.camera.pixels(view.intrinsics, hull)
    is_seen = (depth > cell) & np.isfinite(pixels).all(axis=1)
    if not is_seen.any():
        return 0.0
    height, width = view.mask.shape
    column, row = np.floor(pixels[is_seen]).astype(int).T
    within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    shown = np.zeros((height, width), dtype=np.bool_)
    shown[row[within], column[within]] = True
    if not shown.any():
        return 0.0
    radius = _ROUNDING + float(np.median(_radius(view, cell, depth[is_seen])))
    return float((ndimage.distance_transform_edt(~shown)[view.mask] <= radius).mean())


def _against(some: list[Silhouette], views: list[Silhouette], centre: Matrix, half: Matrix) -> list[int]:
    """The views that leave out the cells that most have in common; all where no two thirds have any."""
    points, cell = _grid(centre, half)
    insides = np.stack([_inside(view, points, cell) for view in some])
    best = insides.sum(axis=0).argmax()
    agree = insides[:, best]
    if agree.sum() < max(3, 2 / 3 * len(some)):
        return list(range(len(views)))
    return [views.index(view) for view, agrees in zip(some, agree, strict=True) if not agrees]


_FLIP_4 = np.diag([*np.diag(FLIP), 1.0])
_READINGS: dict[str, Callable[[Matrix], Matrix]] = {
    "with OpenCV's axes (x right, y down, z forward)": lambda c2w: c2w @ _FLIP_4,
    "as world-to-camera": lambda c2w: Z_UP_TO_Y_UP @ np.linalg.inv(Z_UP_TO_Y_UP.T @ c2w),
    "as world-to-camera with OpenCV's axes": lambda c2w: Z_UP_TO_Y_UP @ np.linalg.inv(Z_UP_TO_Y_UP.T @ c2w) @ _FLIP_4,
}


def other_reading(views: list[Silhouette]) -> str | None:
    """Another way of reading the poses in which views agree that do not as they stand; None if none is known."""
    for name, read in _READINGS.items():
        reread = [dataclasses.replace(view, camera=dataclasses.replace(view.camera, c2w=read(view.camera.c2w))) for view in views]
        found = agreement(reread)
        if found and found.centre is not None and np.mean(found.shares) >= LOW:
            return name
    return None
