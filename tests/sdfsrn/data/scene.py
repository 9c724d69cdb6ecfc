"""A scene for data sets: three balls without any symmetry, ray-cast in closed form, and files of it as strangers write them."""

import io
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdfsrn.data.captures import Captures, read_captures
from sdfsrn.data.one_object import ObjectView

BALLS = [((0.0, 0.0, 0.0), 0.5), ((0.55, 0.1, 0.05), 0.22), ((-0.05, 0.5, 0.4), 0.2)]  # y up
WIDTH, HEIGHT, FOCAL = 96, 72, 110.0
VIEWS = [(20, 15), (75, -5), (140, 30), (200, 10), (265, 25), (320, 5)]
INTRINSICS = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT}
ANGLE_X, ANGLE_Y = 2 * math.atan(WIDTH / 2 / FOCAL), 2 * math.atan(HEIGHT / 2 / FOCAL)
Y_UP_TO_Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
Bend = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def orbit(azimuth: float, elevation: float, distance: float = 3.2) -> np.ndarray:
    """A camera to world that looks at the origin, OpenGL axes, y up."""
    a, e = math.radians(azimuth), math.radians(elevation)
    backward = np.array([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)])
    right = np.array([math.cos(a), 0, -math.sin(a)])
    c2w = np.eye(4)
    c2w[:3] = np.stack([right, np.cross(backward, right), backward, distance * backward], axis=-1)
    return c2w


def silhouette(
    c2w: np.ndarray, focal: float = FOCAL, size: tuple[int, int] = (WIDTH, HEIGHT), balls: Any = BALLS, ray: Bend | None = None
) -> np.ndarray:
    """Which pixels see a ball; `ray` takes what is seen on the plane at depth 1 to the straight ray."""
    width, height = size
    x, y = np.meshgrid((np.arange(width) + 0.5 - width / 2) / focal, (np.arange(height) + 0.5 - height / 2) / focal)
    if ray:
        x, y = ray(x, y)
    d = np.stack([x, -y, -np.ones_like(x)], axis=-1) @ c2w[:3, :3].T
    d /= np.linalg.norm(d, axis=-1, keepdims=True)
    seen = np.zeros(x.shape, dtype=bool)
    for centre, radius in balls:
        away = c2w[:3, 3] - np.array(centre)
        along = d @ away
        seen |= (along**2 - away @ away + radius**2 >= 0) & (along < 0)
    return seen


CAMERAS = [orbit(*view) for view in VIEWS]


def shifted(by: tuple[float, float, float]) -> tuple[list[np.ndarray], Any]:
    """Cameras and balls moved together."""
    cameras = [camera.copy() for camera in CAMERAS]
    for camera in cameras:
        camera[:3, 3] += by
    return cameras, [(tuple(np.add(centre, by)), radius) for centre, radius in BALLS]


def rgba(mask: np.ndarray) -> bytes:
    """An orange object before nothing."""
    return _png(mask[..., None] * np.array([200, 120, 60, 255], dtype=np.uint8))


def grey(mask: np.ndarray) -> bytes:
    """A mask as a file."""
    return _png(mask.astype(np.uint8) * 255)


def noise(mask: np.ndarray) -> bytes:
    """The object before a background of every colour."""
    picture = np.random.default_rng(0).integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    picture[mask] = 200, 120, 60
    return _png(picture)


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def frames(name: Callable[[int], str] = lambda i: f"images/{i:04d}.png", cameras: Any = CAMERAS) -> list[dict[str, Any]]:
    """Of a transforms.json."""
    return [{"file_path": name(i), "transform_matrix": (Y_UP_TO_Z_UP @ camera).tolist()} for i, camera in enumerate(cameras)]


def nerf(
    root: dict[str, Any] = INTRINSICS,
    change: Callable[[int, dict[str, Any]], dict[str, Any]] = lambda i, frame: frame,
    *,
    name: Callable[[int], str] = lambda i: f"images/{i:04d}.png",
    stored: Callable[[int], str] | None = None,
    folder: str = "",
    masks: list[np.ndarray] | None = None,
    cameras: Any = CAMERAS,
    picture: Callable[[np.ndarray], bytes] = rgba,
) -> dict[str, bytes]:
    """A data set with a transforms.json, whose frames are changed at will."""
    listed = [change(i, frame) for i, frame in enumerate(frames(name, cameras))]
    files = {folder + "transforms.json": json.dumps({**root, "frames": listed}, ensure_ascii=False).encode()}
    for i, mask in enumerate(masks or [silhouette(camera) for camera in cameras]):
        files[(stored or name)(i)] = picture(mask)
    return files


def pixels_of(focal: float = FOCAL, width: float = WIDTH, height: float = HEIGHT) -> np.ndarray:
    """K as 4 x 4."""
    return np.array([[focal, 0, width / 2, 0], [0, focal, height / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


MATRIX = pixels_of()[:3, :3]


AROUND = [orbit(30 * 5 * i % 360, (-30, 35, 5, 60)[i % 4]) for i in range(12)]


def object_views(count: int = 6, cameras: list[np.ndarray] = CAMERAS) -> list[ObjectView]:
    """The first views, as a fit takes them."""
    return [ObjectView(f"view{i}.png", silhouette(c2w), MATRIX, c2w) for i, c2w in enumerate(cameras[:count])]


def w2c(camera: np.ndarray) -> np.ndarray:
    """The world to a camera in OpenCV's axes."""
    return np.diag([1.0, -1, -1, 1]) @ np.linalg.inv(camera)


def npz(arrays: Callable[[int, np.ndarray], dict[str, np.ndarray]], file: str = "cameras.npz") -> dict[str, bytes]:
    """A data set with a cameras.npz; `arrays` says what camera i writes into it."""
    buffer = io.BytesIO()
    np.savez(buffer, **{k: v for i, camera in enumerate(CAMERAS) for k, v in arrays(i, camera).items()})
    pictures = {f"image/{i:03d}.png": rgba(silhouette(camera)) for i, camera in enumerate(CAMERAS)}
    return {file: buffer.getvalue(), **pictures}


def write(path: Path, files: dict[str, bytes]) -> Path:
    """A zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def read(folder: Path, files: dict[str, bytes], *, skip_bad: bool = False, recentre: bool = False) -> Captures:
    """What the library reads from them."""
    return read_captures(write(folder / "set.zip", files), skip_bad=skip_bad, recentre=recentre)


def worst_iou(found: Captures, balls: Any = BALLS) -> float:
    """Of the stored masks with the true scene as the stored cameras see it: 0.98 where cameras and pictures were understood."""
    views, scale, centre = found.views, found.report["scale"], np.array(found.report["centre"])
    scaled = [(tuple(scale * (np.array(place) - centre)), scale * radius) for place, radius in balls]
    focal = views.size / 2 / math.tan(math.radians(views.fovy_deg) / 2)
    worst = 1.0
    for mask, c2w in zip(views.masks.numpy(), views.c2w.double().numpy(), strict=True):
        truth = silhouette(c2w, focal, (views.size, views.size), scaled)
        worst = min(worst, (truth & mask).sum() / (truth | mask).sum())
    return worst
