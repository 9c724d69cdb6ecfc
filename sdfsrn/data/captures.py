"""Data sets of one's own: a zip of pictures, masks and cameras becomes pictures that look at the origin of one common world.

Each object has a folder with a `transforms.json`, or with `cameras.npz`, `image/` and, unless the pictures have alpha, `mask/`.
Every picture is warped to a virtual camera at its own place that looks at the origin; the world is scaled so that all objects
lie within the unit sphere, which all of these cameras see in whole. An object that lies beside the origin is moved there.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from sdfsrn.data.agreement import LEAST, LOW, Agreement, Silhouette, agreement, other_reading, silhouette
from sdfsrn.data.archive import Archive, BadDataset
from sdfsrn.data.camera import Camera, Matrix
from sdfsrn.data.dataset import first_of_each
from sdfsrn.data.shots import Shot, find_shots
from sdfsrn.data.sizes import check_sizes
from sdfsrn.data.views import TrainingViews
from sdfsrn.data.warping import SIZE, contact_sheet, intrinsics_of, warp
from sdfsrn.geometry.cameras import orbit_c2w
from sdfsrn.images import TILE, ImageError, read_picture

__all__ = ["Captures", "contact_sheet", "read_captures"]

FILL = 0.95  # of the unit sphere's radius is reached by the object that reaches furthest
NEAREST = 1.15  # scene units from the origin: a camera closer than that sees the unit sphere too wide
FURTHEST = 100.0  # what a checkpoint may say of its cameras' distance
MARGIN = 1.06  # of the field of view around the unit sphere
SPECK = 0.01  # share of the mask below which a part of it says nothing about how far the object reaches
LEAST_LENGTH = 1e-9  # of lengths in the world that was sent

# phase, done, total; may raise, which is how a caller stops
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Captures:
    """The views, of which `subjects[i]` says what picture i shows; `report` is what people are told."""

    views: TrainingViews
    subjects: list[str]
    report: dict[str, Any]


@dataclass(frozen=True)
class _Look:
    """What one picture says by itself; `reach` is how far from the world's origin the object reaches."""

    shot: Shot
    silhouette: Silhouette
    reach: float


@dataclass(frozen=True)
class _Seen:
    """A shot that was read: its camera, in a world whose origin lies in the object, and how far from it the object reaches."""

    shot: Shot
    camera: Camera
    reach: float
    silhouette: Silhouette | None = None


@dataclass(frozen=True)
class _Object:
    """What the views of one object say together; `agreed` is None where they cannot be compared."""

    seen: list[_Seen]
    centre: Matrix
    agreed: Agreement | None


def read_captures(
    path: Path, progress: Progress = lambda phase, done, total: None, *, skip_bad: bool = False, recentre: bool = False
) -> Captures:
    """Read a zip. Raises BadDataset, which names every file that is bad.

    With `skip_bad` what is bad is left out, and the report names it; it is only raised for if nothing is left. With `recentre` an
    object that lies beside its world's origin is moved there; else its cameras stay as they were sent, or are refused.
    """
    with Archive(path) as archive:
        check_sizes(archive, lambda done, total: progress("checking", done, total), skip_bad=skip_bad)
        shots, bad = find_shots(archive)
        if bad and not skip_bad:
            raise _refused(bad, f"{len(shots)} pictures are then looked at" if shots else "")
        objects = _read(archive, shots, bad, skip_bad, progress)
        if recentre:
            objects = {name: _at_origin(found) for name, found in objects.items()}
        seen = [each for found in objects.values() for each in found.seen]
        _refuse_what_is_bad(bad, seen, skip_bad)
        scale, seen = _scaled(seen, bad, skip_bad)
        _refuse_what_is_bad(bad, seen, skip_bad, "" if recentre else _where_beside(objects))
        distances = np.array([_distance(each.camera) for each in seen])
        fovy_deg = _field_of_view(distances.tolist())
        views = _warped(archive, seen, fovy_deg, progress)
    subjects = [each.shot.subject for each in seen]
    used = {name for each in seen for name in (each.shot.image, each.shot.mask) if name}
    report = {
        "objects": len(set(subjects)),
        "pictures": len(seen),
        "scale": scale,  # of the world that was sent
        **_moved(objects),
        "camera_distance": views.camera_distance,
        "camera_distances": [float(distances.min()), float(distances.max())],
        "fovy_deg": fovy_deg,
        "agreement": _agreement(objects),
        "digest": views.digest(first_of_each(subjects)),
        "skipped": bad,
        "unused": [
            name for name in archive.paths if name not in used and name not in bad and not name.endswith((".json", ".npz"))
        ],
    }
    return Captures(views, subjects, report)


