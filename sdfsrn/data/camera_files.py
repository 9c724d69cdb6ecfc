"""Cameras as others write them: NeRF's transforms.json, and the cameras.npz of DVR, IDR and SDF-SRN.

Each becomes a pinhole in OpenGL axes in a world whose y axis is up. Pixels are measured from the picture's top left corner.
"""

import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from scipy.linalg import rq

Matrix = NDArray[np.float64]

_LEAST, _MOST = 1e-9, 1e9  # of lengths and focal lengths: what is beyond is a mistake, and may overflow
_MAX_ENTRY = 1e30  # of a matrix: the product of three is far from overflowing
_MAX_ARRAY = 4_096  # bytes of one 4 x 4 matrix with its header; more is none of ours
_OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
_Z_UP_TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1.0]])
_DISTORTIONS = ("k1", "k2", "k3", "k4", "p1", "p2")
_INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", *_DISTORTIONS)
MAX_FRAMES = 65_000  # as many as an archive may have members


@dataclass(frozen=True)
class Pinhole:
    """A camera: `intrinsics(width, height)` is K, 3x3 in pixels of a picture file of that size; `c2w` 4x4, OpenGL axes."""

    intrinsics: Callable[[int, int], Matrix]
    c2w: Matrix


@dataclass(frozen=True)
class Frame:
    """One entry of a transforms.json: paths as it names them, relative to its folder."""

    image: str
    mask: str | None
    camera: Pinhole


def read_transforms(data: bytes) -> list[Frame]:
    """The frames of a transforms.json (NeRF, Instant-NGP, Nerfstudio), z up there, y up here.

    Raises ValueError that names the frame.
    """
    try:
        document = json.loads(data)
        frames = document["frames"]
        if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("is not a transforms.json: expected a JSON object with a list `frames`") from None
    if len(frames) > MAX_FRAMES:
        raise ValueError(f"has {len(frames)} frames, at most {MAX_FRAMES} are accepted")
    of_all = {name: document[name] for name in _INTRINSICS if name in document}
    return [_frame(of_all, frame, i) for i, frame in enumerate(frames)]


def _frame(of_all: dict[str, Any], frame: dict[str, Any], i: int) -> Frame:
    known = {**of_all, **frame}
    try:
        image, mask = frame["file_path"], frame.get("mask_path")
        if not isinstance(image, str) or not isinstance(mask, str | None):
            raise ValueError("file_path and mask_path must be texts")
        return Frame(image, mask, _pinhole(_transforms_intrinsics(known), _Z_UP_TO_Y_UP @ _pose(frame["transform_matrix"])))
    except KeyError as missing:
        raise ValueError(f"frame {i} has no {missing.args[0]}") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"frame {i}: {error}") from None


def _transforms_intrinsics(known: dict[str, Any]) -> Callable[[int, int], Matrix]:
    if any(_number(known, name, 0.0) for name in _DISTORTIONS):
        raise ValueError("the lens distorts; undistort the pictures first, so that k1, k2, p1 and p2 are 0")
    if "fl_x" not in known and "camera_angle_x" not in known:
        raise KeyError("camera_angle_x or fl_x")

    def intrinsics(width: int, height: int) -> Matrix:
        across, down = width / _positive(known, "w", width), height / _positive(known, "h", height)  # the pictures may be reduced
        by_angle = "fl_x" not in known
        focal_x = width / 2 / math.tan(_positive(known, "camera_angle_x") / 2) if by_angle else _positive(known, "fl_x") * across
        focal_y = _positive(known, "fl_y") * down if "fl_y" in known else focal_x
        centre_x = _number(known, "cx", width / 2 / across) * across
        centre_y = _number(known, "cy", height / 2 / down) * down
        return np.array([[focal_x, 0, centre_x], [0, focal_y, centre_y], [0, 0, 1.0]])

    return intrinsics


def _number(known: dict[str, Any], name: str, default: float | None = None, least: float = -_MOST) -> float:
    value = known.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= _MOST:
        raise ValueError(f"{name} must be a number from {least:g} to {_MOST:g}, got {value!r:.40}")
    return float(value)


def _positive(known: dict[str, Any], name: str, default: float | None = None) -> float:
    return _number(known, name, default, _LEAST)


def _pose(value: Any) -> Matrix:
    try:
        pose = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("transform_matrix must be 4 x 4 numbers") from None
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise ValueError("transform_matrix must be 4 x 4 numbers")
    rotation = pose[:3, :3]
    if not np.allclose(rotation.T @ rotation, np.eye(3), atol=1e-2) or np.linalg.det(rotation) < 0:
        raise ValueError("transform_matrix must turn and move, neither scale nor mirror")
    left, _, right = np.linalg.svd(rotation)
    pose[:3, :3] = left @ right
    return pose


