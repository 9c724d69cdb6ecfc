"""Views of one object for a fit: masks at their own resolution, any pinhole, in a world where the object fills the unit ball.

A data set's archive is read as for a training, but no picture is warped or reduced to a training's 64 x 64 pixels. The object is
placed by this rule. Where views can be compared, the centre is that of the bounding box of their visual hull. Where they cannot,
as one view alone, it is the point on the ray through the middle of the masks that lies nearest to the world's origin. Then the
world is scaled so that the hull, or the mask, reaches FILL from the centre.
"""

import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from sdfsrn.data.agreement import LEAST, Agreement, Silhouette, agreement, other_reading, silhouette
from sdfsrn.data.archive import Archive, BadDataset
from sdfsrn.data.camera import FLIP, Camera, Matrix
from sdfsrn.data.shots import Shot, find_shots
from sdfsrn.data.sizes import check_sizes
from sdfsrn.data.transforms_json import Z_UP_TO_Y_UP
from sdfsrn.data.warping import intrinsics_of
from sdfsrn.fields.hull import VisualHull
from sdfsrn.geometry.pinholes import Pinhole
from sdfsrn.images import read_picture

FILL = 0.9  # of the unit ball's radius is reached by the object
GRID = 48  # nodes along each side of the grid that says where the hull lies
WIDER = 1.1  # times the hull that the views' agreement found, which is coarse: where the finer one is sought
NEAREST = 1.02  # scene units from the centre: a camera nearer than that stands in the ball, and masks say little

# phase, done, total; may raise, which is how a caller stops
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class ObjectView:
    """One view: `mask` (height, width), `intrinsics` K (3, 3) in its pixels, `c2w` (4, 4) with OpenGL axes, y up."""

    name: str
    mask: NDArray[np.bool_]
    intrinsics: Matrix
    c2w: Matrix

    @property
    def camera(self) -> Pinhole:
        """As a camera of pictures of the mask's size."""
        height, width = self.mask.shape
        return Pinhole(self.intrinsics, self.c2w, width, height)


@dataclass(frozen=True, eq=False)
class OneObject:
    """Views in a world where the object lies in the unit ball.

    `to_sent` (4, 4) takes that world to the coordinates of the capture. `shares[i]` is the part of view i's mask that all views
    together explain; None where they cannot be compared. `skipped` says what is wrong with pictures that were left out.
    """

    views: list[ObjectView]
    to_sent: Matrix
    shares: list[float] | None
    skipped: dict[str, str]

    def hull(self, chosen: list[int] | None = None) -> VisualHull:
        """The visual hull of all views, or of some."""
        views = self.views if chosen is None else [self.views[i] for i in chosen]
        return hull_of(views)


def hull_of(views: list[ObjectView]) -> VisualHull:
    """The visual hull of views."""
    intrinsics, c2w = (np.stack([getattr(view, name) for view in views]) for name in ("intrinsics", "c2w"))
    return VisualHull([view.mask for view in views], intrinsics, c2w)


def read_object(
    path: Path,
    progress: Progress = lambda phase, done, total: None,
    *,
    subject: str | None = None,
    skip_bad: bool = False,
) -> OneObject:
    """Read a zip or a folder that data sets take.

    `subject` is the folder of the object within it, needed where there are several. Raises BadDataset, which names every view
    that cannot be used and says what to do; with `skip_bad` such views are left out, as long as any remain.
    """
    with _opened(path) as archive:
        check_sizes(archive, skip_bad=skip_bad)
        shots, bad = find_shots(archive)
        shots = _of_one(archive, shots, subject)
        _refuse(bad, len(shots), skip_bad)
        seen = _read(archive, shots, bad, progress)
        _refuse(bad, len(seen), skip_bad)
        is_z_up = not any(path.endswith(".npz") for path in archive.paths)
    found = placed([view for view, _ in seen], bad, skip_bad)
    axes = Z_UP_TO_Y_UP.T if is_z_up else np.eye(4)
    return replace(found, to_sent=axes @ found.to_sent)


def placed(views: list[ObjectView], bad: dict[str, str] | None = None, skip_bad: bool = False) -> OneObject:
    """Views in any world, y up, compared with one another and placed by this module's rule. Raises BadDataset.

    `to_sent` takes the unit ball's world to that of the views.
    """
    bad = {} if bad is None else bad
    standing = {views[i].name: _INSIDE for i in _standing_inside(views)}
    bad |= standing
    views = [view for view in views if view.name not in standing]
    _refuse(bad, len(views), skip_bad)
    views, agreed = _compared(views, bad, skip_bad)
    to_world = _bounded(views, agreed) if agreed and agreed.centre is not None else _alone(views)
    moved = [replace(view, c2w=_in_ball(view.c2w, to_world)) for view in views]
    near = {view.name: _NEAR for view in moved if np.linalg.norm(view.c2w[:3, 3]) < NEAREST}
    _refuse(bad | near, len(moved) - len(near), skip_bad and not near)
    return OneObject(moved, to_world, agreed.shares if agreed else None, bad)