def _refuse_what_is_bad(bad: dict[str, str], left: list[_Seen], skip_bad: bool, advice: str = "") -> None:
    if bad and not (skip_bad and left):
        raise _refused(bad, f"{len(left)} good pictures remain" if left else "", advice)


def _refused(bad: dict[str, str], left: str, advice: str = "") -> BadDataset:
    return BadDataset(bad, advice or (f"With skip_bad=true what is bad is left out; {left}" if left else ""))


def _where_beside(objects: dict[str, _Object]) -> str:
    """What to do about objects that do not lie at the origin of their world; nothing if all do."""
    beside = {name: found.agreed.centre for name, found in objects.items() if _is_beside(found) and found.agreed}
    for name, centre in beside.items():
        if centre is not None:
            place = ", ".join(f"{part:.3g}" for part in centre)
            return (
                f"{name} lies around ({place}) of the world that was sent, y up, not around its origin; "
                "with recentre=true it is moved there"
            )
    return ""


def _read(
    archive: Archive, shots: list[Shot], bad: dict[str, str], skip_bad: bool, progress: Progress
) -> dict[str, _Object]:
    """The objects by name; what is wrong with their pictures is added to `bad`."""
    objects = {}
    done = 0
    for subject, some in groupby(shots, key=lambda shot: shot.subject):
        looks: list[_Look] = []
        for shot in some:
            progress("reading", done, len(shots))
            done += 1
            try:
                looks.append(_look(archive, shot))
            except ValueError as error:
                bad[(shot.mask if getattr(error, "field", "") == "mask" else None) or shot.image] = str(error)
        if found := _compared(subject, looks, bad, skip_bad, lambda: progress("reading", done, len(shots))):  # noqa: B023
            objects[subject] = found
    return objects


def _look(archive: Archive, shot: Shot) -> _Look:
    picture = read_picture(*_files(archive, shot), background="plain")
    if _touches_border(picture.mask):
        raise ValueError("the object is cut off by the picture's border; leave a margin, or leave the picture out")
    intrinsics = intrinsics_of(shot.camera, picture)
    mask = _without_specks(picture.mask)
    outline = silhouette(mask, intrinsics, shot.camera)  # first: it looks whether the lens holds
    return _Look(shot, outline, _reach(mask, shot.camera, intrinsics))


def _compared(
    subject: str, looks: list[_Look], bad: dict[str, str], skip_bad: bool, going_on: Callable[[], None]
) -> _Object | None:
    """The object that agreeing views show; views that do not agree are added to `bad`, None if all of them."""
    while looks:
        going_on()
        agreed = agreement([look.silhouette for look in looks])
        if agreed is None or (agreed.centre is not None and np.mean(agreed.shares) >= LEAST):
            return _object(looks, agreed)
        reading = other_reading([look.silhouette for look in looks])
        against = agreed.against if agreed.against and not reading else list(range(len(looks)))
        bad |= dict.fromkeys([looks[i].shot.image for i in against], _disagreement(subject, looks, agreed, against, reading))
        if not skip_bad:
            return None
        looks = [look for i, look in enumerate(looks) if i not in set(against)]
    return None


def _object(looks: list[_Look], agreed: Agreement | None) -> _Object:
    seen = [_Seen(look.shot, look.shot.camera, look.reach, look.silhouette) for look in looks]
    return _Object(seen, np.zeros(3), agreed)


def _is_beside(found: _Object) -> bool:
    """Whether the world's origin lies outside the object."""
    return found.agreed is not None and found.agreed.centre is not None and bool(
        np.linalg.norm(found.agreed.centre) > found.agreed.radius
    )


