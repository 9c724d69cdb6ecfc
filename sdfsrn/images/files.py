"""From the bytes of a file to pixels: what may be sent, how it is decoded, reduced and turned upright."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from sdfsrn.images.picture import ImageError

MAX_BYTES = 20_000_000
MAX_PIXELS = 40_000_000
MIN_SIDE = 16
STORED_SIDE = 1024  # longer pictures are reduced: encoder and refinement look at 64 x 64

# Files are recognised by content, from these formats alone: Pillow's other decoders are attack surface nobody asked for.
FORMATS = ("PNG", "JPEG", "WEBP")
# The size is checked here, from the header, with a message of our own; Pillow's warning would come too late.
Image.MAX_IMAGE_PIXELS = None

_PLAIN_MODES = ("L", "LA", "RGB", "RGBA")
# EXIF orientation -> what turns the picture upright
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class PixelFile:
    """A decoded file: its pixels as they are stored, the first frame only, and its EXIF orientation, 1 to 8."""

    image: Image.Image
    orientation: int

    @property
    def turned_size(self) -> tuple[int, int]:
        """Width and height of the upright picture."""
        width, height = self.image.size
        return (height, width) if self.orientation >= 5 else (width, height)


def decode(data: bytes, field: str) -> PixelFile:
    """Raises ImageError, which names `field`, for what is no picture, or too large a one."""
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
    except MemoryError:
        raise  # no fault of the file's
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        raise ImageError(field, f"the file is damaged or cut off: {error}") from error
    return PixelFile(opened, _orientation(opened))


def count_pixels(data: bytes) -> int:
    """How many a picture's header claims; 0 if it is none."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            return opened.width * opened.height
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return 0


def eight_bit(image: Image.Image) -> Image.Image:
    """Grey or RGB with 8 bits a channel, with alpha if the file has any transparency: palettes, 1, 16 bits and CMYK become that."""
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):
        return _from_sixteen_bit(image, transparent)
    if image.mode == "RGB" and isinstance(transparent, tuple) and max(transparent) > 255:
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in transparent)  # of 16 bits, which Pillow made 8 of
    if image.mode in ("1", "L"):
        return image.convert("L" if transparent is None else "LA")
    if image.mode in ("P", "RGB"):
        return image.convert("RGB" if transparent is None else "RGBA")
    if image.mode in _PLAIN_MODES:
        return image
    return image.convert("RGBA" if "A" in image.getbands() else "RGB")


def reduce(image: Image.Image) -> Image.Image:
    """At most STORED_SIDE pixels a side, each the mean of those it came from."""
    if max(image.size) <= STORED_SIDE:
        return image
    smaller = image.copy()
    smaller.thumbnail((STORED_SIDE, STORED_SIDE), Image.Resampling.BOX)
    return smaller


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as its EXIF orientation says it is to be seen."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _from_sixteen_bit(image: Image.Image, transparent: object) -> Image.Image:
    """Scaled; Pillow itself would cut everything above 255 off."""
    values = np.asarray(image)
    grey = Image.fromarray((values.astype(np.float32) / 257).round().clip(0, 255).astype(np.uint8))
    if not isinstance(transparent, int):
        return grey
    return Image.merge("LA", [grey, Image.fromarray((values != transparent).astype(np.uint8) * 255)])


def _orientation(image: Image.Image) -> int:
    try:
        said = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # EXIF that cannot be read says nothing; the pixels are good all the same
        return 1
    return said if said in _UPRIGHT else 1
