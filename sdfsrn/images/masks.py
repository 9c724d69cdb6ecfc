"""Masks that come with a picture, as a file of its own or as its alpha, and what is to be said about any mask."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sdfsrn.images.files import PixelFile, decode, eight_bit, reduce, upright
from sdfsrn.images.picture import ImageError, PictureWarning

Mask = NDArray[np.bool_]

OPAQUE = 250  # alpha from which on nothing shines through that one could see
RIM = 0.02  # share of the shorter side: an outline nearer to the border than that is a frame's, no object's
CORNER = 0.125  # share of the shorter side that a rounded corner takes at most
SPECK = 0.01  # share of the largest part below which another one, far away, is a speck
FAR = 0.1  # share of the largest part's extent
SEVERAL = 0.1  # share of the largest part from which on another one may be an object of its own
_EVERYWHERE = np.ones((3, 3), dtype=np.bool_)  # pixels that touch at a corner belong together


@dataclass(frozen=True)
class Found:
    """A mask as it was found; `field` is the part it came in, `edge` how many pixels at each side were not looked at."""

    mask: Mask
    field: str = "image"
    warnings: tuple[PictureWarning, ...] = ()
    edge: int = 0


def read_mask(data: bytes, picture: PixelFile) -> Found:
    """The mask that was sent for a picture: two levels, of which the larger is the object."""
    file = decode(data, "mask")
    orientation, warnings = _mask_orientation(file, picture)
    mask = np.asarray(upright(reduce(_levels(file.image)), orientation)) > 127
    if _border_share(mask) > 0.75 and all(mask[row, column] for row in (0, -1) for column in (0, -1)):
        mask = ~mask
        warnings += (
            PictureWarning(
                "mask_inverted",
                "the mask is white along the picture's border and black in the middle; it was read the other way round, the black "
                "part as the object. Look at mask.png; send the object white on black to be sure",
            ),
        )
    return Found(mask, "mask", warnings)


def alpha_outline(alpha: NDArray[np.uint8]) -> Mask | None:
    """Where a picture is not transparent; None if that outlines nothing but corners, a rim, or holes."""
    inside: Mask = alpha > 127
    if not inside.any():
        raise ImageError(
            "image",
            f"there is nothing in the picture: it is transparent everywhere, its largest alpha is {alpha.max()} of 255; "
            "send the object with alpha 255",
        )
    if alpha.min() >= OPAQUE or inside.all():
        return None
    shorter = min(inside.shape)
    rim, corner = max(2, round(RIM * shorter)), round(CORNER * shorter)
    sides = list(_sides(inside[rim:-rim, rim:-rim]))
    ends = [side[corner:-corner] for side in sides]
    return None if np.concatenate(ends).mean() > 0.98 else inside


def without_specks(mask: Mask) -> Mask:
    """Without what is small and far from everything large: it would move the crop."""
    labels, sizes = parts(mask)
    if len(sizes) < 3:
        return mask
    rows, columns = ndimage.find_objects(labels)[sizes.argmax() - 1]
    gap = FAR * max(rows.stop - rows.start, columns.stop - columns.start)
    groups, count = ndimage.label(ndimage.distance_transform_edt(~mask) <= gap / 2)
    weights: NDArray[Any] = np.bincount(groups[mask], minlength=count + 1)
    kept: Mask = mask & (weights >= SPECK * weights.max())[groups]
    return kept


def parts(mask: Mask) -> tuple[NDArray[Any], NDArray[Any]]:
    """Each pixel's part of the mask, 0 outside, and the parts' sizes in pixels, the first of which is 0."""
    labels, count = ndimage.label(mask, _EVERYWHERE)
    sizes: NDArray[Any] = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return labels, sizes


def second_share(sizes: NDArray[Any]) -> float:
    """The size of the second largest part, as a share of the largest."""
    ordered = np.sort(sizes)
    return float(ordered[-2] / ordered[-1]) if len(sizes) > 2 else 0.0


def several_parts(mask: Mask) -> Iterator[PictureWarning]:
    """Says of a mask that was sent that its parts may be several objects."""
    share = second_share(parts(mask)[1])
    if share > SEVERAL:
        yield PictureWarning(
            "several_objects",
            f"the mask has separate parts, the second is {share:.0%} as large as the largest; they were taken as one object. "
            "If they are several objects, send one at a time",
        )


def cut_off(mask: Mask, edge: int) -> Iterator[PictureWarning]:
    """Says at which sides the object goes on beyond the picture.

    An object that only just reaches the border, as in a picture that was trimmed to it, soon becomes wider: it is whole.
    """
    inner = mask[edge : mask.shape[0] - edge, edge : mask.shape[1] - edge]
    turned = {"top": inner, "bottom": inner[::-1], "left": inner.T, "right": inner.T[::-1]}
    cut = [name for name, side in turned.items() if side[0].sum() > max(2, side[3].sum() / 2)]
    if cut:
        yield PictureWarning(
            "cut_off",
            f"the object touches the picture's border ({', '.join(cut)}), where it seems to be cut off; what lies beyond is not "
            "known. Send a picture with a margin around the whole object",
        )


def _mask_orientation(mask: PixelFile, picture: PixelFile) -> tuple[int, tuple[PictureWarning, ...]]:
    """How the mask is to be turned: as it says itself or, if only that fits, as the picture is turned."""
    if mask.turned_size == picture.turned_size:
        if picture.orientation == 1 or mask.orientation != 1 or picture.image.size != picture.turned_size:
            return mask.orientation, ()
        message = (
            "the picture's EXIF data turn it, the mask has none; the mask was taken as drawn on the picture turned upright. "
            "Look at mask.png; if it is wrong, turn the picture's pixels themselves and remove its EXIF data"
        )
        return 1, (PictureWarning("mask_orientation", message),)
    if mask.orientation == 1 and mask.image.size == picture.image.size:
        return picture.orientation, ()
    width, height = picture.turned_size
    raise ImageError(
        "mask",
        f"the mask has {mask.turned_size[0]} x {mask.turned_size[1]} pixels, the image {width} x {height}; "
        "send both at the same size",
    )


def _levels(image: Image.Image) -> Image.Image:
    """A mask's two levels as black and white; what lies between, at soft outlines, as grey."""
    pixels = _visible(image)
    flat = _two_colours(pixels)
    return flat if flat is not None else _two_levels(reduce(eight_bit(pixels)))


