"""A transforms.json: cameras as NeRF, BlenderNeRF, instant-ngp and nerfstudio write them.

They share `frames`, each with `file_path` and `transform_matrix` (camera to world, OpenGL axes, z up). They differ in how they say
the focal length: `camera_angle_x` (NeRF, radians), `fl_x` and `fl_y` (pixels), `x_fov` and `y_fov` (instant-ngp, degrees). Any of
it may stand at the root or in a frame; a frame's own goes before the root's, whichever way either is said. The poses are taken as
they stand: `applied_transform`, `applied_scale`, `offset`, `scale` and `aabb_scale` say where they came from, or how to view them.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdfsrn.data.camera import LEAST, MOST, Camera, Matrix, checked
from sdfsrn.data.lens import Lens

MAX_FRAMES = 65_000  # as many as an archive may have members
Z_UP_TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1.0]])

_FOCAL = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y", "x_fov", "y_fov")
_LENS = ("k1", "k2", "k3", "k4", "p1", "p2")
_FISHEYE = ("is_fisheye", "camera_model")
_KNOWN = (*_FOCAL, *_LENS, *_FISHEYE, "cx", "cy", "w", "h")
_STRAIGHT_MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "OPENCV", "SIMPLE_RADIAL", "RADIAL")
_FISHEYE_MODEL = "OPENCV_FISHEYE"
# What says that a file's pictures were taken in a way that is not read, and the name of that way.
_REFUSED = {
    "equirectangular": "panoramic (equirectangular)",
    "latlong": "panoramic (latlong)",
    "orthographic": "orthographic",
    "ftheta_p0": "an f-theta fisheye",
}
_SAME_SHAPE = 0.02  # of the ratio of width to height; a reduced picture's sides are rounded
_SAME_FOCAL = 0.03
_NO_POSE = "has no pose: its frame has no transform_matrix, as where a picture could not be registered"


@dataclass(frozen=True)
class Frame:
    """One entry of a transforms.json: paths as it names them; `camera`, or the `fault` because of which it has none."""

    image: str
    mask: str | None
    camera: Camera | None
    fault: str = ""


def read_transforms(data: bytes) -> list[Frame]:
    """The frames of a transforms.json, in a world whose y axis is up.

    Raises ValueError for a file that is none, or whose frames cannot be told apart.
    """
    try:
        document = json.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON; expected an object with a list `frames`") from None
    frames = document.get("frames") if isinstance(document, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise ValueError(f"is not a transforms.json: expected a JSON object with a list `frames`, got {_seen(document)}")
    if len(frames) > MAX_FRAMES:
        raise ValueError(f"has {len(frames)} frames, at most {MAX_FRAMES} are accepted")
    of_all = _said(document)
    _check_kind(of_all)
    found = [_frame(of_all, frame, i) for i, frame in enumerate(frames)]
    if len({frame.fault for frame in found}) == 1 and found[0].fault:
        raise ValueError(f"{found[0].fault}{' (so in every frame)' if len(found) > 1 else ''}")
    return found


def _seen(document: Any) -> str:
    if isinstance(document, dict):
        return f"an object with {', '.join(sorted(map(str, document))[:8]) or 'nothing in it'}"[:200]
    return f"a {type(document).__name__}"


def _said(level: dict[str, Any]) -> dict[str, Any]:
    """What a root or a frame says about cameras; null says nothing."""
    return {name: level[name] for name in (*_KNOWN, *_REFUSED) if level.get(name) is not None}


def _frame(of_all: dict[str, Any], frame: dict[str, Any], i: int) -> Frame:
    image, mask = frame.get("file_path"), frame.get("mask_path")
    if not isinstance(image, str) or not isinstance(mask, str | None):
        raise ValueError(f"frame {i}: file_path (required) and mask_path must be texts, got {image!r:.40} and {mask!r:.40}")
    if frame.get("transform_matrix") is None:
        return Frame(image, mask, None, _NO_POSE)
    try:
        return Frame(image, mask, _camera(_own_first(of_all, _said(frame)), frame["transform_matrix"]))
    except ValueError as error:
        return Frame(image, mask, None, str(error))


def _own_first(of_all: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """What holds for a frame: any focal length of its own replaces the root's, and so does any lens of its own."""
    replaced = {name for group in (_FOCAL, _LENS, _FISHEYE) if own.keys() & set(group) for name in group}
    return {name: value for name, value in of_all.items() if name not in replaced} | own


