"""A cameras.npz: cameras as DVR, SDF-SRN, IDR and NeuS write them.

All have `world_mat_i`, and most `scale_mat_i`, which takes the object's own frame, where it fills the unit sphere, to the world's.
They differ in what stands in the others, and so that is looked at:

- IDR: `world_mat_i` projects to pixels.
- NeuS: so it does, and `camera_mat_i` repeats the intrinsics that it already holds.
- DVR, SDF-SRN: `camera_mat_i` times `world_mat_i` projects to [-1, 1], from the top left corner to the bottom right one.

The world's y axis is up.
"""

import io
import math
import re
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from numpy.lib import format as npy
from scipy.linalg import rq

from sdfsrn.data.camera import FLIP, Camera, Matrix, checked

_MAX_ENTRY = 1e30  # of a matrix: the product of three is far from overflowing
_MAX_ARRAY = 4_096  # bytes of one 4 x 4 matrix with its header; more is none of ours
_NORMALISED_FOCAL = (0.2, 60.0)  # where pictures reach from -1 to 1: angles of view from 157 to 2 degrees
_NORMALISED_CENTRE = 2.0
_LEAST_PIXEL_FOCAL = 8.0  # a picture has at least 16 pixels a side: 90 degrees of view
_SAME = 0.01


def read_cameras_npz(data: bytes) -> dict[int, Camera]:
    """The cameras of a cameras.npz by number. Raises ValueError that names the array."""
    matrices = _matrices(data)
    numbers = sorted(int(name.removeprefix("world_mat_")) for name in matrices if name.startswith("world_mat_"))
    if not numbers:
        raise ValueError("has no world_mat_0, world_mat_1, ...: expected the cameras of DVR, SDF-SRN, IDR or NeuS")
    return {i: _camera(matrices, i) for i in numbers}


def _camera(matrices: dict[str, Matrix], i: int) -> Camera:
    scale, own = matrices.get(f"scale_mat_{i}", np.eye(4)), matrices.get(f"camera_mat_{i}")
    world = matrices[f"world_mat_{i}"]
    try:
        projection, is_normalised = _projection(world, own)
        intrinsic, c2w = _decomposed(projection @ scale)
        found = checked(Camera(_scaled_to_pictures(intrinsic) if is_normalised else lambda width, height: intrinsic, c2w))
    except ValueError as error:
        raise ValueError(f"world_mat_{i}: {error}") from None
    if f"scale_mat_{i}" in matrices and (-c2w[:3, :3].T @ c2w[:3, 3])[2] >= 0:  # the camera looks along -z
        raise ValueError(
            f"world_mat_{i}: the origin, where scale_mat_{i} puts the object, lies behind the camera, or the camera mirrors"
        )
    return found


def _projection(world: Matrix, own: Matrix | None) -> tuple[Matrix, bool]:
    """What projects from the world, and whether to [-1, 1] or to pixels. Raises ValueError where no convention fits."""
    alone = _decomposed(world)[0]
    if own is None:
        if not _is_of_pixels(alone):
            raise ValueError(f"it projects with {_told(alone)}, which is none of pixels; expected its camera_mat beside it")
        return world, False
    both = _decomposed(own @ world)[0]
    if _is_normalised(both):
        return own @ world, True
    repeated = own[:3, :3] / (own[2, 2] or 1.0)
    if _is_of_pixels(alone) and np.allclose(repeated, alone, rtol=_SAME, atol=_SAME * alone[0, 0]):
        return world, False  # as NeuS
    if _is_of_pixels(both) and np.allclose(alone, np.eye(3), atol=_SAME):
        return own @ world, False  # intrinsics in pixels, and a pose
    raise ValueError(
        f"it projects with {_told(alone)} alone, and with {_told(both)} after its camera_mat: neither fits DVR's or SDF-SRN's, "
        "where both together project to [-1, 1], nor NeuS's, where camera_mat repeats the intrinsics of world_mat"
    )


def _is_normalised(intrinsic: Matrix) -> bool:
    low, high = _NORMALISED_FOCAL
    focals, centre = np.diag(intrinsic)[:2], np.abs(intrinsic[:2, 2])
    return bool((focals >= low).all() and (focals <= high).all() and (centre <= _NORMALISED_CENTRE).all())


def _is_of_pixels(intrinsic: Matrix) -> bool:
    return bool((np.diag(intrinsic)[:2] >= _LEAST_PIXEL_FOCAL).all())


def _told(intrinsic: Matrix) -> str:
    return f"focal lengths {intrinsic[0, 0]:.3g}, {intrinsic[1, 1]:.3g} and centre {intrinsic[0, 2]:.3g}, {intrinsic[1, 2]:.3g}"


def _decomposed(projection: Matrix) -> tuple[Matrix, Matrix]:
    """K and the pose, OpenGL axes, of a projection at any scale (Hartley & Zisserman 2004, 6.2.4)."""
    projection = projection / (np.linalg.norm(projection[2, :3]) or 1.0)
    determinant = np.linalg.det(projection[:3, :3])
    if not 1e-12 <= abs(determinant) < math.inf:
        raise ValueError("it is no camera: it cannot be inverted")
    projection = projection * np.sign(determinant)
    upper, rotation = rq(projection[:3, :3])
    signs = np.diag(np.sign(np.diag(upper)))
    intrinsic: Matrix = upper @ signs / abs(upper[2, 2])
    rotation = signs @ rotation
    c2w = np.eye(4)
    c2w[:3, :3] = rotation.T @ FLIP
    c2w[:3, 3] = -np.linalg.inv(projection[:3, :3]) @ projection[:3, 3]
    return intrinsic, c2w


def _scaled_to_pictures(intrinsic: Matrix) -> Callable[[int, int], Matrix]:
    def intrinsics(width: int, height: int) -> Matrix:
        pixels: Matrix = np.array([[width / 2, 0, width / 2], [0, height / 2, height / 2], [0, 0, 1.0]]) @ intrinsic
        return pixels

    return intrinsics


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