def _visible(image: Image.Image) -> Image.Image:
    """A mask file's alpha, if that says anything, else its colours."""
    if image.mode.startswith("I"):
        return image
    converted = eight_bit(image)
    if "A" not in converted.getbands():
        return converted
    alpha = converted.getchannel("A")
    levels = np.asarray(alpha)
    if levels.min() < OPAQUE and levels.min() != levels.max():
        return alpha
    return converted.convert("L" if converted.mode == "LA" else "RGB")


def _two_colours(image: Image.Image) -> Image.Image | None:
    """A mask that has exactly two colours, whatever they are, the brighter one as white."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if low == high:
            raise _one_level(f"the value {low}")
        return _white_where(values == high) if ((values == low) | (values == high)).all() else None
    colours = image.getcolors(2)
    if colours is None:
        return None
    if len(colours) == 1:
        raise _one_level(f"the colour {_named(np.atleast_1d(colours[0][1]))}")
    dark, bright = sorted((np.atleast_1d(colour) for _, colour in colours), key=lambda colour: (colour.sum(), tuple(colour)))
    channel = int(np.argmax(dark != bright))
    return _white_where(np.asarray(image.getchannel(channel)) == bright[channel])


def _two_levels(image: Image.Image) -> Image.Image:
    """A mask with colours between two levels: soft at its outline, or from a JPEG. Refused if it is more than that."""
    values = np.asarray(image.convert("RGB"), dtype=np.float32)
    total = values.sum(axis=2)
    is_bright = total > (total.min() + total.max()) / 2
    dark, bright = (np.median(values[side], axis=0) for side in (~is_bright, is_bright))
    axis = bright - dark
    contrast = float(axis @ axis)
    if contrast < 3 * 32**2:
        raise _many_levels(values)
    level = (values - dark) @ axis / contrast
    off = np.linalg.norm(values - dark - level[..., None] * axis, axis=2) > 0.25 * np.sqrt(contrast)
    between = np.minimum(np.abs(level), np.abs(level - 1)) > 0.25
    even = ndimage.maximum_filter(level, 5) - ndimage.minimum_filter(level, 5) < 0.05
    smaller = min(int((level >= 0.5).sum()), int((level < 0.5).sum()))
    third = (off | between) & even  # no soft outline, nor what a JPEG makes of a sharp one
    if third.sum() > 0.02 * smaller or (off | between).mean() > 0.15:
        raise _many_levels(values)
    return Image.fromarray((level * 255).clip(0, 255).astype(np.uint8))


def _many_levels(values: NDArray[Any]) -> ImageError:
    colours = np.unique(values.reshape(-1, 3), axis=0)
    few = ", ".join(map(_named, colours)) if len(colours) <= 6 else f"from {_named(colours[0])} to {_named(colours[-1])}"
    return ImageError(
        "mask",
        f"the mask is not black and white: it has {len(colours)} values, {few}; two are expected, 0 for the background and 255 for "
        "the object. Of a map of labels, send the part of one object",
    )


def _one_level(seen: str) -> ImageError:
    return ImageError(
        "mask", f"the mask outlines nothing: it has {seen} everywhere; expected are 0 for the background and 255 for the object"
    )


def _named(colour: NDArray[Any]) -> str:
    values = [int(value) for value in colour]
    return str(values[0]) if len(set(values)) == 1 else f"({', '.join(map(str, values))})"


def _white_where(mask: Mask) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255)


def _sides(mask: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    return mask[0], mask[-1], mask[:, 0], mask[:, -1]


def _border_share(mask: Mask) -> float:
    return float(np.concatenate(_sides(mask)).mean())
