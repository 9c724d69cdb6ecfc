"""Any pinhole, against the projection that reads strangers' cameras and the orbit cameras of square pictures."""

import numpy as np
import torch

from sdfsrn.data.camera import Camera
from sdfsrn.geometry.cameras import intrinsics, orbit_c2w, pixel_rays
from sdfsrn.geometry.pinholes import Pinhole

POSE = orbit_c2w(torch.tensor([33.0], dtype=torch.float64), torch.tensor([-12.0], dtype=torch.float64), 2.5)[0].numpy()
SKEWED = np.array([[80.0, 1.5, 30.0], [0, 95.0, 20.0], [0, 0, 1]])


def test_rays_run_through_what_is_seen_at_their_pixels() -> None:
    camera = Pinhole(SKEWED, POSE, 64, 48)
    pixels = np.random.default_rng(0).uniform(0, 48, (50, 2))
    points = camera.place + 3.0 * camera.directions(pixels)
    seen, depth = Camera(lambda width, height: SKEWED, POSE).pixels(SKEWED, points)
    assert np.allclose(seen, pixels)
    assert np.allclose((points - camera.place) @ camera.forward, depth)


def test_square_pictures_have_the_rays_of_an_orbit_camera() -> None:
    camera = Pinhole(np.array(intrinsics(50.0, 16)), POSE, 16, 16)
    rows, columns = np.indices((16, 16)).reshape(2, -1)
    origins, directions = camera.rays(rows, columns)
    expected = pixel_rays(torch.from_numpy(POSE)[None].float(), 50.0, 16)
    assert torch.allclose(origins, expected[0][0], atol=1e-6)
    assert torch.allclose(directions, expected[1][0], atol=1e-6)
    assert abs(camera.pixel_width - 2 * 2.5 * np.tan(np.radians(25)) / 16) < 1e-12


def test_a_reduced_picture_sees_the_same() -> None:
    camera = Pinhole(SKEWED, POSE, 64, 48)
    small = camera.reduced(4)
    assert (small.width, small.height) == (16, 12)
    assert np.allclose(small.directions(np.array([[5.0, 7.0]])), camera.directions(np.array([[20.0, 28.0]])))
