"""The film of a fit: what one view should show, what it shows, the squared error, and the shape from all around."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from sdfsrn.geometry.cameras import orbit_c2w
from sdfsrn.geometry.pinholes import Pinhole
from sdfsrn.rendering.grids import GridField
from sdfsrn.rendering.rays import RenderedView, render_view
from sdfsrn.rendering.silhouettes import soft_silhouette

SIDE = 128  # pixels of the longer side of a panel, at most
TURNS = 1.0  # that the shape makes in the film
ELEVATION_DEG = 20.0
FRAME_MS, LAST_MS = 120, 1_500
BANNER = 14  # pixels above the panels
LIGHT = (0.3, 0.5, 1.0)  # in the camera's axes
AMBIENT = 0.25


class Film:
    """Frames of a shape while it is fitted; `grid` stands for it, so that a frame costs little."""

    def __init__(self, mask: Bool[np.ndarray, "height width"], camera: Pinhole) -> None:
        """The view to compare with."""
        times = max(1, -(-max(mask.shape) // SIDE))
        self.camera = camera.reduced(times)
        height, width = self.camera.height, self.camera.width
        cut = mask[: height * times, : width * times].reshape(height, times, width, times)
        self.target = cut.mean(axis=(1, 3))
        self.frames: list[Image.Image] = []

    def add(self, grid: GridField, done: float, caption: str) -> None:
        """A frame; `done` in [0, 1] says how far the shape has turned."""
        seen = render_view(grid, grid, self.camera)
        prediction = soft_silhouette(seen.minima, self.camera.pixel_width / 4).numpy()
        error = np.square(prediction - self.target)
        around = orbit_camera(360 * TURNS * done, self.camera)
        turning = shaded(render_view(grid, grid, around), around)
        panels = [_grey(self.target), _grey(prediction), _red(error), np.repeat(turning[..., None], 3, axis=2)]
        page = Image.fromarray(np.concatenate([np.pad(panel, ((BANNER, 0), (0, 2), (0, 0))) for panel in panels], axis=1))
        ImageDraw.Draw(page).text((2, 1), caption, fill=(255, 255, 255))
        self.frames.append(page)

    def save(self, path: Path) -> None:
        """A GIF that stops at the end for a while."""
        first, *rest = self.frames
        times = [FRAME_MS] * len(rest) + [LAST_MS]
        first.save(path, save_all=True, append_images=rest, duration=times, loop=0)


def orbit_camera(azimuth_deg: float, like: Pinhole) -> Pinhole:
    """A camera that looks at the origin from as far as another does, with its pictures' size and focal length."""
    distance = float(np.linalg.norm(like.place))
    c2w = orbit_c2w(torch.tensor([azimuth_deg]), torch.tensor([ELEVATION_DEG]), distance)[0].double().numpy()
    intrinsics = like.intrinsics.copy()
    intrinsics[:2, 2] = like.width / 2, like.height / 2
    return Pinhole(intrinsics, c2w, like.width, like.height)


def shaded(seen: RenderedView, camera: Pinhole) -> UInt8[np.ndarray, "height width"]:
    """A grey picture of a shape, lit from beside the camera."""
    light = torch.from_numpy(camera.c2w[:3, :3] @ np.array(LIGHT)).float()
    lambert: Float[Tensor, "height width"] = (seen.normals @ (light / light.norm())).clamp(min=0)
    picture: np.ndarray = ((AMBIENT + (1 - AMBIENT) * lambert) * (seen.minima < 0) * 255).round().to(torch.uint8).numpy()
    return picture


def _grey(picture: np.ndarray) -> np.ndarray:
    return np.repeat((picture * 255).round().astype(np.uint8)[..., None], 3, axis=2)


def _red(error: np.ndarray) -> np.ndarray:
    shown = np.zeros((*error.shape, 3), dtype=np.uint8)
    shown[..., 0] = (error * 255).round()
    shown[..., 1] = (error * 90).round()
    return shown
