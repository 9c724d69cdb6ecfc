"""The object of a picture without a mask: what stands out from a background of one colour, or else by segmentation."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sdfsrn.config import Background
from sdfsrn.images.masks import SEVERAL, Found, Mask, parts, second_share
from sdfsrn.images.picture import ImageError, PictureWarning
from sdfsrn.images.segmentation import segment

NEAR = 12.0  # levels, of 255, within which colours of a background count as one
PLAIN = 24.0  # levels within which 95 % of a plain border lie
FRAME = 0.03  # share of the shorter side that a frame takes at most
HOLE = 0.01  # share of the object below which a hole in it is none
WHAT_TO_SEND = "send a transparent PNG, a `mask`, or a picture of the object before a background of one colour"

Rgb = NDArray[np.uint8]


class _Plain(NamedTuple):
    colour: NDArray[np.float32]
    spread: float


def find_object(rgb: Rgb, background: Background) -> Found:
    """The largest thing before the background of a picture; raises ImageError where `background` does not let it be found."""
    if background == "none":
        raise ImageError(
            "image", "the picture has no alpha that outlines an object, and with background=none none is looked for; send a `mask`"
        )
    edge = _frame_width(rgb)
    if background != "segment":
        found = _before_plain(rgb, edge)
        if edge and found is not None and not found.mask.any():
            found = _before_plain(rgb, 0)  # no frame: a margin around an object that fills all the rest
        if found is not None:
            return found
    if background == "plain":
        raise ImageError("image", f"the picture has no alpha and no plain background; {WHAT_TO_SEND}, or background=segment")
    return _segmented(rgb, edge)


def _before_plain(rgb: Rgb, edge: int) -> Found | None:
    """None if the border has more than one colour."""
    inner = _within(rgb, edge)
    plain = _plain_border(inner)
    if plain is None:
        return None
    distance = np.abs(inner.astype(np.float32) - plain.colour).max(axis=2)
    labels, sizes = parts(ndimage.binary_opening(distance > max(NEAR, 2 * plain.spread)))
    if len(sizes) == 1:
        return Found(np.zeros(rgb.shape[:2], dtype=np.bool_))
    mask, warnings = _without_false_holes(labels == sizes.argmax(), distance <= max(3.0, plain.spread))
    return _largest(_padded(mask, edge), second_share(sizes), edge, warnings)


def _segmented(rgb: Rgb, edge: int) -> Found:
    found = segment(_within(rgb, edge))
    if found is None:
        raise ImageError(
            "image", f"the picture has no alpha and no plain background, and no object stands out from it clearly; {WHAT_TO_SEND}"
        )
    warning = PictureWarning(
        "segmented",
        "the picture has neither a mask nor a plain background; the object's outline was found by segmentation and may be wrong. "
        "Look at mask.png; if it is wrong, send a `mask`",
    )
    return _largest(_padded(found.mask, edge), found.second_share, edge + found.edge, (warning,))


def _largest(mask: Mask, second: float, edge: int, warnings: tuple[PictureWarning, ...]) -> Found:
    if second > SEVERAL:
        warnings += (
            PictureWarning(
                "several_objects",
                f"the picture shows another object, {second:.0%} as large as the largest, which alone was used. Look at mask.png; "
                "send a picture of one object, or a `mask` of all that belongs to it",
            ),
        )
    return Found(mask, "image", warnings, edge)


def _frame_width(rgb: Rgb) -> int:
    """Pixels at each side that belong to a thin frame of one colour, or to several within one another; 0 if there is none."""
    shorter = min(rgb.shape[:2])
    limit, width = max(4, round(FRAME * shorter)), 0
    while line := _line_width(_within(rgb, width), limit - width):
        width += line
    return width


def _line_width(rgb: Rgb, limit: int) -> int:
    plain = _plain_border(rgb)
    if plain is None or plain.spread > PLAIN:
        return 0
    for depth in range(1, limit + 1):
        inner = _within(rgb, depth).astype(np.float32)
        sides = (inner[0], inner[-1], inner[:, 0], inner[:, -1])
        if all((np.abs(side - plain.colour).max(axis=1) > PLAIN).mean() > 0.9 for side in sides):
            return depth + 1  # one more, which may be a blend of both colours
    return 0


def _plain_border(rgb: Rgb) -> _Plain | None:
    """The colour of the border and how far it varies, if it has one; an object may hide some of it."""
    border = np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]]).astype(np.float32)
    colour: NDArray[np.float32] = np.median(border, axis=0)
    distance = np.abs(border - colour).max(axis=1)
    spread = float(np.quantile(distance, 0.95))
    if spread <= PLAIN:
        return _Plain(colour, spread)
    near = distance <= NEAR
    corners = np.abs(rgb[[0, 0, -1, -1], [0, -1, 0, -1]] - colour).max(axis=1) <= NEAR
    if near.mean() < 0.7 or corners.sum() < 3:
        return None
    return _Plain(colour, float(np.quantile(distance[near], 0.95)))


def _without_false_holes(mask: Mask, is_background: Mask) -> tuple[Mask, tuple[PictureWarning, ...]]:
    """Holes filled, but for large ones that show the very background."""
    holes, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    if count == 0:
        return mask, ()
    sizes = np.bincount(holes.ravel(), minlength=count + 1)
    background = np.bincount(holes.ravel(), weights=is_background.ravel(), minlength=count + 1) / sizes
    is_open = (sizes > HOLE * mask.sum()) & (background > 0.9)
    is_open[0] = False
    filled: Mask = mask | ((holes > 0) & ~is_open[holes])
    if not is_open.any():
        return filled, ()
    message = (
        "the background's colour shows inside of the object; it was taken for a hole that one sees through. Look at mask.png; "
        "if the object itself has that colour there, send a `mask`"
    )
    return filled, (PictureWarning("hole", message),)


def _within(rgb: Rgb, edge: int) -> Rgb:
    return rgb[edge : rgb.shape[0] - edge, edge : rgb.shape[1] - edge]


def _padded(mask: Mask, edge: int) -> Mask:
    padded: Mask = np.pad(mask, edge)
    return padded
