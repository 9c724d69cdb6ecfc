"""`make pictures`: what the default model makes of three shapes that it never saw, beside the truth, as a picture for the README.

Each shape is drawn off centre and at a size of its own, and goes through the library's public entry as a user's picture does.
The truth is scaled by the rule that scales the prediction: the mask's radius in the picture is that of the training's masks.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sdfsrn import ReconstructionConfig, Reconstructor, SyntheticData, View, read_picture
from sdfsrn.config import WEIGHTS
from sdfsrn.data.synthetic import CAMERA_DISTANCE, FOVY_DEG, make_shapes
from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.geometry.primitives import Primitives, intersect
from sdfsrn.images import Picture, mask_circle

TARGET = Path(__file__).with_name("unseen_angles.png")
SHAPES = SyntheticData(n_shapes=3, seed=3_000_000)  # of a seed that no training uses: a sphere, a box and an ellipsoid
ALBEDO = torch.tensor([[0.35, 0.6, 0.85], [0.9, 0.5, 0.25], [0.45, 0.75, 0.4]])
INPUT_VIEW = View(35.0, 25.0)
ELEVATIONS_DEG = (-10.0, 10.0, 25.0, 40.0, 0.0, 20.0)
UNSEEN = tuple(View((INPUT_VIEW.azimuth_deg + 30 + 60 * i) % 360, elevation) for i, elevation in enumerate(ELEVATIONS_DEG))
LIGHT = torch.nn.functional.normalize(torch.tensor([0.4, 0.6, 0.8]), dim=0)  # in the camera's frame
AMBIENT = 0.3
SIDE = 256  # pixels of what is rendered
CELL, GAP, NAMES, TOP, LINE = 108, 4, 84, 22, 14  # pixels of the page
INK, PAPER, GROUND = (30, 30, 30), (255, 255, 255), 235


def main() -> None:
    """Draw them all."""
    reconstructor = Reconstructor.load(WEIGHTS / "default.safetensors")
    shapes = make_shapes(SHAPES)
    rows = [row_of(reconstructor, shapes[i : i + 1], ALBEDO[i : i + 1]) for i in range(len(shapes))]
    sheet(rows).quantize(128, dither=Image.Dither.NONE).save(TARGET, optimize=True)
    print(f"{TARGET}, {TARGET.stat().st_size // 1000} kB")


@dataclass(frozen=True)
class Row:
    """One shape: what was sent, the truth and what came out at UNSEEN, and the IoU of the silhouettes there."""

    picture: Image.Image
    truth: list[Image.Image]
    prediction: list[Image.Image]
    agreement: list[float]


def row_of(reconstructor: Reconstructor, shape: Primitives, albedo: Tensor) -> Row:
    """Draw a shape, reconstruct it and compare."""
    picture = drawn(shape, albedo)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = ReconstructionConfig(views=UNSEEN, size=SIDE, outputs=("silhouettes", "normals"))
        reconstructor.run(read_picture(picture.to_png()), config, folder)
        silhouettes = [np.asarray(Image.open(folder / f"silhouette_{i:03d}.png")) for i in range(len(UNSEEN))]
        normals = [np.asarray(Image.open(folder / f"normals_{i:03d}.png")) for i in range(len(UNSEEN))]
    scaled = Primitives(shape.half_extents * scale(reconstructor.checkpoint.mask_radius, shape), shape.kind)
    truth, masks = rendered(scaled, UNSEEN, albedo)
    found = [shaded(*pair, pose, albedo) for *pair, pose in zip(normals, silhouettes, poses(UNSEEN), strict=True)]
    agreement = [float(((s > 127) & m).sum() / ((s > 127) | m).sum()) for s, m in zip(silhouettes, masks, strict=True)]
    return Row(on_ground(picture.rgb, picture.mask), truth, found, agreement)


def drawn(shape: Primitives, albedo: Tensor) -> Picture:
    """The shape from INPUT_VIEW, smaller than in training and off centre."""
    pictures, masks = rendered(shape, (INPUT_VIEW,), albedo)
    cutout = Image.fromarray(np.dstack([np.asarray(pictures[0]), masks[0].astype(np.uint8) * 255]))
    canvas = Image.new("RGBA", (SIDE, SIDE))
    canvas.paste(cutout.resize((SIDE * 4 // 5,) * 2, Image.Resampling.LANCZOS), (SIDE // 6, SIDE // 12))
    whole = np.asarray(canvas)
    return Picture(whole[..., :3], whole[..., 3] > 127)


def scale(mask_radius: float, shape: Primitives) -> float:
    """What the shape is to be multiplied by so that its mask at INPUT_VIEW has the radius `mask_radius`."""
    factor = 1.0
    for _ in range(4):  # perspective makes it a little more than proportional
        _, masks = rendered(Primitives(shape.half_extents * factor, shape.kind), (INPUT_VIEW,), ALBEDO[:1])
        factor *= mask_radius * SIDE / mask_circle(masks[0])[2]
    return factor


def poses(views: tuple[View, ...]) -> Tensor:
    """Camera to world, (n, 4, 4)."""
    angles = torch.tensor([[view.azimuth_deg, view.elevation_deg] for view in views])
    return orbit_c2w(angles[:, 0], angles[:, 1], CAMERA_DISTANCE)


def rendered(shape: Primitives, views: tuple[View, ...], albedo: Tensor) -> tuple[list[Image.Image], list[np.ndarray]]:
    """The true shape: pictures on GROUND, and masks."""
    rays_o, rays_d = pixel_rays(poses(views), FOVY_DEG, SIDE)
    several = Primitives(shape.half_extents.expand(len(views), 3), shape.kind.expand(len(views)))
    hit, _, normal = intersect(several, rays_o, rays_d)
    masks = [mask.view(SIDE, SIDE).numpy() for mask in hit]
    normals = [each.view(SIDE, SIDE, 3).numpy() for each in normal]
    pictures = [on_ground(lit(n, pose, albedo), m) for n, pose, m in zip(normals, poses(views), masks, strict=True)]
    return pictures, masks


def shaded(normals: np.ndarray, silhouette: np.ndarray, pose: Tensor, albedo: Tensor) -> Image.Image:
    """The predicted surface in the light of the true one."""
    has_surface = (silhouette > 127) & normals.any(axis=-1)
    return on_ground(lit(normals / 127.5 - 1, pose, albedo), has_surface)


def lit(normals: np.ndarray, pose: Tensor, albedo: Tensor) -> np.ndarray:
    """Lambertian colours, uint8, of unit normals in the object's frame."""
    lambert = (normals @ (pose[:3, :3] @ LIGHT).numpy()).clip(0)
    colours: np.ndarray = albedo[0].numpy() * (AMBIENT + (1 - AMBIENT) * lambert[..., None]) * 255
    return colours.round().clip(0, 255).astype(np.uint8)


