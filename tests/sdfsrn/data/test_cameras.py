"""Cameras as others write them: what is read is checked against the true scene, and what cannot be read is refused by name."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdfsrn.data.archive import BadDataset
from tests.sdfsrn.data.scene import (
    ANGLE_X,
    ANGLE_Y,
    FOCAL,
    HEIGHT,
    INTRINSICS,
    WIDTH,
    Y_UP_TO_Z_UP,
    nerf,
    npz,
    orbit,
    pixels_of,
    read,
    silhouette,
    w2c,
    worst_iou,
)

UNDERSTOOD = 0.97
Change = Callable[[int, dict[str, Any]], dict[str, Any]]


def _matrix(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """A frame with another transform_matrix."""
    return lambda i, frame: {**frame, "transform_matrix": change(np.array(frame["transform_matrix"])).tolist()}


def _same(_: int, frame: dict[str, Any]) -> dict[str, Any]:
    return frame


@pytest.mark.parametrize(
    ("root", "change"),
    [
        ({"fl_x": 2 * FOCAL, "fl_y": 2 * FOCAL, "cx": WIDTH, "cy": HEIGHT, "w": 2 * WIDTH, "h": 2 * HEIGHT}, _same),
        ({"camera_angle_x": ANGLE_X}, _same),
        ({"camera_angle_y": ANGLE_Y}, _same),
        ({"camera_angle_x": ANGLE_X, "camera_angle_y": 0.4711}, _same),  # Blender's is that of its sensor
        ({"x_fov": math.degrees(ANGLE_X)}, _same),
        ({"fl_x": 50.0}, lambda i, frame: {**frame, "camera_angle_x": ANGLE_X}),
        ({"camera_angle_x": 1.5}, lambda i, frame: {**frame, **INTRINSICS}),
        ({"fl_x": 50.0, "fl_y": 50.0}, lambda i, frame: {**frame, "camera_angle_y": ANGLE_Y}),
        ({**INTRINSICS, "k1": None, "camera_model": None}, _same),
        ({name: str(value) for name, value in INTRINSICS.items()}, _same),
        (INTRINSICS, _matrix(lambda matrix: matrix[:3])),
        (INTRINSICS, _matrix(lambda matrix: matrix * [2, 2, 2, 1])),
        ({**INTRINSICS, "camera_model": "OPENCV", "applied_scale": 0.5, "aabb_scale": 16, "offset": [0.5, 0.5, 0.5]}, _same),
    ],
)
def test_intrinsics_and_poses_are_read_however_they_are_said(tmp_path: Path, root: dict[str, Any], change: Change) -> None:
    found = read(tmp_path, nerf(root, change))
    assert worst_iou(found) > UNDERSTOOD
    assert found.report["agreement"]["min"] > 0.99


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    files = nerf()
    files["transforms.json"] = b"\xef\xbb\xbf" + files["transforms.json"]
    assert worst_iou(read(tmp_path, files)) > UNDERSTOOD


@pytest.mark.parametrize(
    ("root", "change", "reason"),
    [
        ({**INTRINSICS, "camera_model": "EQUIRECTANGULAR"}, _same, "EQUIRECTANGULAR"),
        ({**INTRINSICS, "camera_model": "FISHEYE624"}, _same, "FISHEYE624"),
        (INTRINSICS, lambda i, frame: {**frame, "camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR"),
        ({**INTRINSICS, "latlong": True}, _same, "panoramic"),
        ({**INTRINSICS, "k4": 0.1}, _same, "OPENCV_FISHEYE"),
        ({"camera_angle_x": math.degrees(ANGLE_X)}, _same, "looks like degrees"),
        ({"fl_x": 50.0, "camera_angle_x": ANGLE_X}, _same, "leave out the wrong one"),
        ({**INTRINSICS, "w": HEIGHT, "h": WIDTH}, _same, "turned by a quarter"),
        ({**INTRINSICS, "h": WIDTH}, _same, f"the picture has {WIDTH} x {HEIGHT}"),
        ({"fl_x": 2 * FOCAL, "cx": WIDTH, "cy": HEIGHT}, _same, f"middle of a picture of {2 * WIDTH} x {2 * HEIGHT}"),
        ({"fl_x": FOCAL, "cx": HEIGHT / 2, "cy": WIDTH / 2}, _same, "turned by a quarter"),
        ({"fl_x": "1,5"}, _same, "fl_x must be a number"),
        ({}, _same, "no focal length"),
        (INTRINSICS, _matrix(lambda matrix: matrix * [-1, 1, 1, 1]), "left-handed"),
        (INTRINSICS, _matrix(lambda matrix: matrix.T), "transposed"),
        (INTRINSICS, _matrix(lambda matrix: matrix @ np.diag([1, -1, -1, 1])), "OpenCV's axes"),
        (INTRINSICS, _matrix(np.linalg.inv), "read as world-to-camera, so convert"),
        (INTRINSICS, _matrix(lambda matrix: w2c(Y_UP_TO_Z_UP.T @ matrix) @ Y_UP_TO_Z_UP.T), "as world-to-camera with OpenCV"),
    ],
)
def test_what_contradicts_the_pictures_is_refused(tmp_path: Path, root: dict[str, Any], change: Change, reason: str) -> None:
    with pytest.raises(BadDataset, match=reason):
        read(tmp_path, nerf(root, change))


def _fisheye(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The straight ray of what an equidistant lens shows (angle = radius)."""
    angle = np.hypot(x, y)
    scale = np.tan(angle) / np.maximum(angle, 1e-12)
    return x * scale, y * scale


