"""From the bytes a user sent to a picture and the object's mask. Free of torch: the API checks images before it accepts a job."""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

MAX_BYTES = 20_000_000
MAX_PIXELS = 40_000_000
MIN_SIDE = 16
MIN_MASK_PIXELS = 32
STORED_SIDE = 1024  # longer pictures are reduced: encoder and refinement look at 64 x 64
TILE = 128  # pixels per side of what the encoder's pictures are made from, twice theirs
TILE_RADIUS = 0.28  # of the mask in a tile, as a share of its side: the longest and thinnest mask still fits

# Files are recognised by content, from these formats alone: Pillow's other decoders are attack surface nobody asked for.
FORMATS = ("PNG", "JPEG", "WEBP")
# The size is checked here, from the header, with a message of our own; Pillow's warning would come too late.
Image.MAX_IMAGE_PIXELS = None


class ImageError(ValueError):
    """A picture that cannot be used; `field` says which part it came in, `too_large` whether its size in bytes is why."""

    def __init__(self, field: str, reason: str, *, too_large: bool = False) -> None:
        super().__init__(reason)
        self.field = field
        self.too_large = too_large

    def __reduce__(self) -> tuple[Any, ...]:
        # it comes out of the process that decodes
        return _image_error, (self.field, str(self), self.too_large)


def _image_error(field: str, reason: str, too_large: bool) -> ImageError:
    return ImageError(field, reason, too_large=too_large)


@dataclass(frozen=True)
class Picture:
    """`rgb` uint8 (height, width, 3) and `mask` bool (height, width), true on the object.

    `reduced` says how many pixels of the file became one when it was read, across and down.
    """

    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    reduced: tuple[float, float] = (1.0, 1.0)

    def to_png(self) -> bytes:
        """One RGBA file whose alpha is the mask; it carries no metadata."""
        rgba = np.dstack([self.rgb, self.mask.astype(np.uint8) * 255])
        buffer = io.BytesIO()
        Image.fromarray(rgba).save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()


def read_picture(image: bytes, mask: bytes | None = None) -> Picture:
    """Decode a PNG, JPEG or WebP and find the object in it.

    The mask is, in this order: `mask`; the image's alpha, unless opaque; what stands out from a plain background.
    EXIF orientation is applied. Raises ImageError that says what is wrong and what to send.
    """
    decoded, reduced = _decode(image, "image")
    colour = decoded.convert("RGBA") if _has_alpha(decoded) else decoded.convert("RGB")
    rgb = np.asarray(colour.convert("RGB"))
    if mask is not None:
        found, field = _read_mask(mask, decoded.size), "mask"
    elif colour.mode == "RGBA" and np.asarray(colour.getchannel("A")).min() < 255:
        found, field = np.asarray(colour.getchannel("A")) > 127, "image"
    else:
        found, field = _plain_background_mask(rgb), "image"
    n_inside = int(found.sum())
    if n_inside < MIN_MASK_PIXELS:
        raise ImageError(
            field,
            f"there is nothing in the picture: {n_inside} pixels belong to an object, at least {MIN_MASK_PIXELS} are needed",
        )
    if found.all():
        raise ImageError(field, "the object fills the whole picture, so it has no outline; leave a margin around it")
    return Picture(rgb, found, reduced)


def count_pixels(data: bytes) -> int:
    """How many a picture's header claims; 0 if it is none."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            return opened.width * opened.height
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return 0


def _decode(data: bytes, field: str) -> tuple[Image.Image, tuple[float, float]]:
    """The picture upright, and how many pixels of the file are one of it, across and down."""
    if not data:
        raise ImageError(field, "the file is empty; send a PNG, JPEG or WebP")
    if len(data) > MAX_BYTES:
        raise ImageError(field, f"the file has {len(data)} bytes, at most {MAX_BYTES} are accepted", too_large=True)
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ImageError(field, "the file is not a readable PNG, JPEG or WebP") from error
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise ImageError(field, f"the picture has {width} x {height} pixels, at most {MAX_PIXELS} are accepted")
    if min(width, height) < MIN_SIDE:
        raise ImageError(field, f"the picture has {width} x {height} pixels, at least {MIN_SIDE} per side are needed")
    try:
        opened.load()
        eight_bit = _to_eight_bit(opened)
        if max(opened.size) > STORED_SIDE:  # before anything copies the picture
            eight_bit.thumbnail((STORED_SIDE, STORED_SIDE), Image.Resampling.BOX)
        across, down = width / eight_bit.width, height / eight_bit.height
        is_turned = eight_bit.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)  # by a quarter
        return ImageOps.exif_transpose(eight_bit), (down, across) if is_turned else (across, down)
    except MemoryError:
        raise  # no fault of the file's
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        raise ImageError(field, f"the file is damaged or cut off: {error}") from error


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """A picture with 16 bits of grey, scaled; Pillow itself would cut everything above 255 off."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image, dtype=np.float32) / 257).round().clip(0, 255).astype(np.uint8))


def _has_alpha(image: Image.Image) -> bool:
    return "A" in image.getbands() or "transparency" in image.info


def _read_mask(data: bytes, size: tuple[int, int]) -> NDArray[np.bool_]:
    decoded, _ = _decode(data, "mask")
    if decoded.size != size:
        raise ImageError(
            "mask",
            f"the mask has {decoded.size[0]} x {decoded.size[1]} pixels, the image "
            f"{size[0]} x {size[1]}; send both at the same size",
        )
    if _has_alpha(decoded):
        alpha = np.asarray(decoded.convert("RGBA").getchannel("A"))
        if alpha.min() < 255:
            return np.asarray(alpha > 127)
    return np.asarray(decoded.convert("L")) > 127


def _plain_background_mask(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Everything that differs from the colour of the picture's border, if the border has one colour."""
    border = np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]]).astype(np.float32)
    background = np.median(border, axis=0)
    spread = float(np.quantile(np.abs(border - background).max(axis=1), 0.95))
    if spread > 24:
        raise ImageError(
            "image",
            "the image has no alpha and no plain background; send a transparent PNG, a `mask`, "
            "or a picture of the object before a background of one colour",
        )
    distance = np.abs(rgb.astype(np.float32) - background).max(axis=2)
    differs = ndimage.binary_opening(distance > max(12.0, 2 * spread))
    labels, count = ndimage.label(differs)
    if count == 0:
        return np.zeros(differs.shape, dtype=np.bool_)
    sizes: NDArray[Any] = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(labels == sizes.argmax()), dtype=np.bool_)


def mask_circle(mask: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Centre x and y and the radius of a mask, pixels; the radius is sqrt(2) x RMS distance from the centre, a disc's own."""
    y, x = np.nonzero(mask)
    radius = float(np.sqrt(2 * (x.var() + y.var())))
    return float(x.mean()) + 0.5, float(y.mean()) + 0.5, max(radius, 1.0)


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
    """The crop, (TILE, TILE, 3), that the encoder's picture is made from, in training as in use; its mask has this radius."""
    return crop_to_radius(picture, radius, TILE).rgb


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
