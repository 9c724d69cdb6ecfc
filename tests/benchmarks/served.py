"""What a user gets: pictures of 256 x 256 with the object off centre and at a size of its own, through `Reconstructor.run`."""

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from sdfsrn.config import Frame, Output, ReconstructionConfig, SyntheticData, View
from sdfsrn.data.synthetic import CAMERA_DISTANCE, FOVY_DEG, families_of, make_scenes
from sdfsrn.evaluation.metrics import iou
from sdfsrn.evaluation.protocol import ELEVATIONS_DEG, OFFSETS_DEG
from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.geometry.meshes import grid_points
from sdfsrn.geometry.primitives import Primitives, contains, intersect
from sdfsrn.images import Picture, mask_circle
from sdfsrn.reconstruct import ReconstructionFailed, Reconstructor

SIDE = 256  # pixels per side of what is sent
SIZE = 128  # of the silhouettes that come back
SMALLEST, LARGEST = 0.1, 0.27  # radius of the mask in the picture, as a share of its side
OFF_CENTRE = 0.1  # share of the side


@dataclass(frozen=True)
class Given:
    """One picture as a user sends it, and the truth in the scale in which an answer comes.

    `own_mask` is what the data set's camera saw from CAMERA_DISTANCE, of the shape as large as it was drawn.
    """

    family: str
    picture: Picture
    view: View
    shape: Primitives
    own_mask: Bool[Tensor, "size size"]

    @property
    def novel_views(self) -> tuple[View, ...]:
        """The evaluation's six unseen views."""
        return tuple(
            View((self.view.azimuth_deg + offset) % 360, elevation)
            for offset, elevation in zip(OFFSETS_DEG, ELEVATIONS_DEG, strict=True)
        )


def rays(
    views: tuple[View, ...], size: int = SIZE, distance: float = CAMERA_DISTANCE
) -> tuple[Float[Tensor, "1 rays 3"], Float[Tensor, "1 rays 3"]]:
    """Through all pixels of all views."""
    azimuth = torch.tensor([view.azimuth_deg for view in views])
    elevation = torch.tensor([view.elevation_deg for view in views])
    rays_o, rays_d = pixel_rays(orbit_c2w(azimuth, elevation, distance), FOVY_DEG, size)
    return rays_o.reshape(1, -1, 3), rays_d.reshape(1, -1, 3)


def silhouettes(
    shape: Primitives, views: tuple[View, ...], size: int = SIZE, distance: float = CAMERA_DISTANCE
) -> Bool[Tensor, "views size size"]:
    """The true ones, in closed form."""
    return intersect(shape, *rays(views, size, distance))[0].view(-1, size, size)


def given(data: SyntheticData, mask_radius: float, shift_px: tuple[float, float] = (0.0, 0.0)) -> Iterator[Given]:
    """Pictures of a data set's shapes, photographed anew; `shift_px` moves the object right and down in the picture."""
    scenes = make_scenes(data)
    masks = scenes.masks()
    generator = torch.Generator().manual_seed(data.seed + 3_000_003)
    placed = torch.rand(len(scenes), 3, generator=generator)
    windows = torch.stack([_window(mask, place, shift_px) for mask, place in zip(masks.numpy(), placed, strict=True)])
    for i, family in enumerate(families_of(data)):
        one = slice(i, i + 1)
        view = View(float(scenes.azimuth_deg[i]), float(scenes.elevation_deg[i]))
        picture = scenes[one].photographs(windows[one], SIDE)[0]
        yield Given(family, picture, view, scaled(scenes.shapes[one], view, mask_radius), masks[i])


def _window(mask: Bool[np.ndarray, "size size"], place: Float[Tensor, "3"], shift_px: tuple[float, float]) -> Float[Tensor, "4"]:
    x, y, radius = (part / len(mask) for part in mask_circle(mask))
    side = radius / math.exp(float(torch.lerp(torch.tensor(SMALLEST).log(), torch.tensor(LARGEST).log(), place[0])))
    right, down = (0.5 + OFF_CENTRE * (2 * float(part) - 1) + shift / SIDE for part, shift in zip(place[1:], shift_px, strict=True))
    return torch.tensor([x - right * side, y - down * side, x + (1 - right) * side, y + (1 - down) * side])


