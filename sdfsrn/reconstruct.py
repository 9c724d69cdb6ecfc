"""From one picture to a shape: latent, the view it was taken from, silhouettes, depth, normals and a mesh at any angle."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.config import ReconstructionConfig, View, ring
from sdfsrn.device import fast_dtype, pick_device
from sdfsrn.evaluation.metrics import iou
from sdfsrn.geometry.cameras import intrinsics
from sdfsrn.geometry.meshes import BOUND, EmptySurface, extract_mesh, grid_points, save_mesh
from sdfsrn.images import Picture, crop_shares, crop_to_radius
from sdfsrn.networks.encoder import IMAGE_SIZE
from sdfsrn.refinement import Refinement
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.grids import GridField
from sdfsrn.rendering.silhouettes import evaluate, soft_silhouette
from sdfsrn.rendering.views import Camera, Surface, minimum_picture, surface_picture

MESH_RESOLUTION = 128
SOFTEST = 0.02  # scene units at most, so that the inside is 255 and the background 0 however large a pixel is
TURNTABLE_VIEWS, TURNTABLE_SIZE = 24, 128
PIXELS_AT_ONCE = 1 << 19  # eight pictures of 256 x 256: fewer, larger operations, in bounded memory
SEARCH_SIZE, SEARCH_SAMPLES = 16, 16  # pixels per side of the pictures that the view is searched with; samples per diameter
# A mask that the model explains is of its own kind, and a little is to be mended. What it does not know is most cheaply explained
# by a field so flat that its silhouettes blur, unless more is asked; but that costs the first kind at unseen angles.
EXPLAINED_IOU = 0.9
MARGIN_PX, MARGIN_PX_UNEXPLAINED = 0.25, 1.0
MENDED = 0.9  # of what a shape leaves unexplained: a refined one that leaves more is not worth its dents

# phase, step, total; may raise, which is how a caller stops a reconstruction
Progress = Callable[[str, int, int], None]


class ReconstructionFailed(RuntimeError):
    """The model ran but found no surface."""


@dataclass(frozen=True)
class Shape:
    """What was found in a picture: a latent, its field, the view the picture was taken from, and the masks' IoU there."""

    latent: Float[Tensor, "1 latent_dim"]
    sdf: Sdf
    grid: GridField
    view: View
    input_iou: float


