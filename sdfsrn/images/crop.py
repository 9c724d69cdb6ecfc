"""The squares of a picture that are looked at: what the encoder sees, and the mask as the model's cameras would see it."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdfsrn.images.picture import Picture

TILE = 128  # pixels per side of what the encoder's pictures are made from, twice theirs
TILE_RADIUS = 0.28  # of the mask in a tile, as a share of its side: the longest and thinnest mask still fits


def mask_circles(masks: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centre x and y and the radius of each of many masks (n, height, width), in pixels; masks may be soft, in [0, 1].

    The radius is sqrt(2) x RMS distance of the object's pixels from their centre: a disc's own. Of an empty mask all are 0.
    """
    rows, columns = masks.sum(axis=2, dtype=np.float64), masks.sum(axis=1, dtype=np.float64)
    (x, spread_x), (y, spread_y) = _centre_and_spread(columns), _centre_and_spread(rows)
    return x, y, np.sqrt(2 * (spread_x + spread_y))


def _centre_and_spread(mass: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    place = np.arange(mass.shape[1]) + 0.5
    total = np.maximum(mass.sum(axis=1), 1e-6)
    centre = mass @ place / total
    return centre, (mass * np.square(place - centre[:, None])).sum(axis=1) / total


def mask_circle(mask: NDArray[np.bool_]) -> tuple[float, float, float]:
    """`mask_circles` of one mask that is not empty; its radius is a pixel at least."""
    (x,), (y,), (radius,) = mask_circles(mask[None])
    return float(x), float(y), max(float(radius), 1.0)


def crop_box(mask: NDArray[np.bool_], mask_radius: float) -> tuple[float, float, float, float]:
    """Left, top, right and bottom, in pixels of the picture, of the square that `crop_to_radius` cuts out; it may reach beyond."""
    x, y, radius = mask_circle(mask)
    half = radius / mask_radius / 2
    return x - half, y - half, x + half, y + half


def crop_shares(picture: Picture, mask_radius: float) -> tuple[float, float, float, float]:
    """`crop_box` in shares of the picture's width and height, which hold for a larger file too that it was read from."""
    left, top, right, bottom = crop_box(picture.mask, mask_radius)
    height, width = picture.mask.shape
    return left / width, top / height, right / width, bottom / height


def tile_of(picture: Picture, radius: float = TILE_RADIUS) -> NDArray[np.uint8]:
    """The crop, (TILE, TILE, 3), that the encoder's picture is made from, in training as in use; its mask has this radius.

    Black if the mask is empty.
    """
    return crop_to_radius(picture, radius, TILE).rgb if picture.mask.any() else np.zeros((TILE, TILE, 3), dtype=np.uint8)


def crop_to_radius(picture: Picture, mask_radius: float, size: int) -> Picture:
    """The object on black, centred and scaled so that its mask's radius is `mask_radius` of the side of a `size` x `size` crop."""
    box = crop_box(picture.mask, mask_radius)
    rgb = _cut(Image.fromarray(picture.rgb * picture.mask[..., None]), box, size)
    mask = _cut(Image.fromarray(picture.mask.astype(np.uint8) * 255), box, size)
    return Picture(np.asarray(rgb), np.asarray(mask) > 127)


def mask_crop(mask: NDArray[np.bool_], radius: float, size: int) -> NDArray[np.float32]:
    """The mask of such a crop, not rounded: the share of each pixel that is object."""
    whole = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(_cut(whole, crop_box(mask, radius), size), dtype=np.float32) / np.float32(255)


def _cut(image: Image.Image, box: tuple[float, float, float, float], size: int) -> Image.Image:
    """A square, black beyond the image, averaged to `size` x `size` cells.

    Cells that lie outside on all four sides are left out at first: the square may be thousands of times larger than the image.
    """
    left, top, right, bottom = box
    cell = (right - left) / size
    rim = max(0, math.floor(min(-left, -top, right - image.width, bottom - image.height) / cell))
    inner = left + rim * cell, top + rim * cell, right - rim * cell, bottom - rim * cell
    x, y = math.floor(inner[0]), math.floor(inner[1])
    part = image.crop((x, y, math.ceil(inner[2]), math.ceil(inner[3])))  # black where it reaches beyond
    inside = (size - 2 * rim, size - 2 * rim)
    small = part.resize(inside, Image.Resampling.BOX, box=(inner[0] - x, inner[1] - y, inner[2] - x, inner[3] - y))
    whole = Image.new(image.mode, (size, size))
    whole.paste(small, (rim, rim))
    return whole
