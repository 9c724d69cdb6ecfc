"""One function makes what the encoder sees: the same object is the same picture wherever and however large it stands."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from sdfsrn.config import SyntheticData
from sdfsrn.data.dataset import synthetic_dataset
from sdfsrn.data.synthetic import make_scenes, make_views
from sdfsrn.images import TILE, TILE_RADIUS, Picture, mask_circle, mask_crop, tile_of
from sdfsrn.networks.encoder import encoder_images
from sdfsrn.reconstruct import Reconstructor, aligned
from tests.sdfsrn.conftest import TinyTraining

DATA = SyntheticData(n_shapes=6, seed=21)


def _tiles(pictures: list[Picture]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(tile_of(picture).copy()).permute(2, 0, 1) for picture in pictures])


def _photographs(size: int, left: float = 0.0, top: float = 0.0) -> list[Picture]:
    scenes = make_scenes(DATA)
    window = torch.tensor([[left, top, 1 + left, 1 + top]])
    return scenes.photographs(window.expand(len(scenes), -1), size)


def test_a_shift_by_whole_pixels_changes_nothing() -> None:
    """Of 256 pixels: by one, by two, and far off centre."""
    still = _tiles(_photographs(256))
    for pixels in ((1, 0), (0, 2), (-1, 1), (40, -25)):
        moved = _tiles(_photographs(256, -pixels[0] / 256, -pixels[1] / 256))
        assert float((moved.float() - still.float()).abs().mean()) < 0.05, pixels


def test_a_picture_of_another_size_is_nearly_the_same() -> None:
    images = [encoder_images(_tiles(_photographs(size))) for size in (256, 640)]
    assert float((images[0] - images[1]).abs().mean()) < 0.01


def test_training_sees_what_use_sees() -> None:
    """Its tiles come from photographs of several sizes: the same object, of the same place and size in the tile."""
    _, views = make_views(DATA)
    used = encoder_images(_tiles(_photographs(256)))
    assert float((encoder_images(views.tiles) - used).abs().mean()) < 0.02
    for tile in views.tiles.numpy():
        x, y, radius = mask_circle(tile.any(axis=0))
        assert abs(x - TILE / 2) < 1.5 and abs(y - TILE / 2) < 1.5 and radius == pytest.approx(TILE_RADIUS * TILE, rel=0.05)


def test_without_jitter_a_pixel_is_the_mean_of_four() -> None:
    tiles = torch.randint(256, (2, 3, TILE, TILE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = tiles.float().unflatten(3, (64, 2)).unflatten(2, (64, 2)).mean(dim=(3, 5)) / 255
    torch.testing.assert_close(encoder_images(tiles), expected)
    torch.testing.assert_close(encoder_images(tiles, 1e-7, torch.Generator()), expected, atol=1e-4, rtol=0)


def test_jitter_moves_and_scales_within_its_bounds() -> None:
    axis = torch.arange(TILE, dtype=torch.float32)
    disc = (torch.hypot(axis[:, None] - 63.5, axis - 63.5) < 30).to(torch.uint8) * 255
    images = encoder_images(disc.expand(200, 3, -1, -1), 0.05, torch.Generator().manual_seed(1))
    circles = np.array([mask_circle(image[0].numpy() > 0.5) for image in images])
    away, radius = np.abs(circles[:, :2] - 32), circles[:, 2]
    assert 2.8 < away.max() < 0.05 * 64 * 1.1 + 0.3 and away.mean() > 1
    assert 15 * np.exp(-0.1) - 0.3 < radius.min() < 14 and 16 < radius.max() < 15 * np.exp(0.1) + 0.3


def test_size_and_distance_cannot_be_told_apart() -> None:
    """The same pictures, from twice as far of objects of twice the size: the same worlds."""
    _, views = make_views(DATA)
    far = dataclasses.replace(views, c2w=views.scaled(torch.full((6,), 2.0)).c2w)
    near, away = (each.scaled(each.scales(0.2)).c2w for each in (views, far))
    torch.testing.assert_close(near, away)


def test_in_its_world_a_mask_has_the_wanted_radius() -> None:
    """Rendered in closed form at the data set's distance: on average to one part in a hundred."""
    from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
    from sdfsrn.geometry.primitives import intersect

    data = synthetic_dataset(dataclasses.replace(DATA, n_shapes=60), 0.2)
    assert data.shapes is not None
    c2w = orbit_c2w(data.views.azimuth_deg, data.views.elevation_deg, data.views.camera_distance)
    masks = intersect(data.shapes, *pixel_rays(c2w, data.views.fovy_deg, 256))[0].view(-1, 256, 256).numpy()
    radii = np.array([mask_circle(mask)[2] / 256 for mask in masks]) / 0.2
    assert np.abs(radii - 1).max() < 0.06 and np.abs(radii - 1).mean() < 0.01


def test_a_target_is_moved_to_a_silhouettes_circle() -> None:
    canvas = Image.new("L", (256, 256))
    ImageDraw.Draw(canvas).ellipse((30, 60, 110, 140), fill=255)
    ImageDraw.Draw(canvas).rectangle((70, 100, 140, 140), fill=255)
    mask = np.asarray(canvas) > 127
    target = torch.from_numpy(mask_crop(mask, 0.2, 64))
    small = torch.from_numpy(mask_crop(np.roll(mask, (9, -14), (0, 1)), 0.15, 64))
    place = torch.zeros(1, 64, 64)
    place[0, 5:, 3:] = small[:-5, :-3]  # smaller, and elsewhere
    found = aligned(target, place)[0]
    both, either = torch.minimum(found, place[0]).sum(), torch.maximum(found, place[0]).sum()
    assert both / either > 0.95


def test_the_same_object_has_the_same_latent(tiny_training: TinyTraining) -> None:
    served = Reconstructor.load(tiny_training.checkpoint, "cpu")
    still, moved, larger = (
        torch.cat([served.look(picture).latent for picture in pictures])
        for pictures in (_photographs(256), _photographs(256, 10 / 256, -7 / 256), _photographs(512))
    )
    apart = float(torch.cdist(still, still).sum() / 30)
    assert float((still - moved).norm(dim=1).mean()) < 0.01 * apart
    assert float((still - larger).norm(dim=1).mean()) < 0.1 * apart