def scaled(shape: Primitives, view: View, mask_radius: float) -> Primitives:
    """The shape as large as a model answers: its mask at the picture's view has the radius of the training's masks."""
    scale = scale_to(mask_radius, lambda distance: silhouettes(shape, (view,), 2 * SIZE, distance)[0])
    return Primitives(shape.half_extents * scale, shape.kind)


def scale_to(mask_radius: float, mask_from: Callable[[float], Bool[Tensor, "size size"]]) -> float:
    """By how much a shape must grow for its mask to have this radius, a share of the side.

    `mask_from` is its mask from some camera distance: from half as far it looks as if it were twice as large.
    """
    scale = 1.0
    for _ in range(6):
        mask = mask_from(CAMERA_DISTANCE / scale)
        scale *= mask_radius / (mask_circle(mask.numpy())[2] / len(mask))
    return scale


@dataclass(frozen=True)
class Answer:
    """How good one answer is: IoU at the six unseen angles and, if asked, in 3-D, the view's error, IoU with the mask."""

    novel_iou: float
    iou_3d: float | None
    view_error_deg: float
    input_iou: float


NO_ANSWER = Answer(novel_iou=0.0, iou_3d=0.0, view_error_deg=180.0, input_iou=0.0)


def ask(
    served: Reconstructor, asked: Given, *, refine_steps: int = 0, frame: Frame = "object", solid: bool = False
) -> Answer:
    """Send one picture, and measure what comes back; where the model finds no shape, that is NO_ANSWER."""
    views = asked.novel_views
    if frame == "input":
        views = tuple(View(offset, elevation) for offset, elevation in zip(OFFSETS_DEG, ELEVATIONS_DEG, strict=True))
    outputs: tuple[Output, ...] = ("silhouettes", "sdf_grid") if solid else ("silhouettes",)
    config = ReconstructionConfig(views=views, frame=frame, size=SIZE, outputs=outputs, refine_steps=refine_steps)
    with tempfile.TemporaryDirectory() as folder:
        try:
            metrics = served.run(asked.picture, config, Path(folder))
        except ReconstructionFailed:
            return NO_ANSWER
        found = torch.stack(
            [torch.from_numpy(np.array(Image.open(Path(folder) / f"silhouette_{i:03d}.png"))) >= 128 for i in range(len(views))]
        )
        iou_3d = _iou_3d(np.load(Path(folder) / "sdf_grid.npy"), asked.shape) if solid else None
    truth = silhouettes(asked.shape, asked.novel_views)
    return Answer(
        float(iou(found.flatten(1), truth.flatten(1)).mean()),
        iou_3d,
        view_error_deg(asked, metrics["input_view"]),
        float(metrics["input_iou"]),
    )


def _iou_3d(sdf_grid: np.ndarray, shape: Primitives) -> float:
    inside = torch.from_numpy(sdf_grid < 0)
    return float(iou(inside.reshape(1, -1), contains(shape, grid_points(len(inside)).reshape(-1, 3)))[0])


def view_error_deg(asked: Given, estimated: dict[str, Any]) -> float:
    """The angle between two directions, modulo the turns that map the shape to itself: of a ball all, else three half turns."""
    if asked.family == "sphere":
        return 0.0
    azimuth = torch.tensor([asked.view.azimuth_deg, estimated["azimuth_deg"]], dtype=torch.float64)
    elevation = torch.tensor([asked.view.elevation_deg, estimated["elevation_deg"]], dtype=torch.float64)
    true, found = orbit_c2w(azimuth, elevation, 1.0)[:, :3, 2]
    turns = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    return float(torch.rad2deg(torch.acos((turns * found @ true).clamp(-1, 1).max())))
