"""Which pictures an archive holds, and whose camera and mask is whose."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from sdfsrn.data.archive import Archive, BadDataset
from sdfsrn.data.camera_files import Pinhole, read_cameras_npz, read_transforms

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
MAX_CAMERAS = 64_000_000  # bytes of an archive's files of cameras together


@dataclass(frozen=True)
class Shot:
    """One picture to read: where it lies in the archive, its mask if that is a file of its own, its camera."""

    subject: str
    image: str
    mask: str | None
    camera: Pinhole


def find_shots(archive: Archive) -> list[Shot]:
    """All pictures that some camera file names, object by object."""
    bad: dict[str, str] = {}
    found: list[Shot] = []
    files = [path for path in archive.paths if re.fullmatch(r"transforms\w*\.json|cameras\.npz", PurePosixPath(path).name)]
    if not files:
        raise BadDataset({archive.name: "has no cameras: expected a transforms.json or a cameras.npz in the folder of each object"})
    if (size := sum(map(archive.size, files))) > MAX_CAMERAS:
        raise BadDataset({archive.name: f"its files of cameras have {size} bytes together, at most {MAX_CAMERAS} are accepted"})
    named_by: dict[str, str] = {}
    for file in files:
        read = _npz_shots if file.endswith(".npz") else _transforms_shots
        try:
            shots = read(archive, PurePosixPath(file).parent, archive.read(file), bad)
        except ValueError as error:
            bad[file] = str(error)
            continue
        for shot in shots:
            if shot.image in named_by:
                bad[shot.image] = f"is named by {named_by[shot.image]} and again by {file}; each picture may be named once"
            named_by[shot.image] = file
        found += shots
    if bad:
        raise BadDataset(bad)
    if not found:
        raise BadDataset({files[0]: "names no picture"})
    return found


def _transforms_shots(archive: Archive, folder: PurePosixPath, data: bytes, bad: dict[str, str]) -> list[Shot]:
    shots = []
    for frame in read_transforms(data):
        image = _existing(archive, folder, frame.image)
        mask = _existing(archive, folder, frame.mask) if frame.mask is not None else None
        missing = frame.image if image is None else frame.mask if mask is None else None
        if image is None or missing is not None:
            bad[str(folder / str(missing))] = "is named by transforms.json and not in the archive"
        else:
            shots.append(Shot(_subject(folder), image, mask, frame.camera))
    return shots


def _existing(archive: Archive, folder: PurePosixPath, name: str) -> str | None:
    """The file that a frame means: NeRF leaves the extension off."""
    path = str(folder / name)
    return next((candidate for candidate in (path, *(path + extension for extension in EXTENSIONS)) if candidate in archive), None)


def _npz_shots(archive: Archive, folder: PurePosixPath, data: bytes, bad: dict[str, str]) -> list[Shot]:
    cameras = read_cameras_npz(data)
    images, masks = _pictures(archive, folder / "image"), _pictures(archive, folder / "mask")
    if not images:
        raise ValueError("there are no pictures in the folder image/ beside it")
    shots = []
    for image, mask, number in zip(images, _masks(images, masks), _numbers(images, cameras), strict=True):
        if masks and mask is None:
            bad[image] = f"has no mask: expected {folder / 'mask' / _stem(image)}, with any of the endings {', '.join(EXTENSIONS)}"
        shots.append(Shot(_subject(folder), image, mask, cameras[number]))
    return shots


def _numbers(images: list[str], cameras: dict[int, Pinhole]) -> list[int]:
    """Which camera is whose: by the numbers that the pictures have for names, if all have; else in order."""
    stems = [_stem(image) for image in images]
    numbers = [int(stem) for stem in stems if re.fullmatch(r"\d{1,9}", stem)]
    if len(set(numbers)) == len(images) and set(numbers) <= set(cameras):
        return numbers
    if len(images) == len(cameras):
        return list(cameras)
    raise ValueError(f"has {len(cameras)} cameras for {len(images)} pictures, and the pictures' names do not say which are theirs")


def _masks(images: list[str], masks: list[str]) -> list[str | None]:
    """Which mask is whose: by name; in order if there are as many and none has a picture's name."""
    by_stem = {_stem(mask): mask for mask in masks}
    if len(masks) == len(images) and by_stem.keys().isdisjoint(map(_stem, images)):
        return [*masks]
    return [by_stem.get(_stem(image)) for image in images]


def _pictures(archive: Archive, folder: PurePosixPath) -> list[str]:
    """Those that lie in a folder, 2 before 10."""
    pictures = [path for path in archive.folder(folder) if PurePosixPath(path).suffix.lower() in EXTENSIONS]
    return sorted(pictures, key=lambda path: re.sub(r"\d+", lambda digits: digits[0].zfill(9), path))


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def _subject(folder: PurePosixPath) -> str:
    return str(folder) if folder.parts else "object"
