"""Primitives against closed formulae and against trimesh's ray casts."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.geometry.primitives import KINDS, Primitives, contains, intersect, surface_mesh, surfaces

BOX = torch.tensor([0.5, 0.3, 0.2])
EXTENTS = torch.stack([torch.full((3,), 0.5), BOX, torch.tensor([0.7, 0.4, 0.3]), BOX, torch.tensor([0.4, 0.5, 0.3])])
NAMES = ("ellipsoid", "box", "ellipsoid", "wedge", "l_block")
SHAPES = Primitives(EXTENTS, torch.tensor([KINDS.index(name) for name in NAMES]))


@pytest.mark.parametrize("radius", [0.25, 0.5, 0.75])
def test_sphere_is_the_exact_disc_of_a_pinhole_camera(radius: float) -> None:
    distance, fovy, size = 2.5, 50.0, 128
    rays_o, rays_d = pixel_rays(orbit_c2w(torch.tensor([33.0]), torch.tensor([12.0]), distance), fovy, size)
    hit, _, _ = intersect(Primitives(torch.full((1, 3), radius), torch.tensor([0])), rays_o, rays_d)
    # the cone of half angle asin(r / d) cuts the image plane in a centred circle
    disc = size / 2 / math.tan(math.radians(fovy) / 2) * radius / math.sqrt(distance**2 - radius**2)
    centre = np.arange(size) + 0.5 - size / 2
    away = np.hypot(centre[:, None], centre[None])
    clear = np.abs(away - disc) > 1e-3
    assert ((away < disc) == hit.reshape(size, size).numpy())[clear].all()


@pytest.mark.parametrize("azimuth", [40.0, 130.0, 220.0, 310.0])
@pytest.mark.parametrize("index", range(len(NAMES)))
def test_hits_distances_and_normals_are_those_of_a_mesh(index: int, azimuth: float) -> None:
    mesh = surface_mesh(NAMES[index])
    mesh.apply_scale(EXTENTS[index].numpy())
    curved = NAMES[index] == "ellipsoid"
    rays_o, rays_d = pixel_rays(orbit_c2w(torch.tensor([azimuth]), torch.tensor([25.0]), 2.5), 50.0, 24)
    hit, t, normal = intersect(SHAPES[index : index + 1], rays_o, rays_d)
    where, ray, face = mesh.ray.intersects_location(rays_o[0].numpy(), rays_d[0].numpy(), multiple_hits=False)
    expected = np.zeros(24 * 24, dtype=bool)
    expected[ray] = True
    assert (expected != hit[0].numpy()).sum() <= 2 * curved, "the mesh lies a little inside a curved surface"
    both = hit[0].numpy()[ray]
    assert both.sum() > 20
    reached = (rays_o[0] + t[0, :, None] * rays_d[0]).numpy()[ray[both]]
    assert np.abs(reached - where[both]).max() < (0.03 if curved else 1e-5)
    agreement = (normal[0].numpy()[ray[both]] * mesh.face_normals[face[both]]).sum(axis=1)
    assert agreement.min() > 0.98


@pytest.mark.parametrize(("name", "index"), [("sphere", 0), ("box", 1)])
def test_inside_is_the_sign_of_exact_distances(data_folder: Path, name: str, index: int) -> None:
    truth = json.loads((data_folder / "primitives" / "primitives.json").read_text())[name]
    found = contains(SHAPES[index : index + 1], torch.tensor(truth["points"]))[0].numpy()
    distance = np.array(truth["sdf"])
    clear = np.abs(distance) > 1e-5
    assert (found == (distance < 0))[clear].all()


def test_surfaces_are_the_shapes_own() -> None:
    sphere, box, ellipsoid, *_ = (mesh.sample(500, seed=0) for mesh in surfaces(SHAPES))
    assert np.abs(np.linalg.norm(sphere, axis=1) - 0.5).max() < 2e-3
    assert np.abs(np.abs(box / BOX.numpy()).max(axis=1) - 1).max() < 1e-6
    assert np.abs(np.linalg.norm(ellipsoid / SHAPES.half_extents[2].numpy(), axis=1) - 1).max() < 4e-3


@pytest.mark.parametrize(("name", "volume"), [("box", 8.0), ("wedge", 4.0), ("l_block", 6.0), ("ellipsoid", 4 / 3 * math.pi)])
def test_meshes_are_closed_and_agree_with_the_inside(name: str, volume: float) -> None:
    mesh = surface_mesh(name)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(volume, rel=5e-3)
    points = torch.rand(2_000, 3, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    found = contains(Primitives(torch.ones(1, 3), torch.tensor([KINDS.index(name)])), points)[0].numpy()
    assert (found == mesh.contains(points.numpy())).mean() > (0.99 if name == "ellipsoid" else 0.9999)


@pytest.mark.parametrize(("name", "is_mirrored"), [("ellipsoid", True), ("box", True), ("wedge", False), ("l_block", False)])
def test_which_families_have_the_mirror_plane(name: str, is_mirrored: bool) -> None:
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    shape = Primitives(torch.ones(1, 3), torch.tensor([KINDS.index(name)]))
    there = contains(shape, points * torch.tensor([-1.0, 1.0, 1.0]))
    assert bool((contains(shape, points) == there).all()) == is_mirrored
