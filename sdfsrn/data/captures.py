"""Data sets of one's own: a zip of pictures, masks and cameras becomes pictures that look at the origin of one common world.

Each object has a folder with a `transforms.json`, or with `cameras.npz`, `image/` and, unless the pictures have alpha, `mask/`.
Every picture is warped to a virtual camera at its own place that looks at the origin; the world is scaled so that all objects
lie within the unit sphere, which all of these cameras see in whole.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sdfsrn.data.archive import Archive, BadDataset
from sdfsrn.data.camera_files import Matrix, Pinhole
from sdfsrn.data.shots import Shot, find_shots
from sdfsrn.data.views import TrainingViews
from sdfsrn.geometry.cameras import orbit_c2w
from sdfsrn.images import Picture, count_pixels, read_picture, tile_of

SIZE = 64
FILL = 0.95  # of the unit sphere's radius is reached by the object that reaches furthest
NEAREST = 1.15  # scene units from the origin: a camera closer than that sees the unit sphere too wide
FURTHEST = 100.0  # what a checkpoint may say of its cameras' distance
MARGIN = 1.06  # of the field of view around the unit sphere
OVERSAMPLING = 8  # samples per side of a pixel that a warped picture is averaged over
MAX_DECODED = 20_000_000_000  # pixels of an archive's pictures and masks together; all are decoded twice: 20 minutes at worst
SPECK = 0.01  # share of the mask below which a part of it says nothing about how far the object reaches
_FLIP = np.diag([1.0, -1.0, -1.0])  # between OpenGL's axes and OpenCV's

# phase, done, total; may raise, which is how a caller stops
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Captures:
    """The views, of which `subjects[i]` says what picture i shows; `report` is what people are told."""

    views: TrainingViews
    subjects: list[str]
    report: dict[str, Any]


def read_captures(path: Path, progress: Progress = lambda phase, done, total: None) -> Captures:
    """Read a zip. Raises BadDataset, which names every file that is bad."""
    with Archive(path) as archive:
        shots = find_shots(archive)
        reaches = _measure(archive, shots, progress)
        scale = FILL / max(1e-12, *reaches)  # of a camera that sees next to nothing, which is then too far away
        shots = [dataclasses.replace(shot, camera=_scaled(shot.camera, scale)) for shot in shots]
        distances = np.array([_distance(shot.camera) for shot in shots])
        if astray := {
            shot.image: _astray(distance, reach)
            for shot, distance, reach in zip(shots, distances, reaches, strict=True)
            if not NEAREST <= distance <= FURTHEST
        }:
            raise BadDataset(astray)
        fovy_deg = 2 * math.degrees(math.asin(1 / distances.min())) * MARGIN
        views = _warped(archive, shots, fovy_deg, progress)
    subjects = [shot.subject for shot in shots]
    used = {name for shot in shots for name in (shot.image, shot.mask) if name}
    report = {
        "objects": len(set(subjects)),
        "pictures": len(shots),
        "scale": scale,  # of the world that was sent
        "camera_distance": views.camera_distance,
        "camera_distances": [float(distances.min()), float(distances.max())],
        "fovy_deg": fovy_deg,
        "digest": views.digest(),
        "unused": [name for name in archive.paths if name not in used and not name.endswith((".json", ".npz"))],
    }
    return Captures(views, subjects, report)


def _astray(distance: float, reach: float) -> str:
    near = distance < NEAREST
    return (
        f"the camera is {distance:.3g} from the origin once the object that reaches furthest fits the unit sphere (this one "
        f"reaches {reach:.3g} before that), expected at {f'least {NEAREST:g}' if near else f'most {FURTHEST:g}'}: "
        f"is the {'object at the origin' if near else 'focal length right'}?"
    )


def _measure(archive: Archive, shots: list[Shot], progress: Progress) -> list[float]:
    """How far from the origin each object reaches, as its picture shows it."""
    bad: dict[str, str] = {}
    reaches = []
    pixels = 0
    for i, shot in enumerate(shots):
        progress("reading", i, len(shots))
        try:
            files = _files(archive, shot)
            pixels += sum(map(count_pixels, files))
            picture = read_picture(*files, background="plain")
            if _touches_border(picture.mask):
                raise ValueError("the object is cut off by the picture's border; leave a margin, or leave the picture out")
            reaches.append(_reach(picture, shot.camera))
        except ValueError as error:
            bad[(shot.mask if getattr(error, "field", "") == "mask" else None) or shot.image] = str(error)
        if pixels > MAX_DECODED:
            raise BadDataset({archive.name: f"its pictures have more than {MAX_DECODED} pixels; send smaller ones, or fewer"})
    if bad:
        raise BadDataset(bad)
    return reaches


def _files(archive: Archive, shot: Shot) -> list[bytes]:
    """The picture's, and the mask's if it has one."""
    return [archive.read(name) for name in (shot.image, shot.mask) if name]


def _touches_border(mask: NDArray[np.bool_]) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _reach(picture: Picture, camera: Pinhole) -> float:
    """The radius of the sphere around the origin that the object's silhouette touches, in units of the world that was sent."""
    labels, count = ndimage.label(picture.mask)
    sizes: NDArray[Any] = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    row, column = np.nonzero((sizes >= SPECK * sizes.sum())[labels])
    pixels = np.stack([column + 0.5, row + 0.5, np.ones(len(row))])
    directions = _FLIP @ np.linalg.inv(_intrinsics(camera, picture)) @ pixels
    to_origin = -camera.c2w[:3, :3].T @ camera.c2w[:3, 3]
    cosine = (to_origin / np.linalg.norm(to_origin)) @ (directions / np.linalg.norm(directions, axis=0))
    return float(np.linalg.norm(to_origin) * np.sin(min(math.pi / 2, math.acos(np.clip(cosine.min(), -1, 1)))))


