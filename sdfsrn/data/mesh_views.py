"""From a mesh to the silhouettes that cameras take of it, without casting rays."""

from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from sdfsrn.data.one_object import ObjectView
from sdfsrn.geometry.pinholes import Pinhole

OVERSAMPLING = 4  # samples per side of a pixel


def mesh_silhouette(mesh: Any, camera: Pinhole) -> Bool[np.ndarray, "height width"]:
    """The pixels of which at least half is covered by a mesh (a trimesh.Trimesh, in the camera's world).

    The silhouette is the union of the projected triangles. Raises ValueError for a mesh that reaches behind the camera.
    """
    local = (np.asarray(mesh.vertices) - camera.place) @ camera.c2w[:3, :3] * (1.0, -1.0, -1.0)
    if (local[:, 2] <= 0).any():
        raise ValueError("the mesh reaches behind the camera; move the camera away from it")
    pixels = local[:, :2] / local[:, 2:] @ camera.intrinsics[:2, :2].T + camera.intrinsics[:2, 2]
    fine = pixels * OVERSAMPLING - 0.5  # PIL's pixels have their centres at whole numbers
    picture = Image.new("L", (camera.width * OVERSAMPLING, camera.height * OVERSAMPLING))
    draw = ImageDraw.Draw(picture)
    for triangle in fine[np.asarray(mesh.faces)].reshape(-1, 6).tolist():
        draw.polygon(triangle, fill=255)
    return np.asarray(picture.reduce(OVERSAMPLING)) > 127


def mesh_view(mesh: Any, camera: Pinhole, name: str) -> ObjectView:
    """A view as a fit takes it."""
    return ObjectView(name, mesh_silhouette(mesh, camera), camera.intrinsics, camera.c2w)