class Reconstructor:
    """A loaded model that turns pictures into shapes."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.model(device)
        self.device = device

    @classmethod
    def load(cls, checkpoint: Path, device: str = "auto") -> "Reconstructor":
        """Read a checkpoint. Raises ValueError for a file that is none."""
        return cls(Checkpoint.load(checkpoint), pick_device(device))

    def run(
        self,
        picture: Picture,
        config: ReconstructionConfig,
        folder: Path,
        progress: Progress = lambda phase, step, total: None,
    ) -> dict[str, Any]:
        """Write the asked artifacts and result.json into `folder`; returns the metrics.

        The picture is scaled so that its mask has the mean radius of the training masks: its true size is unknown.
        Raises ReconstructionFailed when the shape found is empty.
        """
        folder.mkdir(parents=True, exist_ok=True)
        clock = Stopwatch()
        progress("encoding", 0, 1)
        with clock.measure("encode"):
            crop = crop_to_radius(picture, self.checkpoint.mask_radius, IMAGE_SIZE)
            latent = self.encode(crop)
        with clock.measure("view"):
            shape = self.shape(latent, crop, config.input_view)
        unrefined = {}
        if config.refine_steps:
            unrefined = {"unrefined_input_iou": shape.input_iou}
            with clock.measure("refine"):
                shape = self.refined(shape, crop, config, progress)
        sdf, grid, view = shape.sdf, shape.grid, shape.view
        camera_distance = config.camera_distance or self.checkpoint.camera_distance
        fovy_deg = config.fovy_deg or self.checkpoint.fovy_deg
        offset = view.azimuth_deg if config.frame == "input" else 0.0
        views = [View((asked.azimuth_deg + offset) % 360, asked.elevation_deg) for asked in config.views]
        camera = Camera.on_orbit(views, camera_distance, fovy_deg, config.size, self.device)
        self._write_views(sdf, grid, camera, config, folder, clock, progress)
        if "mesh" in config.outputs:
            with clock.measure("mesh"):
                progress("mesh", 0, 1)
                save_mesh(self.mesh(sdf, grid), folder / f"mesh.{config.mesh_format}")
        if "turntable" in config.outputs:
            with clock.measure("turntable"):
                progress("turntable", 0, 1)
                self._write_turntable(sdf, grid, camera_distance, fovy_deg, folder / "turntable.gif")
        if "sdf_grid" in config.outputs:
            nodes = grid_points(len(grid.values), self.device)
            values = evaluate(sdf, nodes.reshape(1, -1, 3)).view(nodes.shape[:3])
            np.save(folder / "sdf_grid.npy", values.cpu().numpy())
        metrics = {
            "input_iou": shape.input_iou,
            **unrefined,
            "input_view": {**asdict(view), "estimated": config.input_view is None},
        }
        result = metrics | {
            "latent": shape.latent[0].tolist(),
            "views": [
                {**asdict(asked), "c2w": pose.tolist(), "K": intrinsics(fovy_deg, config.size)}
                for asked, pose in zip(config.views, camera.c2w, strict=True)
            ],
            "frame": config.frame,  # of the views' angles; c2w is the object's frame always
            "scale": "unknown",
            "crop": crop_shares(picture, self.checkpoint.mask_radius),
            "grid_bound": BOUND,
            "timings_ms": clock.timings_ms,
        }
        (folder / "result.json").write_text(json.dumps(result, indent=1, allow_nan=False))
        return metrics | {"timings_ms": clock.timings_ms}

    def encode(self, crop: Picture) -> Float[Tensor, "1 latent_dim"]:
        """The latent of a 64 x 64 picture of an object on black."""
        image = torch.from_numpy(crop.rgb.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            latent: Tensor = self.model.encode(image.to(self.device))
        return latent

    def shape(self, latent: Tensor, crop: Picture, input_view: View | None = None) -> Shape:
        """The shape of a latent, seen in `crop` from a known view or from the one that explains its mask best.

        Raises ReconstructionFailed when the shape is empty.
        """
        sdf, grid = self._field(latent)
        view = input_view or self.estimate_view(grid, crop)
        return Shape(latent, sdf, grid, view, self.input_iou(sdf, grid, crop, view))

    def refined(
        self,
        shape: Shape,
        crop: Picture,
        config: ReconstructionConfig,
        progress: Progress = lambda phase, step, total: None,
    ) -> Shape:
        """The shape after at most `refine_steps`, or as it was if they leave nearly as much of the mask unexplained.

        The view moves with the shape and is sought once more for the new one, unless `config` knows it.
        """
        checkpoint, known = self.checkpoint, config.input_view
        refinement = Refinement(
            self.model,
            torch.from_numpy(crop.mask).to(self.device),
            checkpoint.camera_distance,
            checkpoint.fovy_deg,
            MARGIN_PX if shape.input_iou > EXPLAINED_IOU else MARGIN_PX_UNEXPLAINED,
            torch.Generator().manual_seed(config.seed),
        )
        elevation = shape.view.elevation_deg  # the view's search ends a little beyond what the model was trained at
        latent, view = refinement.run(
            shape.latent,
            shape.view,
            config.refine_steps,
            None if known else (min(checkpoint.lowest_deg, elevation), max(checkpoint.highest_deg, elevation)),
            lambda step: progress("refining", step, config.refine_steps),
        )
        try:
            sdf, grid = self._field(latent)
        except ReconstructionFailed:
            return shape  # the steps emptied it
        views = [view] if known else [view, self.estimate_view(grid, crop)]
        found = [Shape(latent, sdf, grid, each, self.input_iou(sdf, grid, crop, each)) for each in views]
        refined = max(found, key=lambda each: each.input_iou)
        return refined if 1 - refined.input_iou < MENDED * (1 - shape.input_iou) else shape

    def _field(self, latent: Tensor) -> tuple[Sdf, GridField]:
        sdf = self.model.sdf(latent)
        # the grid only says where to look: low precision will do
        mirror = self.model.config.symmetry == "mirror"
        grid = GridField(self.model.search_sdf(latent, fast_dtype(self.device)), device=self.device, mirror=mirror)
        if not bool(grid.values.isfinite().all()):
            raise ReconstructionFailed("the model's field is not finite: its weights are damaged; train it anew or choose another")
        if bool((grid.values >= 0).all()):
            raise ReconstructionFailed(
                "the model found no shape in this picture: its field has no inside. Send a picture that resembles the "
                "model's training data, or train a model on your own"
            )
        return sdf, grid

    def estimate_view(self, grid: GridField, crop: Picture) -> View:
        """The orbit view whose silhouette agrees best with the mask: a coarse search of the orbit, then three finer ones.

        Sought at the elevations that the model was trained at: it knows no others.
        """
        mask = Image.fromarray(crop.mask).convert("L").resize((SEARCH_SIZE, SEARCH_SIZE), Image.Resampling.BOX)
        target = torch.from_numpy(np.asarray(mask) / np.float32(255)).to(self.device).reshape(1, -1)
        candidates = [View(15.0 * i, elevation) for i in range(24) for elevation in self._search_elevations()]
        best = self._best_view(grid, target, candidates)
        for step_deg in (8.0, 4.0, 2.0):
            around = [
                View(best.azimuth_deg + step_deg * i, min(90.0, max(-90.0, best.elevation_deg + step_deg * j)))
                for i in (-1, 0, 1)
                for j in (-1, 0, 1)
            ]
            best = self._best_view(grid, target, around)
        return View(best.azimuth_deg % 360, best.elevation_deg)

    def _search_elevations(self) -> list[float]:
        """At most 20 degrees apart, the outer ones 5 inside the range: the finer searches go 14 further."""
        low, high = self.checkpoint.lowest_deg, self.checkpoint.highest_deg
        inset = min(5.0, (high - low) / 2)
        count = 1 + max(0, math.ceil((high - low - 2 * inset) / 20))
        return [float(elevation) for elevation in np.linspace(low + inset, high - inset, count)]

    def _best_view(self, grid: GridField, target: Tensor, candidates: list[View]) -> View:
        camera = Camera.on_orbit(candidates, self.checkpoint.camera_distance, self.checkpoint.fovy_deg, SEARCH_SIZE, self.device)
        rays_o, rays_d = camera.rays()
        _, minima, _ = grid.ray_minimum(rays_o, rays_d, SEARCH_SAMPLES)
        # soft over half a pixel, so that views between pixels can be told apart
        soft = soft_silhouette(minima.view(len(candidates), -1), camera.pixel_width() / 4)
        agreement = torch.minimum(soft, target).sum(1) / torch.maximum(soft, target).sum(1)
        return candidates[int(agreement.argmax())]

    def input_iou(self, sdf: Sdf, grid: GridField, crop: Picture, view: View) -> float:
        """IoU of the rendered and the given mask at the picture's view."""
        camera = Camera.on_orbit([view], self.checkpoint.camera_distance, self.checkpoint.fovy_deg, IMAGE_SIZE, self.device)
        rendered: Bool[Tensor, "1 n"] = (minimum_picture(sdf, grid, camera) < 0).reshape(1, -1).cpu()
        return float(iou(rendered, torch.from_numpy(crop.mask).reshape(1, -1))[0])

    def mesh(self, sdf: Sdf, grid: GridField) -> Any:
        """The watertight surface, a trimesh.Trimesh in scene units. Raises ReconstructionFailed when it is empty."""
        try:
            return extract_mesh(grid.finer(sdf, MESH_RESOLUTION))
        except EmptySurface as error:
            raise ReconstructionFailed(str(error)) from error

    def _write_views(
        self,
        sdf: Sdf,
        grid: GridField,
        camera: Camera,
        config: ReconstructionConfig,
        folder: Path,
        clock: "Stopwatch",
        progress: Progress,
    ) -> None:
        with_surface = {"depth", "normals"} & set(config.outputs)
        sheet: list[np.ndarray] = []
        for poses in camera.c2w.split(max(1, PIXELS_AT_ONCE // camera.size**2)):
            progress("rendering", len(sheet), len(camera.c2w))
            several = Camera(poses, camera.fovy_deg, camera.size)
            with clock.measure("silhouettes"):
                minima = minimum_picture(sdf, grid, several)
                silhouettes = antialiased(minima, several)
            if with_surface:
                with clock.measure("surfaces"):
                    surface = surface_picture(sdf, grid, several, minima)
                    depths = surface.depth.cpu().numpy().astype(np.float32)
                    normals = _as_colours(surface)
            with clock.measure("files"):
                for i in range(len(poses)):
                    number = f"{len(sheet):03d}"
                    sheet.append(silhouettes[i])
                    if "silhouettes" in config.outputs:
                        Image.fromarray(silhouettes[i]).save(folder / f"silhouette_{number}.png", compress_level=1)
                    if "depth" in config.outputs:
                        np.save(folder / f"depth_{number}.npy", depths[i])
                    if "normals" in config.outputs:
                        Image.fromarray(normals[i]).save(folder / f"normals_{number}.png", compress_level=1)
        with clock.measure("contact_sheet"):
            _contact_sheet(sheet).save(folder / "contact_sheet.png", compress_level=1)

    def _write_turntable(self, sdf: Sdf, grid: GridField, camera_distance: float, fovy_deg: float, path: Path) -> None:
        camera = Camera.on_orbit(list(ring(TURNTABLE_VIEWS, 20.0)), camera_distance, fovy_deg, TURNTABLE_SIZE, self.device)
        surface = surface_picture(sdf, grid, camera, minimum_picture(sdf, grid, camera))
        light = torch.nn.functional.normalize(camera.c2w[:, :3, :3] @ torch.tensor([0.3, 0.5, 1.0], device=self.device), dim=-1)
        lambert = (surface.normals * light[:, None, None]).sum(-1).clamp(min=0)
        frames = ((0.25 + 0.75 * lambert) * surface.hit * 255).round().to(torch.uint8).cpu().numpy()
        first, *rest = [Image.fromarray(frame) for frame in frames]
        first.save(path, save_all=True, append_images=rest, duration=80, loop=0)


def antialiased(minima: Tensor, camera: Camera) -> np.ndarray:
    """8-bit silhouettes, 255 = object, the outline softened over about one pixel; 128 and above is inside."""
    return (soft_silhouette(minima, min(camera.pixel_width() / 4, SOFTEST)) * 255).round().to(torch.uint8).cpu().numpy()


def _as_colours(surface: Surface) -> np.ndarray:
    """Unit normals n as (n + 1) / 2, 8-bit; black where there is nothing."""
    shown = (surface.normals * 0.5 + 0.5) * surface.hit[..., None]
    colours: np.ndarray = (shown * 255).round().to(torch.uint8).cpu().numpy()
    return colours


def _contact_sheet(pictures: list[np.ndarray], columns: int = 6, gap: int = 4) -> Image.Image:
    """All silhouettes on one page, reduced to at most 256 pixels each."""
    thumbnails = [Image.fromarray(picture) for picture in pictures]
    side = min(256, thumbnails[0].width)
    columns = min(columns, len(thumbnails))
    rows = -(-len(thumbnails) // columns)
    sheet = Image.new("L", (columns * (side + gap) + gap, rows * (side + gap) + gap), 96)
    for i, picture in enumerate(thumbnails):
        place = (gap + i % columns * (side + gap), gap + i // columns * (side + gap))
        sheet.paste(picture.resize((side, side), Image.Resampling.BOX), place)
    return sheet


class Stopwatch:
    """Milliseconds spent per part of the work."""

    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {}

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time of the block to `part`."""
        started = time.perf_counter()
        yield
        spent = (time.perf_counter() - started) * 1000
        self.timings_ms[part] = round(self.timings_ms.get(part, 0.0) + spent, 2)
