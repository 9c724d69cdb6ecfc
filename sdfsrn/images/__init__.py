"""From the bytes a user sent to a picture and the object's mask. Free of torch: the API checks images before it accepts a job."""

from sdfsrn.images.crop import (
    TILE,
    TILE_RADIUS,
    crop_box,
    crop_shares,
    crop_to_radius,
    mask_circle,
    mask_circles,
    mask_crop,
    tile_of,
)
from sdfsrn.images.files import FORMATS, MAX_BYTES, MAX_PIXELS, MIN_SIDE, STORED_SIDE, count_pixels
from sdfsrn.images.picture import ImageError, Picture, PictureWarning
from sdfsrn.images.reading import MIN_MASK_PIXELS, read_picture

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_MASK_PIXELS",
    "MIN_SIDE",
    "STORED_SIDE",
    "TILE",
    "TILE_RADIUS",
    "ImageError",
    "Picture",
    "PictureWarning",
    "count_pixels",
    "crop_box",
    "crop_shares",
    "crop_to_radius",
    "mask_circle",
    "mask_circles",
    "mask_crop",
    "read_picture",
    "tile_of",
]
