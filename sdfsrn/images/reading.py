"""From the bytes a user sent to a picture and the object's mask."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sdfsrn.config import Background
from sdfsrn.images.background import find_object
from sdfsrn.images.files import MIN_SIDE, decode, eight_bit, reduce, upright
from sdfsrn.images.masks import Found, Mask, alpha_outline, cut_off, read_mask, several_parts, without_specks
from sdfsrn.images.picture import ImageError, Picture

MIN_MASK_PIXELS = 32


def read_picture(image: bytes, mask: bytes | None = None, *, background: Background = "auto") -> Picture:
    """Decode a PNG, JPEG or WebP and find the object in it.

    The mask is, in this order: `mask`; the image's alpha, if it outlines anything; what `background` says: `plain` is what stands
    out from a background of one colour, `segment` what OpenCV's GrabCut finds, `auto` the first if the picture's border has one
    colour, else the second. EXIF orientation is applied. Raises ImageError that says what is wrong and what to send.
    """
    file = decode(image, "image")
    pixels = upright(reduce(eight_bit(file.image)), file.orientation)
    width, height = file.turned_size
    _check_size(pixels.size, (width, height))
    rgb = np.asarray(pixels.convert("RGB"))
    alpha = np.asarray(pixels.getchannel("A")) if "A" in pixels.getbands() else None
    found = _found(rgb, alpha, read_mask(mask, file) if mask is not None else None, background)
    kept = without_specks(found.mask)
    _check_mask(kept, found.field, (width, height))
    return Picture(rgb, kept, (width / pixels.width, height / pixels.height), (*found.warnings, *cut_off(kept, found.edge)))


def _found(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8] | None, sent: Found | None, background: Background) -> Found:
    outline = alpha_outline(alpha) if sent is None and alpha is not None else None
    found = sent or (Found(outline) if outline is not None else None)
    if found is not None:
        return Found(found.mask, found.field, (*found.warnings, *several_parts(found.mask)))
    return find_object(rgb if alpha is None else _opaque(rgb, alpha > 127), background)


def _opaque(rgb: NDArray[np.uint8], visible: Mask) -> NDArray[np.uint8]:
    """Transparent pixels, whose colour nobody saw, in the colour of the nearest one that is not."""
    if visible.all():
        return rgb
    row, column = ndimage.distance_transform_edt(~visible, return_distances=False, return_indices=True)
    filled: NDArray[np.uint8] = rgb[row, column]
    return filled


def _check_size(size: tuple[int, int], sent: tuple[int, int]) -> None:
    if min(size) < MIN_SIDE:
        raise ImageError(
            "image",
            f"the picture has {sent[0]} x {sent[1]} pixels and is reduced to {size[0]} x {size[1]}, at least {MIN_SIDE} per side "
            "are needed; cut off what lies beside the object",
        )


def _check_mask(mask: Mask, field: str, sent: tuple[int, int]) -> None:
    """Every limit on what was found, at the size at which the picture is kept."""
    height, width = mask.shape
    reduced = "" if max(sent) == max(width, height) else f" after the picture was reduced to {width} x {height}"
    count = int(mask.sum())
    if count == 0:
        raise ImageError(field, "there is nothing in the picture that stands out from its background")
    if count < MIN_MASK_PIXELS:
        raise ImageError(
            field,
            f"the object is too small: {count} pixels belong to it{reduced}, at least {MIN_MASK_PIXELS} are needed; "
            "cut off what lies beside the object",
        )
    if mask.all():
        raise ImageError(field, "the object fills the whole picture, so it has no outline; leave a margin around it")