_INSIDE = (
    "the camera stands inside the object, as all other masks see it; give its pose as camera-to-world in the units of the others, "
    "or leave the picture out"
)
_NEAR = (
    "the camera stands within the ball around the object; take the picture from further away, or check the units of its position"
)


@contextmanager
def _opened(path: Path) -> Iterator[Archive]:
    """A zip as it is, or a folder as one."""
    if path.is_file():
        with Archive(path) as archive:
            yield archive
        return
    with tempfile.TemporaryFile() as file:
        _pack(path, file)
        with Archive(file, path.name) as archive:
            yield archive


def _pack(folder: Path, file: BinaryIO) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                packed.write(path, path.relative_to(folder).as_posix())


def _of_one(archive: Archive, shots: list[Shot], subject: str | None) -> list[Shot]:
    subjects = list(dict.fromkeys(shot.subject for shot in shots))
    if subject is not None and subject not in subjects:
        raise BadDataset({archive.name: f"has no object {subject!r:.80}, only {', '.join(subjects[:20])}"})
    if subject is None and len(subjects) > 1:
        named = ", ".join(subjects[:20])
        raise BadDataset({archive.name: f"holds {len(subjects)} objects and a fit takes one; say which: {named}"})
    return [shot for shot in shots if subject in (None, shot.subject)]


def _refuse(bad: dict[str, str], left: int, skip_bad: bool) -> None:
    if bad and not (skip_bad and left):
        raise BadDataset(bad, f"With skip_bad such views are left out; {left} good ones remain" if left else "")


def _read(archive: Archive, shots: list[Shot], bad: dict[str, str], progress: Progress) -> list[tuple[ObjectView, Shot]]:
    seen = []
    for i, shot in enumerate(shots):
        progress("reading", i, len(shots))
        try:
            seen.append((_view(archive, shot), shot))
        except ValueError as error:
            bad[(shot.mask if getattr(error, "field", "") == "mask" else None) or shot.image] = str(error)
    return seen


def _view(archive: Archive, shot: Shot) -> ObjectView:
    mask_file = archive.read(shot.mask) if shot.mask else None
    picture = read_picture(archive.read(shot.image), mask_file, background="plain")
    mask, matrix = picture.mask, intrinsics_of(shot.camera, picture)
    if _touches_border(mask):
        raise ValueError("the object is cut off by the picture's border; leave a margin, or leave the picture out")
    if shot.camera.lens:
        mask, matrix = _straightened(mask, matrix, shot.camera)
    return ObjectView(shot.image, mask, matrix, shot.camera.c2w)


def _touches_border(mask: NDArray[np.bool_]) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _straightened(mask: NDArray[np.bool_], matrix: Matrix, camera: Camera) -> tuple[NDArray[np.bool_], Matrix]:
    """The mask as a pinhole at the same place, with the same focal length, sees it, and that pinhole's K."""
    row, column = np.nonzero(mask)
    seen = camera.directions(matrix, np.stack([column + 0.5, row + 0.5, np.ones(len(row))]))
    if not np.isfinite(seen).all():
        raise ValueError("the numbers of the lens do not hold where the object is: k1, k2, ... bend the picture back over itself")
    straight = FLIP @ seen
    pixels = (straight[:2] / straight[2]).T @ matrix[:2, :2].T
    margin = 4.0  # pixels, so that the object keeps off the border
    low = np.floor(pixels.min(axis=0) - margin)
    width, height = (np.ceil(pixels.max(axis=0) + margin) - low).astype(int)
    if max(width, height) > 4 * max(mask.shape):
        raise ValueError("the lens spreads the object over more than four times its picture; send pictures that are straightened")
    target = matrix.copy()
    target[:2, 2] = -low
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    plane = (np.stack([x, y], axis=-1) - target[:2, 2]) @ np.linalg.inv(matrix[:2, :2]).T
    assert camera.lens is not None
    bent = camera.lens.bend(plane) @ matrix[:2, :2].T + matrix[:2, 2] - 0.5
    place = np.moveaxis(np.nan_to_num(bent, nan=-10.0), -1, 0)[::-1]
    return ndimage.map_coordinates(mask.astype(np.float32), place, order=1) > 0.5, target