def _camera(known: dict[str, Any], matrix: Any) -> Camera:
    _check_kind(known)
    width, height = (_number(known, name, 100.0, LEAST) for name in ("w", "h"))
    size = max(1, round(width)), max(1, round(height))
    return checked(Camera(_intrinsics(known), Z_UP_TO_Y_UP @ _pose(matrix), _lens(known), size))


def _check_kind(known: dict[str, Any]) -> None:
    """Raise ValueError, by name, for cameras that are neither pinholes nor lenses of a known kind."""
    model = known.get("camera_model")
    if model is not None and str(model).upper() not in (*_STRAIGHT_MODELS, _FISHEYE_MODEL):
        raise ValueError(
            f"camera_model {model!r:.40} is not read; read are {', '.join((*_STRAIGHT_MODELS, _FISHEYE_MODEL))}: "
            "convert the pictures to one of these, such as PINHOLE"
        )
    for name, kind in _REFUSED.items():
        if known.get(name):
            raise ValueError(f"{name} says that the camera is {kind}, which is not read; convert the pictures to pinholes")


def _lens(known: dict[str, Any]) -> Lens | None:
    k1, k2, k3, k4, p1, p2 = (_number(known, name, 0.0) for name in _LENS)
    if not isinstance(known.get("is_fisheye", False), bool):
        raise ValueError(f"is_fisheye must be true or false, got {known['is_fisheye']!r:.40}")
    if known.get("is_fisheye") or str(known.get("camera_model")).upper() == _FISHEYE_MODEL:
        return Lens((k1, k2, k3, k4), is_fisheye=True)
    if k4:
        raise ValueError(f"k4 = {k4:g} is of a fisheye, and nothing says that this is one; expected camera_model OPENCV_FISHEYE")
    return Lens((k1, k2, k3, 0.0), (p1, p2)) if any((k1, k2, k3, p1, p2)) else None


def _intrinsics(known: dict[str, Any]) -> Callable[[int, int], Matrix]:
    if not known.keys() & set(_FOCAL):
        raise ValueError("says no focal length: expected camera_angle_x (radians), or fl_x (pixels)")

    def intrinsics(width: int, height: int) -> Matrix:
        full_width, full_height = _number(known, "w", width, LEAST), _number(known, "h", height, LEAST)
        if "w" in known and "h" in known:
            _check_shape(full_width, full_height, width, height)
        across, down = width / full_width, height / full_height  # the pictures may be reduced
        focal_x, focal_y = _focal_lengths(known, width, height, across, down)
        centre_x = _number(known, "cx", width / 2 / across) * across
        centre_y = _number(known, "cy", height / 2 / down) * down
        return np.array([[focal_x, 0, centre_x], [0, focal_y, centre_y], [0, 0, 1.0]])

    return intrinsics


def _check_shape(full_width: float, full_height: float, width: int, height: int) -> None:
    """Raise ValueError unless a picture has the shape, at any size, of that for which the intrinsics are said."""
    if abs(full_width / full_height / (width / height) - 1) <= _SAME_SHAPE + 1 / min(width, height):
        return
    is_turned = abs(full_width / full_height * (width / height) - 1) < _SAME_SHAPE
    advice = "was it turned by a quarter? Save it upright, as w and h are" if is_turned else "give them for pictures of its shape"
    raise ValueError(
        f"w and h are {full_width:g} x {full_height:g}, the picture has {width} x {height} pixels: {advice}"
    )


