"""Primitives against closed formulae and against trimesh's ray casts."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.geometry.primitives import Primitives, contains, intersect, sample_surface

BOX = torch.tensor([0.5, 0.3, 0.2])
SHAPES = Primitives(torch.stack([torch.full((3,), 0.5), BOX, torch.tensor([0.7, 0.4, 0.3])]), torch.tensor([False, True, False]))


@pytest.mark.parametrize("radius", [0.25, 0.5, 0.75])
def test_sphere_is_the_exact_disc_of_a_pinhole_camera(radius: float) -> None:
    distance, fovy, size = 2.5, 50.0, 128
    rays_o, rays_d = pixel_rays(orbit_c2w(torch.tensor([33.0]), torch.tensor([12.0]), distance), fovy, size)
    hit, _, _ = intersect(Primitives(torch.full((1, 3), radius), torch.tensor([False])), rays_o, rays_d)
    # the cone of half angle asin(r / d) cuts the image plane in a centred circle
    disc = size / 2 / math.tan(math.radians(fovy) / 2) * radius / math.sqrt(distance**2 - radius**2)
    centre = np.arange(size) + 0.5 - size / 2
    away = np.hypot(centre[:, None], centre[None])
    clear = np.abs(away - disc) > 1e-3
    assert ((away < disc) == hit.reshape(size, size).numpy())[clear].all()


@pytest.mark.parametrize("index", [0, 1, 2])
def test_hits_distances_and_normals_are_those_of_a_mesh(index: int) -> None:
    extents = SHAPES.half_extents[index].numpy()
    mesh = trimesh.creation.box([2, 2, 2]) if index == 1 else trimesh.creation.icosphere(subdivisions=4)
    mesh.apply_scale(extents)
    rays_o, rays_d = pixel_rays(orbit_c2w(torch.tensor([40.0]), torch.tensor([25.0]), 2.5), 50.0, 24)
    hit, t, normal = intersect(SHAPES[index : index + 1], rays_o, rays_d)
    where, ray, face = mesh.ray.intersects_location(rays_o[0].numpy(), rays_d[0].numpy(), multiple_hits=False)
    expected = np.zeros(24 * 24, dtype=bool)
    expected[ray] = True
    assert (expected != hit[0].numpy()).sum() <= 2, "the mesh lies a little inside a curved surface"
    both = hit[0].numpy()[ray]
    assert both.sum() > 20
    reached = (rays_o[0] + t[0, :, None] * rays_d[0]).numpy()[ray[both]]
    assert np.abs(reached - where[both]).max() < (1e-5 if index == 1 else 0.03)
    agreement = (normal[0].numpy()[ray[both]] * mesh.face_normals[face[both]]).sum(axis=1)
    assert agreement.min() > 0.98


@pytest.mark.parametrize(("name", "index"), [("sphere", 0), ("box", 1)])
def test_inside_is_the_sign_of_exact_distances(data_folder: Path, name: str, index: int) -> None:
    truth = json.loads((data_folder / "primitives" / "primitives.json").read_text())[name]
    found = contains(SHAPES[index : index + 1], torch.tensor(truth["points"]))[0].numpy()
    distance = np.array(truth["sdf"])
    clear = np.abs(distance) > 1e-5
    assert (found == (distance < 0))[clear].all()


def test_surface_samples_lie_on_the_surface() -> None:
    sphere, box, ellipsoid = sample_surface(SHAPES, 500, seed=0)
    assert np.abs(np.linalg.norm(sphere, axis=1) - 0.5).max() < 2e-3
    assert np.abs(np.abs(box / BOX.numpy()).max(axis=1) - 1).max() < 1e-6
    assert np.abs(np.linalg.norm(ellipsoid / SHAPES.half_extents[2].numpy(), axis=1) - 1).max() < 4e-3
    again, *_ = sample_surface(SHAPES, 500, seed=0)
    assert (again == sphere).all()
