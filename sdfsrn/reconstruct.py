"""From one picture to a shape: latent, the view it was taken from, silhouettes, depth, normals and a mesh at any angle."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.config import ReconstructionConfig, View, ring
from sdfsrn.device import fast_dtype, pick_device
from sdfsrn.evaluation.metrics import iou
from sdfsrn.familiarity import UNFAMILIAR, Familiarity
from sdfsrn.geometry.cameras import ball_radius, intrinsics
from sdfsrn.geometry.meshes import BOUND, EmptySurface, extract_mesh, grid_points, save_mesh
from sdfsrn.images import Picture, PictureWarning, crop_shares, mask_circles, mask_crop, tile_of
from sdfsrn.networks.encoder import IMAGE_SIZE, encoder_images
from sdfsrn.networks.model import Seen
from sdfsrn.refinement import Refinement
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.grids import GridField
from sdfsrn.rendering.silhouettes import CHUNK, evaluate, soft_silhouette
from sdfsrn.rendering.views import Camera, Surface, minimum_picture, share_views, surface_picture
from sdfsrn.stopwatch import Stopwatch
from sdfsrn.threads import undivided_operations

MESH_RESOLUTION = 128
SOFTEST = 0.02  # scene units at most, so that the inside is 255 and the background 0 however large a pixel is
TURNTABLE_VIEWS, TURNTABLE_SIZE = 24, 128
PIXELS_AT_ONCE = 1 << 19  # eight pictures of 256 x 256: fewer, larger operations, in bounded memory
SEARCH_SAMPLES = 16  # per diameter, of the pictures that the view is searched with
COARSE_SIZE, COARSE_STEP_DEG = 16, 15.0  # pixels per side of the search's first pictures, and how far apart their views are
FINER = ((16, 8.0), (32, 4.0), (32, 2.0), (32, 1.0))  # of the later ones
LEAST_LIKELY = -10.0  # logarithm, of an azimuth: what is smaller is as good as excluded
ELEVATION_ERROR_DEG = 9.0  # of the encoder's word on it
CERTAINTY = 40.0  # how many nats of the encoder's own word on the view a whole of IoU is worth
SAME_TURNED = 0.95  # IoU of a shape with itself after half a turn, from which on a view from behind is as good
AS_WELL, UNSURE = 0.02, 2.0  # IoU, and nats of the encoder's word, by which two views explain a picture about as well
SAME_SIZE = 0.002  # change of size that is not worth a field of its own
KEPT = 3  # of the first ones: where two silhouettes are nearly alike, only finer ones tell them apart
MARGIN_PX = 0.25  # beside the outline, that a refinement asks for: it then runs between the pixels' centres
SETTLED_IOU = 0.9  # with what the model explains so well, steps made unseen angles worse
MENDED = 0.9  # of what a shape leaves unexplained: a refined one that leaves more is not worth its dents

UNFAMILIAR_OBJECT = PictureWarning(
    "unfamiliar",
    "The model was not trained on such objects, so the answer is a guess within the shapes that it knows. "
    "Use another model, or train one on objects of this kind.",
)
HALF_TURN_POSSIBLE = PictureWarning(
    "half_turn_possible",
    "The view may be wrong by half a turn: from behind, the outline is nearly the same. "
    "If you know the view, send it as input_view.",
)
REFINEMENT_REJECTED = PictureWarning(
    "refinement_rejected",
    "The refinement was not kept: the answer explained the mask already, or the steps explained hardly more of it.",
)

# phase, step, total; may raise, which is how a caller stops a reconstruction
Progress = Callable[[str, int, int], None]


class ReconstructionFailed(RuntimeError):
    """The model ran but found no surface."""


@dataclass(frozen=True)
class Shape:
    """What was found in a picture: a latent, its field, the view the picture was taken from, and the masks' IoU there.

    The field is `scale` times as large as the model's own, so that its silhouette at the view has the training masks' radius.
    """

    latent: Float[Tensor, "1 latent_dim"]
    sdf: Sdf
    grid: GridField
    view: View
    input_iou: float
    scale: float = 1.0


@dataclass(frozen=True)
class Looked:
    """What the encoder makes of a picture: a latent and, if it can tell, where the picture was taken from.

    `target` is the picture's mask as the model's own cameras would see it: what its silhouettes are compared with.
    """

    latent: Float[Tensor, "1 latent_dim"]
    seen: Seen | None
    target: Float[Tensor, "size size"]


class Reconstructor:
    """A loaded model that turns pictures into shapes."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.model(device)
        self.device = device
        self.known = Familiarity.read(checkpoint.known, device)

    @classmethod
    def load(cls, checkpoint: Path, device: str = "auto") -> "Reconstructor":
        """Read a checkpoint. Raises ValueError for a file that is none."""
        return cls(Checkpoint.load(checkpoint), pick_device(device))

    @undivided_operations()
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
        Image.fromarray(picture.mask.astype(np.uint8) * 255).save(folder / "mask.png", compress_level=1)
        warnings = list(picture.warnings)
        clock = Stopwatch()
        progress("encoding", 0, 1)
        with clock.measure("encode"):
            looked = self.look(picture)
        with clock.measure("view"):
            shape = self.shape(looked, config.input_view)
        understood = self._understood(looked, shape)
        if understood["verdict"] == "unfamiliar":
            warnings.append(UNFAMILIAR_OBJECT)
        unrefined = {}
        if config.refine_steps:
            progress("refining", 0, config.refine_steps)
            unrefined = {"unrefined_input_iou": shape.input_iou}
            with clock.measure("refine"):
                refined = self.refined(shape, looked, config, progress)
            if refined is shape:
                warnings.append(REFINEMENT_REJECTED)
            shape = refined
        if config.input_view is None and self._may_be_turned(shape, looked):
            warnings.append(HALF_TURN_POSSIBLE)
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
            **understood,
            "input_view": {**asdict(view), "estimated": config.input_view is None},
            "warnings": [asdict(warning) for warning in warnings],
        }
        result = metrics | {
            "latent": shape.latent[0].tolist(),
            "latent_scale": shape.scale,  # the shape is so many times as large as the latent's own field
            "views": [
                {**asdict(asked), "c2w": pose.tolist(), "K": intrinsics(fovy_deg, config.size)}
                for asked, pose in zip(config.views, camera.c2w, strict=True)
            ],
            "frame": config.frame,  # of the views' angles; c2w is the object's frame always
            "scale": "unknown",
            "crop": crop_shares(picture, self._tile_radius),
            "grid_bound": BOUND,
            "timings_ms": clock.timings_ms,
        }
        (folder / "result.json").write_text(json.dumps(result, indent=1, allow_nan=False))
        return metrics | {"timings_ms": clock.timings_ms}

    def look(self, picture: Picture) -> Looked:
        """What the encoder makes of the object in a picture of any size."""
        tile = tile_of(picture, self._tile_radius)
        return self.look_at(torch.from_numpy(tile.copy()).permute(2, 0, 1), torch.from_numpy(np.ascontiguousarray(picture.mask)))

    @property
    def _tile_radius(self) -> float:
        return self.checkpoint.tile_radius or self.checkpoint.mask_radius

    def look_at(self, tile: UInt8[Tensor, "3 side side"], mask: Bool[Tensor, "height width"]) -> Looked:
        """The same of a picture's tile and mask."""
        images = encoder_images(tile[None].to(self.device))
        target = torch.from_numpy(mask_crop(mask.numpy(), self.checkpoint.mask_radius, IMAGE_SIZE)).to(self.device)
        with torch.no_grad():
            if self.model.config.view_head:
                return Looked(*self.model.look(images), target)
            return Looked(self.model.encode(images), None, target)

    def shape(self, looked: Looked, input_view: View | None = None) -> Shape:
        """The shape in a picture, seen from a known view or from the one that explains its mask best.

        Raises ReconstructionFailed when the shape is empty.
        """
        sdf, grid = self._field(looked.latent)
        return self._seen_from(input_view or self.estimate_view(grid, looked), looked.latent, looked.target, sdf, grid)

    def _seen_from(self, view: View, latent: Tensor, target: Tensor, sdf: Sdf, grid: GridField) -> Shape:
        scale = self._scale(grid, view)
        if abs(scale - 1) > SAME_SIZE:
            sdf, grid = self._field(latent, scale)
        return Shape(latent, sdf, grid, view, self.input_iou(sdf, grid, target, view), scale)

    def _scale(self, grid: GridField, view: View) -> float:
        """By how much the field must grow for its silhouette to have the radius of the training's masks."""
        _, _, radius = _circles(self._soft_silhouettes(grid, [view], IMAGE_SIZE))
        if not radius:
            return 1.0  # nothing is seen from there
        wanted, found = (
            ball_radius(torch.as_tensor(share), self.checkpoint.fovy_deg) for share in (self.checkpoint.mask_radius, radius[0])
        )
        return float(wanted / found)

    def familiarity(self, looked: Looked, shape: Shape) -> float | None:
        """The share of pictures of the training's kind that the model knows no better; None if the checkpoint cannot say."""
        return self.known.of(looked.latent, looked.target, shape.input_iou) if self.known else None

    def _understood(self, looked: Looked, shape: Shape) -> dict[str, Any]:
        share = self.familiarity(looked, shape)
        verdict = None if share is None else "unfamiliar" if share < UNFAMILIAR else "familiar"
        return {"familiarity": share, "verdict": verdict}

    def refined(
        self,
        shape: Shape,
        looked: Looked,
        config: ReconstructionConfig,
        progress: Progress = lambda phase, step, total: None,
    ) -> Shape:
        """The shape after at most `refine_steps`, or as it was if they leave nearly as much of the mask unexplained.

        Nor is a shape moved that explains the mask already: what is left is the rounding of pixels, and the view's error. The
        view moves with the shape and is sought once more for the new one, unless `config` knows it.
        """
        if shape.input_iou > SETTLED_IOU:
            return shape
        checkpoint, known = self.checkpoint, config.input_view
        refinement = Refinement(
            self.model,
            self._aligned_mask(shape, looked.target),
            checkpoint.camera_distance,
            checkpoint.fovy_deg,
            MARGIN_PX,
            torch.Generator().manual_seed(config.seed),
        )
        elevation = shape.view.elevation_deg  # the view's search ends a little beyond what the model was trained at
        latent, view = refinement.run(
            shape.latent,
            shape.view,
            config.refine_steps,
            None if known else (min(checkpoint.lowest_deg, elevation), max(checkpoint.highest_deg, elevation)),
            self.known.code_metric if self.known else torch.eye(shape.latent.shape[1], device=self.device),
            lambda step: progress("refining", step, config.refine_steps),
        )
        try:
            sdf, grid = self._field(latent)
        except ReconstructionFailed:
            return shape  # the steps emptied it
        views = [view] if known else [view, self.estimate_view(grid, looked)]
        found = [self._seen_from(each, latent, looked.target, sdf, grid) for each in views]
        refined = max(found, key=lambda each: each.input_iou)
        return refined if 1 - refined.input_iou < MENDED * (1 - shape.input_iou) else shape

    @undivided_operations()
    def _field(self, latent: Tensor, scale: float = 1.0) -> tuple[Sdf, GridField]:
        sdf = _scaled(self.model.sdf(latent), scale)
        # the grid only says where to look: low precision will do
        mirror = self.model.config.symmetry == "mirror"
        search = _scaled(self.model.search_sdf(latent, fast_dtype(self.device)), scale)
        grid = GridField(search, device=self.device, mirror=mirror)
        if not bool(grid.values.isfinite().all()):
            raise ReconstructionFailed("the model's field is not finite: its weights are damaged; train it anew or choose another")
        if bool((grid.values >= 0).all()):
            raise ReconstructionFailed(
                "the model found no shape in this picture: its field has no inside. Send a picture that resembles the "
                "model's training data, or train a model on your own"
            )
        return sdf, grid

    def estimate_view(self, grid: GridField, looked: Looked) -> View:
        """The orbit view whose silhouette agrees best with the mask: a coarse search of the orbit, then finer ones.

        Where silhouettes agree about as well, the encoder's own word decides.

        Sought at the elevations that the model was trained at: it knows no others.
        """
        count = round(360 / COARSE_STEP_DEG)
        candidates = [View(COARSE_STEP_DEG * i, elevation) for i in range(count) for elevation in self._search_elevations()]
        agreement = self._agreement(grid, looked, candidates, COARSE_SIZE)
        best: list[View] = []
        for i in agreement.argsort(descending=True).tolist():
            if all(abs((candidates[i].azimuth_deg - other.azimuth_deg + 180) % 360 - 180) > 2 * COARSE_STEP_DEG for other in best):
                best.append(candidates[i])
            if len(best) == KEPT:
                break
        for size, step_deg in FINER:
            around = [
                View(view.azimuth_deg + step_deg * i, min(90.0, max(-90.0, view.elevation_deg + step_deg * j)))
                for view in best
                for i in (-1, 0, 1)
                for j in (-1, 0, 1)
            ]
            agreement = self._agreement(grid, looked, around, size).view(len(best), 9)
            best = [around[9 * i + int(place)] for i, place in enumerate(agreement.argmax(dim=1))]
        view = best[int(agreement.amax(dim=1).argmax())]
        return View(view.azimuth_deg % 360, view.elevation_deg)

    def _may_be_turned(self, shape: Shape, looked: Looked) -> bool:
        """Whether a view from behind agrees about as well with the picture, of a shape that is another one after half a turn."""
        inside = shape.grid.values < 0
        if float(iou(inside.reshape(1, -1), inside.flip(0, 2).reshape(1, -1))[0]) > SAME_TURNED:
            return False
        behind = [View((shape.view.azimuth_deg + 180 + turn) % 360, shape.view.elevation_deg) for turn in (-10, -5, 0, 5, 10)]
        views = [shape.view, *behind]
        overlap, word = self._overlap(shape.grid, looked, views, FINER[-1][0]), _log_likelihood(looked.seen, views)
        return bool(((overlap > overlap[0] - AS_WELL) & (word > word[0] - UNSURE))[1:].any())

    def _search_elevations(self) -> list[float]:
        """At most 20 degrees apart, the outer ones 5 inside the range: the finer searches go 14 further."""
        low, high = self.checkpoint.lowest_deg, self.checkpoint.highest_deg
        inset = min(5.0, (high - low) / 2)
        count = 1 + max(0, math.ceil((high - low - 2 * inset) / 20))
        return [float(elevation) for elevation in np.linspace(low + inset, high - inset, count)]

    def _agreement(self, grid: GridField, looked: Looked, views: list[View], size: int) -> Float[Tensor, " views"]:
        """How well views agree with a picture: the silhouettes' overlap, and the encoder's word."""
        return self._overlap(grid, looked, views, size) + _log_likelihood(looked.seen, views).to(self.device) / CERTAINTY

    def _overlap(self, grid: GridField, looked: Looked, views: list[View], size: int) -> Float[Tensor, " views"]:
        """IoU of the mask and soft silhouettes, `size` pixels per side."""
        soft = self._soft_silhouettes(grid, views, size)
        wanted = aligned(looked.target, soft)
        overlap: Tensor = torch.minimum(soft, wanted).sum((1, 2)) / torch.maximum(soft, wanted).sum((1, 2)).clamp(min=1e-6)
        return overlap

    def input_iou(self, sdf: Sdf, grid: GridField, target: Float[Tensor, "size size"], view: View) -> float:
        """IoU of the rendered and the given mask at the picture's view, of one centre and radius."""
        rendered = self._silhouette(sdf, grid, view, len(target))
        wanted = aligned(target, rendered[None].float())[0] > 0.5
        return float(iou(rendered.reshape(1, -1).cpu(), wanted.reshape(1, -1).cpu())[0])

    def _aligned_mask(self, shape: Shape, target: Tensor) -> Bool[Tensor, "size size"]:
        """The target where the model's own field, before it was scaled, has its silhouette."""
        rendered = self._silhouette(shape.sdf, shape.grid, shape.view, len(target), shape.scale)
        return aligned(target, rendered[None].float())[0] > 0.5

    def _silhouette(self, sdf: Sdf, grid: GridField, view: View, size: int, times: float = 1.0) -> Bool[Tensor, "size size"]:
        return minimum_picture(sdf, grid, self._camera([view], size, times))[0] < 0

    def _soft_silhouettes(self, grid: GridField, views: list[View], size: int) -> Float[Tensor, "views size size"]:
        """Of the grid; soft over half a pixel, so that views between pixels can be told apart."""
        camera = self._camera(views, size)
        minima = share_views(lambda share: grid.ray_minimum(*share.rays(), SEARCH_SAMPLES)[1][0], camera)
        return soft_silhouette(minima.view(len(views), size, size), camera.pixel_width() / 4)

    def _camera(self, views: list[View], size: int, times: float = 1.0) -> Camera:
        """The training's camera, or one so many times as far."""
        return Camera.on_orbit(views, self.checkpoint.camera_distance * times, self.checkpoint.fovy_deg, size, self.device)

    @undivided_operations()
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
        clock: Stopwatch,
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


