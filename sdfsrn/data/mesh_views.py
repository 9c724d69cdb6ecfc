"""From a mesh to the silhouettes that cameras take of it, without casting rays."""

from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool

from sdfsrn.data.one_object import ObjectView
from sdfsrn.geometry.pinholes import Pinhole

OVERSAMPLING = 8  # samples per side of a pixel
SUBPIXEL_BITS = 4  # of a triangle's corners


def mesh_silhouette(mesh: Any, camera: Pinhole) -> Bool[np.ndarray, "height width"]:
    """The pixels of which at least half is covered by a mesh (a trimesh.Trimesh, in the camera's world).

    The silhouette is the union of the projected triangles. Raises ValueError for a mesh that reaches behind the camera.
    """
    local = (np.asarray(mesh.vertices) - camera.place) @ camera.c2w[:3, :3] * (1.0, -1.0, -1.0)
    if (local[:, 2] <= 0).any():
        raise ValueError("the mesh reaches behind the camera; move the camera away from it")
    pixels = local[:, :2] / local[:, 2:] @ camera.intrinsics[:2, :2].T + camera.intrinsics[:2, 2]
    fine = (pixels * OVERSAMPLING - 0.5) * 2**SUBPIXEL_BITS  # OpenCV's pixels have their centres at whole numbers
    picture = np.zeros((camera.height * OVERSAMPLING, camera.width * OVERSAMPLING), dtype=np.uint8)
    for triangle in fine[np.asarray(mesh.faces)].round().astype(np.int32):
        cv2.fillConvexPoly(picture, triangle, 1, shift=SUBPIXEL_BITS)
    shares = picture.reshape(camera.height, OVERSAMPLING, camera.width, OVERSAMPLING).mean(axis=(1, 3))
    covered: np.ndarray = shares >= 0.5
    return covered


def mesh_view(mesh: Any, camera: Pinhole, name: str) -> ObjectView:
    """A view as a fit takes it."""
    return ObjectView(name, mesh_silhouette(mesh, camera), camera.intrinsics, camera.c2w)