def _focal_lengths(known: dict[str, Any], width: int, height: int, across: float, down: float) -> tuple[float, float]:
    """In pixels of the picture. Raises ValueError where two ways of saying them contradict each other."""
    by_angle = _angular_focal(known, "camera_angle_x", width, 1), _angular_focal(known, "camera_angle_y", height, 1)
    by_degrees = _angular_focal(known, "x_fov", width, math.pi / 180), _angular_focal(known, "y_fov", height, math.pi / 180)
    by_pixels = _pixel_focal(known, "fl_x", across), _pixel_focal(known, "fl_y", down)
    if by_pixels[0] and by_angle[0] and abs(by_pixels[0] / by_angle[0] - 1) > _SAME_FOCAL:
        angle = 2 * math.atan(width / 2 / by_pixels[0])
        raise ValueError(
            f"fl_x = {known['fl_x']} makes an angle of {angle:.4g} radians across {width} pixels, and camera_angle_x says "
            f"{known['camera_angle_x']}: leave out the wrong one, or give w and h if fl_x is that of another size"
        )
    # camera_angle_y is used only alone: Blender's is that of its sensor, not of the picture
    by_angle = (by_angle[0], None) if by_angle[0] else by_angle
    x, y = next(said for said in (by_degrees, by_pixels, by_angle) if any(said))
    return x or y or 0.0, y or x or 0.0  # pixels are square where one is said


def _pixel_focal(known: dict[str, Any], name: str, scale: float) -> float | None:
    return _number(known, name, None, LEAST) * scale if name in known else None


def _angular_focal(known: dict[str, Any], name: str, side: int, unit: float) -> float | None:
    """The focal length that an angle across a side makes, if it is said; `unit` is 1 for radians."""
    if name not in known:
        return None
    angle = _number(known, name, None, LEAST)
    if angle * unit > math.pi:
        meant = f"radians: it looks like degrees, which would be {math.radians(angle):.4g}" if unit == 1 else "degrees"
        raise ValueError(f"{name} = {angle:g} is no angle of view; expected at most {math.pi / unit:.4g} {meant}")
    return side / 2 / math.tan(angle * unit / 2)


def _number(known: dict[str, Any], name: str, default: float | None = None, least: float = -MOST) -> float:
    value = known.get(name, default)
    if isinstance(value, str):
        value = _written(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= MOST:
        raise ValueError(f"{name} must be a number from {least:g} to {MOST:g}, got {known.get(name)!r:.40}")
    return float(value)


def _written(text: str) -> float | None:
    """A number that stands in quotation marks, with a point if any: 1,5 might be one and a half or two numbers."""
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def _pose(value: Any) -> Matrix:
    try:
        pose = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("transform_matrix must be 4 x 4 numbers") from None
    if pose.shape not in ((4, 4), (3, 4)) or not np.isfinite(pose).all():
        raise ValueError("transform_matrix must be 4 x 4 (or 3 x 4) finite numbers")
    pose = np.concatenate([pose[:3], [[0, 0, 0, 1.0]]]) if len(pose) == 3 else pose
    if not np.allclose(pose[3], [0, 0, 0, 1], atol=1e-6):
        raise ValueError("transform_matrix must have 0, 0, 0, 1 as its last row; is it transposed?")
    turn = pose[:3, :3]
    scale = float(np.sqrt((turn**2).sum() / 3))
    if not LEAST <= scale <= MOST or not np.allclose(turn.T @ turn, scale**2 * np.eye(3), atol=1e-2 * scale**2):
        raise ValueError("transform_matrix must turn and move; it also shears, or scales its axes differently")
    if np.linalg.det(turn) < 0:
        raise ValueError("transform_matrix mirrors: its axes are left-handed; expected x right, y up, z backwards")
    left, _, right = np.linalg.svd(turn)  # a scale of the axes moves no ray
    pose[:3, :3] = left @ right
    return pose