def _at_origin(found: _Object) -> _Object:
    """The object moved to the origin of its world, if it lies beside it."""
    if not _is_beside(found) or found.agreed is None or found.agreed.centre is None:
        return found
    centre = found.agreed.centre
    moved = [
        dataclasses.replace(each, camera=each.camera.moved(-centre), reach=each.silhouette.reach(centre))
        for each in found.seen
        if each.silhouette
    ]
    return dataclasses.replace(found, seen=moved, centre=centre)


def _disagreement(subject: str, looks: list[_Look], agreed: Agreement, against: list[int], reading: str | None) -> str:
    """What was seen, and what may be wrong."""
    if len(against) < len(looks):
        return (
            f"does not agree with the other views of {subject}: {len(looks) - len(against)} of {len(looks)} masks have a region of "
            "space in common, and it lies outside this one; are its camera and its mask its own?"
        )
    seen = "no region of space lies inside all masks" if agreed.centre is None else (
        f"the region inside all masks explains {np.mean(agreed.shares):.0%} of them"
    )
    hint = (
        f"they agree if the poses are read {reading}, so convert them; expected are camera-to-world matrices in OpenGL axes "
        "(x right, y up, looking along -z)"
        if reading
        else "the cameras may have other axes than OpenGL's (x right, y up, looking along -z), be world-to-camera, have angles in "
        "degrees, or intrinsics of pictures of another size; or pictures, masks and cameras are not each other's"
    )
    return f"the {len(looks)} views of {subject} contradict one another: {seen}. {hint[0].upper()}{hint[1:]}"


def _scaled(seen: list[_Seen], bad: dict[str, str], skip_bad: bool) -> tuple[float, list[_Seen]]:
    """The scale at which all objects fit the unit sphere, and their cameras at it; those that stand astray are added to `bad`."""
    while True:
        scale = FILL / max(1e-12, *(each.reach for each in seen))  # of a camera that sees next to nothing, which is then too far
        scaled = [dataclasses.replace(each, camera=each.camera.moved(np.zeros(3), scale)) for each in seen]
        astray = {
            each.shot.image: _astray(_distance(each.camera), each.reach)
            for each in scaled
            if not NEAREST <= _distance(each.camera) <= FURTHEST
        }
        fovy_deg = _field_of_view([_distance(each.camera) for each in scaled if each.shot.image not in astray])
        for each in scaled:
            if each.shot.image not in astray and _pixels(each, scale, fovy_deg) < 1:
                astray[each.shot.image] = _TOO_SMALL
        bad |= astray
        if not astray or not skip_bad or len(astray) == len(seen):
            return scale, [each for each in scaled if each.shot.image not in astray]
        seen = [each for each in seen if each.shot.image not in astray]


_TOO_SMALL = (
    "the object is less than a pixel of the 64 that a training sees, beside a camera that stands much nearer: leave out the far "
    "picture or the near ones"
)


def _field_of_view(distances: Sequence[float]) -> float:
    """In degrees, of cameras that all see the unit sphere in whole, however near the nearest stands."""
    return 2 * math.degrees(math.asin(1 / min(distances, default=NEAREST))) * MARGIN


def _pixels(seen: _Seen, scale: float, fovy_deg: float) -> float:
    """The radius of the object in the 64 x 64 picture of a camera with this field of view."""
    return SIZE / 2 * seen.reach * scale / _distance(seen.camera) / math.tan(math.radians(fovy_deg) / 2)


def _astray(distance: float, reach: float) -> str:
    near = distance < NEAREST
    return (
        f"the camera is {distance:.3g} from the origin once the object that reaches furthest fits the unit sphere (this one "
        f"reaches {reach:.3g} before that), expected at {f'least {NEAREST:g}' if near else f'most {FURTHEST:g}'}: "
        f"is the {'object at the origin' if near else 'focal length right'}?"
    )


def _files(archive: Archive, shot: Shot) -> list[bytes]:
    """The picture's, and the mask's if it has one. Raises ValueError; an ImageError if the mask is to blame."""
    files = [archive.read(shot.image)]
    if shot.mask:
        try:
            files.append(archive.read(shot.mask))
        except ValueError as error:
            raise ImageError("mask", str(error)) from error
    return files