def _pinhole(intrinsics: Callable[[int, int], Matrix], c2w: Matrix) -> Pinhole:
    """Raises ValueError for a camera that no picture can have been taken with."""
    matrix = intrinsics(100, 100)
    if not (min(matrix[0, 0], matrix[1, 1]) >= _LEAST and np.abs(matrix).max() <= _MOST):
        raise ValueError(f"the focal lengths must be positive, and they and the centre at most {_MOST:g} pixels")
    distance = math.hypot(*c2w[:3, 3])
    if not _LEAST <= distance <= _MOST:
        raise ValueError(f"the camera is {distance:g} from the origin, where the object must be; expected {_LEAST:g} to {_MOST:g}")
    return Pinhole(intrinsics, c2w)


def read_cameras_npz(data: bytes) -> dict[int, Pinhole]:
    """The cameras of a cameras.npz by number.

    `world_mat_i` projects to pixels (IDR), or with a `camera_mat_i` to [-1, 1] from the top left corner (DVR, SDF-SRN);
    `scale_mat_i`, if there is one, takes the object's own frame to the world's. Raises ValueError that names the array.
    """
    matrices = _matrices(data)
    numbers = sorted(int(name.removeprefix("world_mat_")) for name in matrices if name.startswith("world_mat_"))
    if not numbers:
        raise ValueError("has no world_mat_0, world_mat_1, ...")
    return {i: _npz_camera(matrices, i) for i in numbers}


def _npz_camera(matrices: dict[str, Matrix], i: int) -> Pinhole:
    projection = matrices[f"world_mat_{i}"] @ matrices.get(f"scale_mat_{i}", np.eye(4))
    is_normalised = f"camera_mat_{i}" in matrices
    if is_normalised:
        projection = matrices[f"camera_mat_{i}"] @ projection
    projection = projection / (np.linalg.norm(projection[2, :3]) or 1.0)  # it may come at any scale
    determinant = np.linalg.det(projection[:3, :3])
    if not 1e-12 <= abs(determinant) < math.inf:
        raise ValueError(f"world_mat_{i} is no camera: it cannot be inverted")
    projection = projection * np.sign(determinant)
    if projection[2, 3] <= 0:
        raise ValueError(f"world_mat_{i}: the origin, where the object must be, lies behind the camera, or the camera mirrors")
    upper, rotation = rq(projection[:3, :3])
    signs = np.diag(np.sign(np.diag(upper)))
    intrinsic: Matrix = upper @ signs / abs(upper[2, 2])
    rotation = signs @ rotation
    c2w = np.eye(4)
    c2w[:3, :3] = rotation.T
    c2w[:3, 3] = -np.linalg.inv(projection[:3, :3]) @ projection[:3, 3]

    def intrinsics(width: int, height: int) -> Matrix:
        if not is_normalised:
            return intrinsic
        to_pixels = np.array([[width / 2, 0, width / 2], [0, height / 2, height / 2], [0, 0, 1.0]])
        pixels: Matrix = to_pixels @ intrinsic
        return pixels

    try:
        return _pinhole(intrinsics, c2w @ _OPENGL_TO_OPENCV)
    except ValueError as error:
        raise ValueError(f"world_mat_{i}: {error}") from None


def _matrices(data: bytes) -> dict[str, Matrix]:
    """The arrays that matter, each with its header checked before it is read: a header may claim any size."""
    matrices = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                if named := re.fullmatch(r"((?:world|camera|scale)_mat_)(\d{1,9})\.npy", member.filename):
                    matrices[f"{named[1]}{int(named[2])}"] = _matrix(archive, member)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"is not a readable npz file: {error}") from error
    return matrices


def _matrix(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Matrix:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError("it is compressed in a way that numpy does not write")
    with archive.open(member) as opened:
        data = io.BytesIO(opened.read(_MAX_ARRAY))
    try:
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(data)]
        shape, _, dtype = read_header(data)
        if shape not in ((3, 3), (3, 4), (4, 4)) or dtype.kind not in "fiu":
            raise ValueError(f"shape {shape} of {dtype}")
        data.seek(0)
        values = np.asarray(npy.read_array(data, allow_pickle=False), dtype=np.float64)
        if not (np.abs(values) <= _MAX_ENTRY).all():
            raise ValueError(f"numbers that are not finite, or beyond {_MAX_ENTRY:g}")
    except Exception as error:  # numpy raises nearly anything on a header that is none
        raise ValueError(f"{member.filename}: expected a matrix of 4 x 4 (or 3 x 4, 3 x 3) numbers, got {error}") from error
    matrix = np.eye(4)
    matrix[: values.shape[0], : values.shape[1]] = values
    return matrix
