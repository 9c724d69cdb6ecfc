"""The files of a fit: poses and meshes in the coordinates of the capture, curves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from sdfsrn.outputs.fits import sent_pose, write_json, write_loss, write_mesh
from tests.sdfsrn.data.scene import Y_UP_TO_Z_UP, orbit

TO_SENT = Y_UP_TO_Z_UP @ np.array([[3.0, 0, 0, 0.5], [0, 3.0, 0, -1], [0, 0, 3.0, 2], [0, 0, 0, 1]])


def test_a_pose_that_is_sent_back_sees_what_it_saw() -> None:
    """A point of the unit ball's world, and the same point of the capture's, have the same place before the camera."""
    pose, point = orbit(30, 20), np.array([0.2, -0.3, 0.4, 1.0])
    sent = sent_pose(pose, TO_SENT)
    assert np.allclose(sent[:3, :3].T @ sent[:3, :3], np.eye(3))
    before, after = np.linalg.inv(pose) @ point, np.linalg.inv(sent) @ (TO_SENT @ point)
    assert np.allclose(after[:3], 3 * before[:3])


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl"])
def test_a_mesh_is_written_where_the_capture_has_it(tmp_path: Path, suffix: str) -> None:
    ball: Any = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    facts = write_mesh(ball, TO_SENT, tmp_path / f"mesh.{suffix}")
    read: Any = trimesh.load(tmp_path / f"mesh.{suffix}", force="mesh")
    assert facts == {"file": f"mesh.{suffix}", "watertight": True, "vertices": 162, "faces": 320}
    assert np.allclose(read.bounds.mean(axis=0), TO_SENT[:3, 3], atol=1e-4)
    assert np.allclose(read.extents, 3.0, atol=0.1)
    assert read.volume > 0, "its normals look outward"


def test_rows_of_losses_need_not_have_the_same_terms(tmp_path: Path) -> None:
    write_loss([{"step": 0, "hull": 0.1}, {"step": 1, "silhouette": 0.01}, {"step": 2, "silhouette": 0.0}], tmp_path / "loss.png")
    assert np.asarray(Image.open(tmp_path / "loss.png")).std() > 1
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"iou": float("nan")}, tmp_path / "result.json")