@pytest.mark.parametrize("said", [{"camera_model": "OPENCV_FISHEYE", "k1": 0.0}, {"is_fisheye": True}])
def test_fisheye_pictures_are_straightened(tmp_path: Path, said: dict[str, Any]) -> None:
    """A close camera, so that the lens matters: taken for pinholes the same pictures are wrong."""
    near, focal = [orbit(azimuth, elevation, 1.9) for azimuth, elevation in ((20, 15), (140, 30), (265, 25))], 60.0
    masks = [silhouette(camera, focal, ray=_fisheye) for camera in near]
    root = {**INTRINSICS, "fl_x": focal, "fl_y": focal}
    straightened = worst_iou(read(tmp_path, nerf({**root, **said}, cameras=near, masks=masks)))
    assert straightened > 0.965 > worst_iou(read(tmp_path, nerf(root, cameras=near, masks=masks))) + 0.01


def test_lenses_that_bend_are_straightened(tmp_path: Path) -> None:
    """Against OpenCV's formula, solved here by fixed point."""
    k1, k2, p1, p2 = 0.3, -0.2, 0.01, -0.02

    def ray(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        straight_x, straight_y = x, y
        for _ in range(50):
            square = straight_x**2 + straight_y**2
            radial = 1 + k1 * square + k2 * square**2
            sideways_x = 2 * p1 * straight_x * straight_y + p2 * (square + 2 * straight_x**2)
            sideways_y = p1 * (square + 2 * straight_y**2) + 2 * p2 * straight_x * straight_y
            straight_x, straight_y = (x - sideways_x) / radial, (y - sideways_y) / radial
        return straight_x, straight_y

    near, focal = [orbit(azimuth, elevation, 1.9) for azimuth, elevation in ((20, 15), (140, 30), (265, 25))], 60.0
    masks = [silhouette(camera, focal, ray=ray) for camera in near]
    lens = {"k1": k1, "k2": k2, "p1": p1, "p2": p2, "camera_model": "OPENCV"}
    root = {**INTRINSICS, "fl_x": focal, "fl_y": focal}
    assert worst_iou(read(tmp_path, nerf({**root, **lens}, cameras=near, masks=masks))) > 0.965


NORMALISE = np.array([[2 / WIDTH, 0, -1, 0], [0, 2 / HEIGHT, -1, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    "arrays",
    [
        lambda i, camera: {f"world_mat_{i}": pixels_of() @ w2c(camera)},  # IDR
        lambda i, camera: {f"world_mat_{i}": pixels_of() @ w2c(camera), f"camera_mat_{i}": pixels_of()},  # NeuS
        lambda i, camera: {f"world_mat_{i}": pixels_of() @ w2c(camera), f"camera_mat_{i}": NORMALISE},  # DVR's DTU
        lambda i, camera: {f"world_mat_{i}": w2c(camera), f"camera_mat_{i}": NORMALISE @ pixels_of()},  # SDF-SRN
        lambda i, camera: {f"world_mat_{i}": w2c(camera), f"camera_mat_{i}": pixels_of()},
    ],
    ids=["idr", "neus", "dvr", "sdf-srn", "pixels and pose"],
)
def test_an_npz_is_read_by_what_its_matrices_hold(tmp_path: Path, arrays: Callable[..., dict[str, np.ndarray]]) -> None:
    assert worst_iou(read(tmp_path, npz(arrays))) > UNDERSTOOD


def test_of_several_npz_in_a_folder_one_is_read(tmp_path: Path) -> None:
    """NeuS has cameras_sphere.npz beside others."""
    files = npz(lambda i, camera: {f"world_mat_{i}": pixels_of() @ w2c(camera)}, "cameras_sphere.npz")
    assert worst_iou(read(tmp_path, files | {"cameras_large.npz": b"something else"})) > UNDERSTOOD


def _looking_aside(degrees: float) -> np.ndarray:
    """A turn about a camera's own x axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        (lambda i, camera: {f"world_mat_{i}": w2c(camera)}, "expected its camera_mat"),
        (lambda i, camera: {f"world_mat_{i}": pixels_of() @ w2c(camera), f"camera_mat_{i}": pixels_of(500)}, "neither fits"),
        (lambda i, camera: {f"world_mat_{i}": pixels_of(220, 192, 144) @ w2c(camera)}, "middle of a picture of 192 x 144"),
        (
            lambda i, camera: {f"world_mat_{i}": pixels_of() @ w2c(camera @ _looking_aside(20 * (-1) ** i))},
            "contradict one another",
        ),
    ],
)
def test_an_npz_that_fits_nothing_is_refused(
    tmp_path: Path, arrays: Callable[..., dict[str, np.ndarray]], reason: str
) -> None:
    with pytest.raises(BadDataset, match=reason):
        read(tmp_path, npz(arrays))
