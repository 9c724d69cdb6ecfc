"""The film of a fit, of a ball whose pictures are known."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sdfsrn.geometry.pinholes import Pinhole
from sdfsrn.outputs.film import BANNER, Film, orbit_camera
from sdfsrn.rendering.grids import GridField
from tests.sdfsrn.data.scene import orbit, silhouette

CAMERA = Pinhole(np.array([[200.0, 0, 120], [0, 200.0, 100], [0, 0, 1]]), orbit(40, 10, 2.5), 240, 200)


def _ball(radius: float) -> GridField:
    return GridField(lambda points: torch.linalg.vector_norm(points, dim=-1) - radius)


def test_frames_show_mask_prediction_error_and_shape(tmp_path: Path) -> None:
    """A ball that is too large: the error is a ring, nothing where both agree."""
    rows, columns = np.indices((200, 240))
    truth = np.hypot(columns - 119.5, rows - 99.5) < 200 * np.tan(np.arcsin(0.4 / 2.5))
    film = Film(truth, CAMERA)
    film.add(_ball(0.6), 0.0, "step 1")
    film.add(_ball(0.4), 1.0, "step 2")
    film.save(tmp_path / "film.gif")
    first, last = (np.asarray(frame)[BANNER:] for frame in film.frames)
    width = film.camera.width + 2
    mask, prediction, error, shape = (first[:, i * width : i * width + width - 2] for i in range(4))
    assert (film.camera.width, film.camera.height) == (120, 100)
    assert abs((mask > 127).mean() - truth.mean()) < 0.005
    assert 1.8 < (prediction > 127).mean() / (mask > 127).mean() < 2.8
    ring = error[..., 0] > 127
    assert abs(ring.mean() - ((prediction > 127) != (mask > 127)).any(axis=-1).mean()) < 0.01
    assert ring[50, 60] == 0 and shape[50, 60].min() > 40
    assert (last[:, 2 * width : 3 * width - 2, 0] > 127).mean() < 0.01
    with Image.open(tmp_path / "film.gif") as read:
        assert read.n_frames == 2


def test_cameras_turn_around_the_object_at_the_same_distance() -> None:
    places = np.stack([orbit_camera(azimuth, CAMERA).place for azimuth in (0.0, 90.0, 180.0)])
    assert np.allclose(np.linalg.norm(places, axis=1), 2.5)
    assert abs(places[0, 2] - 2.5 * np.cos(np.radians(20))) < 1e-6 and abs(places[1, 0] - places[0, 2]) < 1e-6
    truth = silhouette(orbit_camera(90.0, CAMERA).c2w, 200.0, (240, 200), [((0.0, 0.0, 0.0), 0.4)])
    assert truth[100, 120] and abs(np.argwhere(truth).mean(axis=0) - (99.5, 119.5)).max() < 0.6
