"""Which pictures an archive holds, and whose camera and mask is whose."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from sdfsrn.data.archive import PICTURES, Archive, BadDataset, is_camera_file, is_picture
from sdfsrn.data.camera import Camera
from sdfsrn.data.cameras_npz import read_cameras_npz
from sdfsrn.data.names import Ambiguous, Names
from sdfsrn.data.transforms_json import read_transforms

_MASKS = ("masks", "mask")
_IMAGES = re.compile(r"(?:images?|imgs?|rgbs?|colou?r|input|photos?)(_\d+)?", re.IGNORECASE)  # images_2 is nerfstudio's, reduced
_NPZ_FIRST = ("cameras_sphere.npz", "cameras.npz")  # of a folder's: NeuS's own goes before what it was made from


@dataclass(frozen=True)
class Shot:
    """One picture to read: where it lies in the archive, its mask if that is a file of its own, its camera."""

    subject: str
    image: str
    mask: str | None
    camera: Camera


def find_shots(archive: Archive) -> tuple[list[Shot], dict[str, str]]:
    """All pictures that some camera file names, object by object, and what is wrong with those that cannot be used, by name.

    Raises BadDataset if no file has cameras.
    """
    files = _camera_files(archive)
    names = Names(archive)
    bad: dict[str, str] = {}
    found: dict[str, tuple[str, Shot]] = {}
    for file in files:
        try:
            is_npz = file.endswith(".npz")
            shots = _npz_shots(archive, file, bad) if is_npz else _transforms_shots(archive, names, file, bad)
            for shot in shots:
                first, other = found.setdefault(shot.image, (file, shot))
                if other is not shot and not (shot.subject == other.subject and shot.camera.is_like(other.camera)):
                    bad[shot.image] = f"is named by {first} and again by {file}, with another camera or as another object"
        except ValueError as error:
            bad[file] = str(error)
    shots = [shot for _, shot in found.values() if shot.image not in bad]
    if not shots and not bad:
        bad[files[0]] = "names no picture"
    by_subject: dict[str, list[Shot]] = {}
    for shot in shots:
        by_subject.setdefault(shot.subject, []).append(shot)
    return [shot for some in by_subject.values() for shot in some], bad


def _camera_files(archive: Archive) -> list[str]:
    """Those that are read: every transforms file, and one npz of a folder."""
    files = list(filter(is_camera_file, archive.paths))
    if not files:
        inner = [path for path in archive.paths if path.lower().endswith((".zip", ".tar", ".gz", ".7z", ".rar"))]
        if inner:
            raise BadDataset({inner[0]: "is an archive within the archive; send what is in it, not packed twice"})
        raise BadDataset({archive.name: "has no cameras: expected a transforms.json or a cameras.npz in the folder of each object"})
    chosen: dict[PurePosixPath, str] = {}
    for file in (file for file in files if file.endswith(".npz")):
        folder = PurePosixPath(file).parent
        chosen[folder] = min(chosen.get(folder, file), file, key=_preference)
    return [file for file in files if not file.endswith(".npz") or chosen[PurePosixPath(file).parent] == file]


def _preference(file: str) -> tuple[int, str]:
    name = PurePosixPath(file).name
    return _NPZ_FIRST.index(name) if name in _NPZ_FIRST else len(_NPZ_FIRST), name


def _transforms_shots(archive: Archive, names: Names, file: str, bad: dict[str, str]) -> list[Shot]:
    folder = PurePosixPath(file).parent
    shots, without_mask = [], []
    for frame in read_transforms(archive.read(file)):
        try:
            image = _found(names, folder, frame.image, file)
            if frame.camera is None:
                raise _Missing(image, frame.fault)
            mask = _found(names, folder, frame.mask, file) if frame.mask is not None else _mask_beside(names, image)
        except _Missing as missing:
            bad[missing.name] = missing.reason
            continue
        shots.append(Shot(_subject(folder), image, mask, frame.camera))
        if mask is None:
            without_mask.append(image)
    if len(without_mask) < len(shots):
        bad |= dict.fromkeys(without_mask, "has no mask, and other pictures of this object have one in a file of its own")
    return shots


class _Missing(ValueError):
    """A frame that cannot be used, and the file to blame."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


def _found(names: Names, folder: PurePosixPath, name: str, file: str) -> str:
    shown = ascii(name)[1:-1] if not name.isprintable() else str(folder / name.replace("\\", "/"))
    try:
        path = names.find(folder, name)
    except Ambiguous as error:
        raise _Missing(shown[:200], f"is named by {file} and {error}") from None
    if path is None:
        raise _Missing(shown[:200], f"is named by {file} and not in the archive")
    return path


def _mask_beside(names: Names, image: str) -> str | None:
    """The mask that lies in masks/ beside images/, or within the picture's own folder (nerfstudio's convention)."""
    *folders, name = PurePosixPath(image).parts
    for candidate in _beside(folders, name):
        if (mask := names.at(candidate)) and mask != image:
            return mask
    return None


def _beside(folders: list[str], name: str) -> Iterator[str]:
    for masks in _MASKS:
        yield str(PurePosixPath(*folders, masks, name))
        for i, folder in enumerate(folders):
            if images := _IMAGES.fullmatch(folder):
                yield str(PurePosixPath(*folders[:i], masks + (images[1] or ""), *folders[i + 1 :], name))


def _npz_shots(archive: Archive, file: str, bad: dict[str, str]) -> list[Shot]:
    folder = PurePosixPath(file).parent
    cameras = read_cameras_npz(archive.read(file))
    images = _pictures(archive, folder / "image") or _pictures(archive, folder / "images")
    masks = _pictures(archive, folder / "mask") or _pictures(archive, folder / "masks")
    if not images:
        raise ValueError("there are no pictures in the folder image/ or images/ beside it")
    shots = []
    for image, mask, number in zip(images, _masks(images, masks), _numbers(images, cameras), strict=True):
        if masks and mask is None:
            bad[image] = f"has no mask: expected {folder / 'mask' / _stem(image)}, with any of the endings {', '.join(PICTURES)}"
        shots.append(Shot(_subject(folder), image, mask, cameras[number]))
    return shots


def _numbers(images: list[str], cameras: dict[int, Camera]) -> list[int]:
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
    pictures = filter(is_picture, archive.folder(folder))
    return sorted(pictures, key=lambda path: re.sub(r"\d+", lambda digits: digits[0].zfill(9), path))


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def _subject(folder: PurePosixPath) -> str:
    return str(folder) if folder.parts else "object"