def _intrinsics(camera: Pinhole, picture: Picture) -> Matrix:
    """K in the picture's own pixels: files of cameras speak of those of its file, of which it may be a reduced copy."""
    height, width = picture.mask.shape
    across, down = picture.reduced
    matrix: Matrix = np.diag([1 / across, 1 / down, 1.0]) @ camera.intrinsics(round(width * across), round(height * down))
    return matrix


def _scaled(camera: Pinhole, scale: float) -> Pinhole:
    c2w = camera.c2w.copy()
    c2w[:3, 3] *= scale
    return Pinhole(camera.intrinsics, c2w)


def _distance(camera: Pinhole) -> float:
    return float(np.linalg.norm(camera.c2w[:3, 3]))


def _warped(archive: Archive, shots: list[Shot], fovy_deg: float, progress: Progress) -> TrainingViews:
    places = torch.from_numpy(np.stack([shot.camera.c2w[:3, 3] for shot in shots])).float()
    distances = torch.linalg.vector_norm(places, dim=-1)
    azimuth = torch.rad2deg(torch.atan2(places[:, 0], places[:, 2])) % 360
    elevation = torch.rad2deg(torch.asin(places[:, 1] / distances))
    poses = orbit_c2w(azimuth, elevation, distances)
    tiles, masks = [], []
    for i, (shot, pose) in enumerate(zip(shots, poses, strict=True)):
        progress("warping", i, len(shots))
        picture = read_picture(*_files(archive, shot), background="plain")
        tile, mask = warp(picture, shot.camera, pose.numpy().astype(np.float64), fovy_deg)
        tiles.append(torch.from_numpy(tile).permute(2, 0, 1))
        masks.append(torch.from_numpy(mask))
    return TrainingViews(torch.stack(tiles), torch.stack(masks), poses, azimuth, elevation, float(distances.median()), fovy_deg)


def warp(picture: Picture, camera: Pinhole, pose: Matrix, fovy_deg: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The picture as a camera at the same place that looks as `pose` says would have taken it: its tile, and its 64 x 64 mask.

    Two pinholes at one place see the same rays: K R K'^-1 takes one's pixels to the other's (Hartley & Zisserman 2004, 8.4.2).
    """
    fine = SIZE * OVERSAMPLING
    focal = fine / 2 / math.tan(math.radians(fovy_deg) / 2)
    virtual = np.array([[focal, 0, fine / 2], [0, focal, fine / 2], [0, 0, 1.0]])
    turn = _FLIP @ camera.c2w[:3, :3].T @ pose[:3, :3] @ _FLIP
    matrix = _intrinsics(camera, picture) @ turn @ np.linalg.inv(virtual)
    matrix = matrix / matrix[2, 2]
    alpha = picture.mask.astype(np.uint8) * 255
    flat = Image.fromarray(np.dstack([picture.rgb * picture.mask[..., None], alpha]))
    warped = flat.transform(
        (fine, fine), Image.Transform.PERSPECTIVE, tuple(matrix.ravel()[:8]), Image.Resampling.BILINEAR, fillcolor=(0, 0, 0, 0)
    )
    fine_mask = np.asarray(warped.getchannel("A")) > 127
    tile = tile_of(Picture(np.asarray(warped.convert("RGB")), fine_mask))
    return tile.copy(), np.asarray(warped.getchannel("A").reduce(OVERSAMPLING)) > 127


def contact_sheet(views: TrainingViews, columns: int = 10, rows: int = 10) -> Image.Image:
    """The first pictures side by side as the encoder sees them, what is not the object tinted."""
    count = min(len(views), columns * rows)
    sheet = np.zeros((-(-count // columns) * SIZE, min(count, columns) * SIZE, 3), dtype=np.uint8)
    for i in range(count):
        row, column = divmod(i, columns)
        small = np.asarray(Image.fromarray(views.tiles[i].permute(1, 2, 0).numpy()).resize((SIZE, SIZE), Image.Resampling.BOX))
        tile = np.where(small.any(axis=2, keepdims=True), small, np.array([24, 32, 64], dtype=np.uint8))
        sheet[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE] = tile
    return Image.fromarray(sheet)