def on_ground(rgb: np.ndarray, mask: np.ndarray) -> Image.Image:
    """The object before a plain grey."""
    return Image.fromarray(np.where(mask[..., None], rgb, np.uint8(GROUND)))


def sheet(rows: list[Row]) -> Image.Image:
    """All on one page."""
    left, step, height = CELL + NAMES, CELL + GAP, 2 * (CELL + GAP) + LINE + GAP
    page = Image.new("RGB", (left + len(UNSEEN) * step, TOP + len(rows) * height), PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    pen.text((CELL // 2, TOP - 6), "input", INK, font, "ms")
    pen.text((left + len(UNSEEN) * step // 2, TOP - 6), "six angles that the input does not show", INK, font, "ms")
    for i, row in enumerate(rows):
        y = TOP + i * height
        page.paste(_small(row.picture), (0, y + step // 2))
        for j, (name, pictures) in enumerate((("truth", row.truth), ("prediction", row.prediction))):
            pen.text((left - 8, y + j * step + CELL // 2), name, INK, font, "rm")
            for k, each in enumerate(pictures):
                page.paste(_small(each), (left + k * step, y + j * step))
        for k, agreement in enumerate(row.agreement):
            pen.text((left + k * step + CELL // 2, y + 2 * step), f"IoU {agreement:.3f}", INK, font, "mt")
    return page


def _small(picture: Image.Image) -> Image.Image:
    return picture.resize((CELL, CELL), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
