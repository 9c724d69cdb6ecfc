"""An object before any background: GrabCut (Rother, Kolmogorov & Blake 2004) as OpenCV has it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sdfsrn.images.masks import Mask, parts, second_share

SIDE = 320  # pixels of the longer side that are segmented: finer takes long and finds no more, the encoder sees 64 x 64
RING = 0.02  # share of the shorter side that is surely background, at each border
STEPS = 5
SMALLEST, LARGEST = 0.01, 0.95  # share of the picture that an object can have
HOLE = 0.02  # share of the object below which a hole in it is none


@dataclass(frozen=True)
class Segment:
    """The largest object, how large the second is beside it, and how many pixels at each side were taken as background."""

    mask: Mask
    second_share: float
    edge: int


def segment(rgb: NDArray[np.uint8]) -> Segment | None:
    """The object in the middle of a picture; None if nothing is plausible. The same picture gives the same mask."""
    import cv2  # 0.2 s that most pictures need not wait for

    height, width = rgb.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))
    ring = max(2, round(RING * min(size)))
    labels = np.full(small.shape[:2], cv2.GC_BGD, dtype=np.uint8)
    labels[ring:-ring, ring:-ring] = cv2.GC_PR_FGD
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(small, labels, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), STEPS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # one of the two has no pixels left
        return None
    foreground = ndimage.binary_opening((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))
    numbered, sizes = parts(foreground)
    if len(sizes) == 1 or not _is_plausible(numbered == sizes.argmax(), foreground, ring):
        return None
    mask = _without_small_holes(numbered == sizes.argmax())
    large = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BILINEAR)
    return Segment(np.asarray(large) > 127, second_share(sizes), round(ring / scale))


def _is_plausible(mask: Mask, foreground: Mask, ring: int) -> bool:
    inner = mask[ring:-ring, ring:-ring]
    border = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
    is_one = mask.sum() > 0.5 * foreground.sum()
    return bool(mask.mean() > SMALLEST and inner.mean() < LARGEST and border.mean() < 0.8 and is_one)


def _without_small_holes(mask: Mask) -> Mask:
    holes, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    sizes = np.bincount(holes.ravel(), minlength=count + 1)
    filled: Mask = mask | ((holes > 0) & (sizes < HOLE * mask.sum())[holes])
    return filled