def _scaled(sdf: Sdf, scale: float) -> Sdf:
    """The field of the shape `scale` times as large."""
    if scale == 1:
        return sdf

    def larger(points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        return sdf(points / scale) * scale

    larger.points_at_once = getattr(sdf, "points_at_once", CHUNK)  # type: ignore[attr-defined]
    return larger


def _log_likelihood(seen: Seen | None, views: list[View]) -> Float[Tensor, " views"]:
    """Of views by what the encoder saw: the azimuths' logarithms between those that it tells apart by their Fourier series.

    All alike for a model without a view head.
    """
    if seen is None:
        return torch.zeros(len(views))
    known = torch.log_softmax(seen.azimuth_logits[0], dim=0).clamp(min=LEAST_LIKELY)
    series = torch.fft.rfft(known, norm="forward")
    waves = torch.arange(len(series), device=known.device)
    angles = torch.deg2rad(torch.tensor([view.azimuth_deg for view in views], device=known.device))
    turned = (series * torch.exp(1j * waves * angles[:, None])).real
    twice = 2.0 - (waves == 0).float() - (waves * 2 == len(known)).float()
    elevation = torch.tensor([view.elevation_deg for view in views], device=known.device)
    error = (elevation - seen.elevation_deg[0]) / ELEVATION_ERROR_DEG
    likely: Tensor = (turned * twice).sum(dim=1) - error.square() / 2
    return likely


def aligned(target: Float[Tensor, "size size"], silhouettes: Float[Tensor, "n side side"]) -> Float[Tensor, "n side side"]:
    """The target moved and scaled to the centre and the radius (`sdfsrn.images.mask_circles`) of each silhouette.

    Where a picture's object stood and how large it was is unknown; a silhouette's centre is not where its camera looks.
    """
    (x, y, radius), (own_x, own_y, own_radius) = _circles(silhouettes), _circles(target[None])
    side = silhouettes.shape[-1]
    if side < len(target):
        target = torch.nn.functional.interpolate(target[None, None], (side, side), mode="area")[0, 0]
    scale = own_radius / radius.clamp(min=0.5 / side)
    moves = target.new_zeros(len(x), 2, 3)
    moves[:, 0, 0] = moves[:, 1, 1] = scale
    # affine_grid's sides run from -1 to 1
    moves[:, 0, 2] = (2 * own_x - 1) - scale * (2 * x - 1)
    moves[:, 1, 2] = (2 * own_y - 1) - scale * (2 * y - 1)
    places = torch.nn.functional.affine_grid(moves, [len(x), 1, side, side], align_corners=False)
    return torch.nn.functional.grid_sample(target.expand(len(x), 1, -1, -1), places, align_corners=False)[:, 0]


def _circles(masks: Float[Tensor, "n side side"]) -> tuple[Tensor, Tensor, Tensor]:
    """`sdfsrn.images.mask_circles` in shares of their side."""
    x, y, radius = (torch.from_numpy(each / masks.shape[-1]).to(masks) for each in mask_circles(masks.cpu().numpy()))
    return x, y, radius


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