def _touches_border(mask: NDArray[np.bool_]) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _without_specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    sizes: NDArray[Any] = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept: NDArray[np.bool_] = (sizes >= SPECK * sizes.sum())[labels] & mask
    return kept


def _reach(mask: NDArray[np.bool_], camera: Camera, intrinsics: Matrix) -> float:
    """The radius of the sphere around the origin that the object's silhouette touches, in units of the world that was sent."""
    if _distance(camera) < LEAST_LENGTH:
        return 0.0  # it stands at the origin, where no object can be
    row, column = np.nonzero(mask)
    directions = camera.directions(intrinsics, np.stack([column + 0.5, row + 0.5, np.ones(len(row))]))
    to_origin = -camera.c2w[:3, :3].T @ camera.c2w[:3, 3]
    cosine = (to_origin / np.linalg.norm(to_origin)) @ (directions / np.linalg.norm(directions, axis=0))
    return float(np.linalg.norm(to_origin) * np.sin(min(math.pi / 2, math.acos(np.clip(cosine.min(), -1, 1)))))


def _distance(camera: Camera) -> float:
    return float(np.linalg.norm(camera.place))


def _warped(archive: Archive, seen: list[_Seen], fovy_deg: float, progress: Progress) -> TrainingViews:
    places = torch.from_numpy(np.stack([each.camera.place for each in seen])).float()
    distances = torch.linalg.vector_norm(places, dim=-1)
    azimuth = torch.rad2deg(torch.atan2(places[:, 0], places[:, 2])) % 360
    elevation = torch.rad2deg(torch.asin(places[:, 1] / distances))
    poses = orbit_c2w(azimuth, elevation, distances)
    tiles = torch.empty(len(seen), 3, TILE, TILE, dtype=torch.uint8)
    masks = torch.empty(len(seen), SIZE, SIZE, dtype=torch.bool)
    for i, (each, pose) in enumerate(zip(seen, poses, strict=True)):
        progress("warping", i, len(seen))
        picture = read_picture(*_files(archive, each.shot), background="plain")
        tile, mask = warp(picture, each.camera, pose.numpy().astype(np.float64), fovy_deg)
        tiles[i] = torch.from_numpy(tile).permute(2, 0, 1)
        masks[i] = torch.from_numpy(mask)
    return TrainingViews(tiles, masks, poses, azimuth, elevation, torch.ones(len(poses)), float(distances.median()), fovy_deg)


def _moved(objects: dict[str, _Object]) -> dict[str, Any]:
    """Where the objects lay in the world that was sent, y up, before they were moved to the origin: all at one place, or each."""
    centres = {name: [float(part) for part in found.centre] for name, found in objects.items()}
    places = list(centres.values())
    if all(place == places[0] for place in places):
        return {"centre": places[0]}
    return {"centre": None, "centres": {name: centre for name, centre in centres.items() if any(centre)}}


def _agreement(objects: dict[str, _Object]) -> dict[str, Any]:
    """How well the views of each object explain one another, the worst first; one view alone cannot be compared."""
    compared = {name: found for name, found in objects.items() if found.agreed}
    shares = {name: found.agreed.shares for name, found in compared.items() if found.agreed}
    return {
        "min": min((min(each) for each in shares.values()), default=None),
        "mean": float(np.mean([share for each in shares.values() for share in each])) if shares else None,
        "unchecked": len(objects) - len(compared),
        "objects": {
            name: {"views": len(shares[name]), "min": min(shares[name]), "mean": float(np.mean(shares[name])), "low": _low(found)}
            for name, found in sorted(compared.items(), key=lambda item: min(shares[item[0]]))
        },
    }


def _low(found: _Object) -> dict[str, float]:
    """The views to look at: those of low share, and those that alone leave out what all others have in common."""
    assert found.agreed is not None
    shares = found.agreed.shares
    named = {*found.agreed.against, *(i for i, share in enumerate(shares) if share < LOW)}
    if found.agreed.against:  # whose fault the low shares of the others are
        named = set(found.agreed.against)
    return {found.seen[i].shot.image: shares[i] for i in sorted(named, key=lambda i: shares[i])}
