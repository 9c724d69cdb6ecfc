"""Silhouettes of meshes against rays cast by embree."""

from typing import Any

import numpy as np
import pytest
import trimesh

from sdfsrn.data.mesh_views import mesh_silhouette
from sdfsrn.geometry.pinholes import Pinhole
from tests.sdfsrn.data.scene import orbit

MATRIX = np.array([[150.0, 0, 70], [0, 140.0, 66], [0, 0, 1]])


@pytest.mark.parametrize("azimuth", [0, 70, 200])
def test_silhouettes_are_those_of_cast_rays(azimuth: int) -> None:
    mesh: Any = trimesh.creation.torus(0.5, 0.2)
    camera = Pinhole(MATRIX, orbit(azimuth, 25, 2.5), 144, 128)
    rows, columns = np.indices((128, 144)).reshape(2, -1)
    origins, directions = camera.rays(rows, columns)
    caster: Any = trimesh.ray.ray_pyembree.RayMeshIntersector(mesh)
    truth = caster.intersects_any(origins.numpy(), directions.numpy()).reshape(128, 144)
    found = mesh_silhouette(mesh, camera)
    assert (found & truth).sum() / (found | truth).sum() > 0.985
    moments = [np.argwhere(mask).mean(axis=0) for mask in (found, truth)]
    assert np.abs(moments[0] - moments[1]).max() < 0.1, "no half pixel beside"


def test_a_mesh_behind_the_camera_is_refused() -> None:
    with pytest.raises(ValueError, match="behind the camera"):
        mesh_silhouette(trimesh.creation.icosphere(radius=5.0), Pinhole(MATRIX, orbit(0, 0, 2.5), 144, 128))