def _standing_inside(views: list[ObjectView]) -> list[int]:
    """Whose camera all the other masks show inside the object; two other views at least must say so."""
    if len(views) < 3:
        return []
    found = []
    for i, view in enumerate(views):
        others = hull_places([other for j, other in enumerate(views) if j != i], view.c2w[:3, 3])
        if others.all():
            found.append(i)
    return found


def hull_places(views: list[ObjectView], point: Matrix) -> NDArray[np.bool_]:
    """In which masks a point is seen."""
    found = np.zeros(len(views), dtype=np.bool_)
    for i, view in enumerate(views):
        pixels, depth = Camera(lambda width, height: np.eye(3), view.c2w).pixels(view.intrinsics, point[None])
        if depth[0] > 0:
            column, row = np.floor(pixels[0]).astype(int)
            height, width = view.mask.shape
            found[i] = 0 <= row < height and 0 <= column < width and view.mask[row, column]
    return found


def _compared(views: list[ObjectView], bad: dict[str, str], skip_bad: bool) -> tuple[list[ObjectView], Agreement | None]:
    """The views that agree; those that do not are added to `bad`."""
    while True:
        looks = [_silhouette(view) for view in views]
        agreed = agreement(looks)
        if agreed is None or (agreed.centre is not None and np.mean(agreed.shares) >= LEAST):
            return views, agreed
        reading = other_reading(looks)
        against = agreed.against if agreed.against and not reading else list(range(len(views)))
        bad |= {views[i].name: _disagreement(len(views), len(against), agreed, reading) for i in against}
        views = [view for view in views if view.name not in bad]
        _refuse(bad, len(views), skip_bad)


def _silhouette(view: ObjectView) -> Silhouette:
    return silhouette(view.mask, view.intrinsics, Camera(lambda width, height: view.intrinsics, view.c2w))


def _disagreement(count: int, against: int, agreed: Agreement, reading: str | None) -> str:
    if against < count:
        return (
            f"contradicts the other views: {count - against} of {count} masks have a region of space in common, and it lies "
            "outside this one. Check that its camera and its mask are its own, or leave it out"
        )
    seen = (
        "no region of space lies inside all masks"
        if agreed.centre is None
        else (f"the region inside all masks explains {np.mean(agreed.shares):.0%} of them")
    )
    if reading:
        return f"all {count} views contradict one another: {seen}. They agree if the poses are read {reading}, so convert them"
    return (
        f"all {count} views contradict one another: {seen}. Check the axes of the poses (camera-to-world, x right, y up, looking "
        "along -z), the focal length, and that pictures, masks and cameras are each other's"
    )


def _bounded(views: list[ObjectView], agreed: Agreement) -> Matrix:
    """What takes the unit ball to the world so that the hull of agreeing views fills FILL of it."""
    assert agreed.centre is not None
    coarse = _ball(agreed.centre, WIDER * agreed.radius)
    hull = hull_of([replace(view, c2w=_in_ball(view.c2w, coarse)) for view in views])
    axis = torch.linspace(-1, 1, GRID)
    nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(1, -1, 3)
    cell = 2 / (GRID - 1)
    inside = nodes[0][hull(nodes)[0] < cell / 2].double().numpy()
    if not len(inside):  # thinner than a cell
        return _ball(agreed.centre, agreed.radius / FILL)
    middle = (inside.min(axis=0) + inside.max(axis=0)) / 2
    reach = float(np.linalg.norm(inside - middle, axis=1).max()) + cell / 2
    return coarse @ _ball(middle, reach / FILL)


def _alone(views: list[ObjectView]) -> Matrix:
    """The same where views cannot be compared: by the masks' own middles."""
    looks = [_silhouette(view) for view in views]
    centres, bad = [], {}
    for view, look in zip(views, looks, strict=True):
        direction = view.c2w[:3, :3] @ look.axis / np.linalg.norm(look.axis)
        distance = float(-view.c2w[:3, 3] @ direction)
        if distance <= 0:
            bad[view.name] = (
                "looks away from the world's origin, and one view alone does not tell how far away its object is; move the world's "
                "origin to the object"
            )
        centres.append(view.c2w[:3, 3] + distance * direction)
    if bad:
        raise BadDataset(bad)
    centre: Matrix = np.mean(centres, axis=0)
    return _ball(centre, max(look.reach(centre) for look in looks) / FILL)


def _ball(centre: Matrix, radius: float) -> Matrix:
    """What takes the unit ball to one of this centre and radius."""
    found = np.diag([radius, radius, radius, 1.0])
    found[:3, 3] = centre
    return found


def _in_ball(c2w: Matrix, to_world: Matrix) -> Matrix:
    """A pose in the unit ball's world; its axes keep their length."""
    found = c2w.copy()
    found[:3, 3] = (c2w[:3, 3] - to_world[:3, 3]) / to_world[0, 0]
    return found
