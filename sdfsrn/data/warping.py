"""Pictures as a virtual camera at their own camera's place would have taken them, and a sheet of them to look at."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sdfsrn.data.camera import FLIP, Camera, Matrix, check_centre
from sdfsrn.data.views import TrainingViews
from sdfsrn.images import Picture, tile_of

SIZE = 64
OVERSAMPLING = 8  # samples per side of a pixel that a warped picture is averaged over


def intrinsics_of(camera: Camera, picture: Picture) -> Matrix:
    """K in the picture's own pixels: files of cameras speak of those of its file, of which it may be a reduced copy.

    Raises ValueError if the file of cameras speaks of a picture of another size.
    """
    height, width = picture.mask.shape
    across, down = picture.reduced
    full = round(width * across), round(height * down)
    matrix = camera.intrinsics(*full)
    check_centre(matrix, *full)
    reduced: Matrix = np.diag([1 / across, 1 / down, 1.0]) @ matrix
    return reduced


def warp(picture: Picture, camera: Camera, pose: Matrix, fovy_deg: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The picture as a camera at the same place that looks as `pose` says would have taken it: its tile, and its 64 x 64 mask.

    Two pinholes at one place see the same rays: K R K'^-1 takes one's pixels to the other's (Hartley & Zisserman 2004, 8.4.2).
    """
    fine = SIZE * OVERSAMPLING
    focal = fine / 2 / math.tan(math.radians(fovy_deg) / 2)
    virtual = np.array([[focal, 0, fine / 2], [0, focal, fine / 2], [0, 0, 1.0]])
    turn = FLIP @ camera.c2w[:3, :3].T @ pose[:3, :3] @ FLIP
    flat = np.dstack([picture.rgb * picture.mask[..., None], picture.mask.astype(np.uint8) * 255])
    if camera.lens:
        warped = _through_lens(flat, camera, intrinsics_of(camera, picture), turn @ np.linalg.inv(virtual))
    else:
        matrix = intrinsics_of(camera, picture) @ turn @ np.linalg.inv(virtual)
        matrix = matrix / matrix[2, 2]
        warped = Image.fromarray(flat).transform(
            (fine, fine), Image.Transform.PERSPECTIVE, tuple(matrix.ravel()[:8]), Image.Resampling.BILINEAR, fillcolor=(0, 0, 0, 0)
        )
    alpha = warped.getchannel("A")
    tile = tile_of(Picture(np.asarray(warped.convert("RGB")), np.asarray(alpha) > 127))
    return tile.copy(), np.asarray(alpha.reduce(OVERSAMPLING)) > 127


def _through_lens(flat: NDArray[np.uint8], camera: Camera, intrinsics: Matrix, to_rays: Matrix) -> Image.Image:
    """Each sample of the virtual picture, from where the lens shows its ray."""
    assert camera.lens is not None
    fine = SIZE * OVERSAMPLING
    column, row = np.meshgrid(np.arange(fine) + 0.5, np.arange(fine) + 0.5)
    rays = to_rays @ np.stack([column.ravel(), row.ravel(), np.ones(fine * fine)])
    plane = (rays[:2] / np.where(rays[2] > 0, rays[2], np.nan)).T
    pixels = camera.lens.bend(plane) @ intrinsics[:2, :2].T + intrinsics[:2, 2] - 0.5
    place = np.nan_to_num(pixels, nan=-10.0).T[::-1]
    bands = [ndimage.map_coordinates(band, place, order=1, mode="constant") for band in np.moveaxis(flat, -1, 0)]
    return Image.fromarray(np.stack(bands, axis=-1).reshape(fine, fine, -1))


def contact_sheet(views: TrainingViews, columns: int = 10, rows: int = 10) -> Image.Image:
    """The first pictures side by side as the encoder sees them, what is not the object tinted."""
    count = min(len(views), columns * rows)
    sheet = np.zeros((-(-count // columns) * SIZE, min(count, columns) * SIZE, 3), dtype=np.uint8)
    tint = np.array([24, 32, 64], dtype=np.uint8)
    for i in range(count):
        row, column = divmod(i, columns)
        tile = Image.fromarray(views.tiles[i].permute(1, 2, 0).numpy())
        small = np.asarray(tile.resize((SIZE, SIZE), Image.Resampling.BOX))
        place = slice(row * SIZE, (row + 1) * SIZE), slice(column * SIZE, (column + 1) * SIZE)
        sheet[place] = np.where(small.any(axis=2, keepdims=True), small, tint)
    return Image.fromarray(sheet)
