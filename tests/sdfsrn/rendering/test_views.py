"""Finished pictures against plain evaluation of every pixel, against closed forms and against trimesh's ray casts."""

import math
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from sdfsrn.geometry.cameras import orbit_c2w
from sdfsrn.reconstruct import antialiased
from sdfsrn.rendering import Sdf
from sdfsrn.rendering.grids import GridField
from sdfsrn.rendering.views import SAMPLES, Camera, field_normals, minimum_picture, surface_picture
from tests.sdfsrn.rendering.fields import ball, box, capsule, decoder_field, times, torus
from tests.sdfsrn.rendering.plain import dense_minimum, exact_minimum

FIELDS = {
    "ball": ball(0.6),
    "small ball": ball(0.08),
    "box": box((0.5, 0.3, 0.2)),
    "thin plate": box((0.5, 0.05, 0.4)),
    "decoder 0": decoder_field(0)[1],
    "decoder 1": decoder_field(1)[1],
}


def _camera(size: int, n_views: int = 2, distance: float = 2.5, fovy: float = 50.0) -> Camera:
    azimuth = torch.arange(n_views) * 100.0 + 35
    return Camera(orbit_c2w(azimuth, torch.linspace(25, -40, n_views), distance), fovy, size)


def _disagreement(picture: torch.Tensor, sdf: Sdf, camera: Camera) -> float:
    """Share of pixels on the wrong side, of those where the field is clear of zero by a hair."""
    exact = dense_minimum(sdf, *camera.rays(), 400).reshape(picture.shape)
    return float((((picture < 0) != (exact < 0)) & (exact.abs() > 2e-3)).float().mean())


@pytest.mark.parametrize("name", list(FIELDS))
@pytest.mark.parametrize("size", [32, 64, 67, pytest.param(130, marks=pytest.mark.slow)])
def test_coarse_to_fine_is_the_plain_picture(name: str, size: int) -> None:
    sdf, camera = FIELDS[name], _camera(size)
    picture = minimum_picture(sdf, GridField(sdf), camera)
    # sharp edges, which fall between samples, are what the tolerance is for: 0.25 % was measured there, 0 on the ball
    assert _disagreement(picture, sdf, camera) < (1e-4 if "ball" in name else 4e-3)


def test_views_shared_out_among_threads_are_the_same_pictures() -> None:
    field, camera = FIELDS["decoder 0"], _camera(67, n_views=5)
    asking: set[int] = set()

    def sdf(points: Tensor) -> Tensor:
        asking.add(threading.get_ident())
        return field(points)

    grid, pictures = GridField(sdf), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            asking.clear()
            pictures.append(minimum_picture(sdf, grid, camera))
            assert torch.get_num_threads() == threads and len(asking) == threads
    finally:
        torch.set_num_threads(1)
    alone = torch.cat([minimum_picture(sdf, grid, Camera(c2w[None], camera.fovy_deg, camera.size)) for c2w in camera.c2w])
    for picture in pictures:
        torch.testing.assert_close(picture, alone, atol=1e-5, rtol=0)


BOX = (0.5, 0.3, 0.2)
EXACT = {
    "ball": ball(0.6),
    "box": box(BOX),
    "thin plate": box((0.5, 0.05, 0.4)),
    "torus": torus(0.5, 0.15),
    "capsule": capsule((-0.4, -0.2, 0.1), (0.5, 0.3, -0.2), 0.12),
}


def _true_silhouettes(name: str, camera: Camera) -> Tensor:
    """Closed forms in double precision for the ball and the boxes, dense samples and a search between them for the others."""
    rays_o, rays_d = (rays.double() for rays in camera.rays())
    if name == "ball":
        hit = torch.linalg.cross(rays_o, rays_d).norm(dim=-1) < 0.6
    elif name in ("box", "thin plate"):
        half = torch.tensor(BOX if name == "box" else (0.5, 0.05, 0.4), dtype=torch.float64)
        to_faces = torch.stack([(-half - rays_o) / rays_d, (half - rays_o) / rays_d])
        hit = to_faces.amin(0).amax(-1) < to_faces.amax(0).amin(-1)
    else:
        hit = exact_minimum(EXACT[name], rays_o, rays_d) < 0
    return hit.view(-1, camera.size, camera.size)


@pytest.mark.parametrize("name", list(EXACT))
@pytest.mark.parametrize("size", [64, 512, pytest.param(1024, marks=pytest.mark.slow)])
def test_silhouettes_of_exact_fields_are_exact(name: str, size: int) -> None:
    camera = _camera(size, 2 if size < 512 or name in ("ball", "box", "thin plate") else 1)  # the others' truth takes long
    found = minimum_picture(EXACT[name], GridField(EXACT[name]), camera) < 0
    truth = _true_silhouettes(name, camera)
    for one, true in zip(found, truth, strict=True):
        iou = float((one & true).sum() / (one | true).sum())
        assert iou >= (0.999 if size >= 512 else 0.98), f"{name}: {iou:.5f}"
        beside = ndimage.distance_transform_edt(true.numpy()) + ndimage.distance_transform_edt(~true.numpy())
        # from a pixel's centre to the nearest on the other side; the outline runs about half a pixel before that
        assert not ((one != true).numpy() & (beside > 1.5)).any(), "only a pixel at the outline can be on the wrong side"


@pytest.mark.parametrize("name", ["box", "thin plate", "torus", "decoder 1"])
@pytest.mark.parametrize("factor", [0.3, 3.0, 5.0, 10.0])
def test_a_field_that_rises_faster_or_slower_makes_the_same_picture(name: str, factor: float) -> None:
    sdf, camera = (FIELDS | EXACT)[name], _camera(128)
    scaled = times(sdf, factor)
    picture, other = (minimum_picture(field, GridField(field), camera) for field in (sdf, scaled))
    assert ((picture < 0) != (other < 0)).sum() <= 2, "up to rounding"
    difference = np.abs(antialiased(picture, camera).astype(int) - antialiased(other, camera))
    assert difference.max() <= 4 or (difference > 4).mean() < 1e-4
    grey = (antialiased(other, camera) > 25) & (antialiased(other, camera) < 230)
    outline = ((picture < 0)[:, 1:] != (picture < 0)[:, :-1]).sum() + ((picture < 0)[..., 1:] != (picture < 0)[..., :-1]).sum()
    assert 0.3 < grey.sum() / float(outline) < 1.5, "the soft edge is about a pixel wide"


@pytest.mark.parametrize("factor", [0.3, 1.0, 10.0])
def test_a_grid_measures_how_fast_its_field_rises(factor: float) -> None:
    grid = GridField(times(box(BOX), factor))
    assert grid.slope == pytest.approx(factor, rel=0.01)
    assert 1 <= grid.lipschitz < 1.2
    uneven = GridField(lambda points: (points / torch.tensor([1.0, 0.5, 0.25])).norm(dim=-1) - 0.8)
    assert 4 <= uneven.slope * uneven.lipschitz < 5, "four times as fast along z as along x"


def test_where_nothing_is_near_the_field_is_not_asked() -> None:
    def field(points: torch.Tensor) -> torch.Tensor:
        return torch.full(points.shape[:2], 1.5)

    def refuse(points: torch.Tensor) -> torch.Tensor:
        raise AssertionError(f"{points.shape[1]} points asked")

    assert (minimum_picture(refuse, GridField(field), _camera(256)) > 0).all()


def test_a_tip_that_touches_the_unit_sphere_is_seen() -> None:
    end, radius = torch.tensor([0.8, 0.5, 0.2]), 0.04

    def capsule(points: torch.Tensor) -> torch.Tensor:
        along = ((points @ end) / end.square().sum()).clamp(0, 1)
        return (points - along[..., None] * end).norm(dim=-1) - radius

    azimuth, elevation = torch.tensor([11.0, 84.0, 157.0]), torch.tensor([-35.0, 5.0, 40.0])
    camera = Camera(orbit_c2w(azimuth, elevation, 2.5), 50.0, 128)
    exact = dense_minimum(capsule, *camera.rays(), 400).view(3, 128, 128)
    missed = (minimum_picture(capsule, GridField(capsule), camera) >= 0) & (exact < 0)
    assert not (missed & (exact < -0.01)).any()


def test_near_the_outline_the_values_are_the_fields() -> None:
    sdf, camera = FIELDS["box"], _camera(96)
    picture = minimum_picture(sdf, GridField(sdf), camera)
    exact = dense_minimum(sdf, *camera.rays(), SAMPLES).reshape(picture.shape)
    outline = exact.abs() < camera.pixel_width()
    assert (picture - exact)[outline].abs().max() < camera.pixel_width() / 2


@pytest.mark.parametrize(("distance", "fovy"), [(1.3, 90.0), (10.0, 12.0)])
def test_other_cameras_see_the_exact_disc(distance: float, fovy: float) -> None:
    size, radius = 128, 0.5
    camera = _camera(size, 1, distance, fovy)
    picture = minimum_picture(ball(radius), GridField(ball(radius)), camera)[0]
    disc = size / 2 / math.tan(math.radians(fovy) / 2) * radius / math.sqrt(distance**2 - radius**2)
    centre = torch.arange(size) + 0.5 - size / 2
    away = torch.hypot(centre[:, None], centre[None])
    clear = (away - disc).abs() > 0.25
    assert ((away < disc) == (picture < 0))[clear].all()


def test_from_very_near_what_is_small_and_far_behind_the_centre_is_seen() -> None:
    def blobs(points: torch.Tensor) -> torch.Tensor:
        centres = torch.tensor([[0.35, 0.3, -0.8], [-0.5, 0.1, -0.7], [0.1, -0.6, -0.6]])
        return (points[..., None, :] - centres).norm(dim=-1).amin(-1) - 0.05

    for size in (64, 256):
        camera = Camera(orbit_c2w(torch.zeros(1), torch.zeros(1), 1.1), 60.0, size)
        assert _disagreement(minimum_picture(blobs, GridField(blobs), camera), blobs, camera) < 5e-5


def test_depth_and_normals_of_a_ball_are_exact() -> None:
    radius, camera = 0.6, _camera(48)
    grid = GridField(ball(radius))
    surface = surface_picture(ball(radius), grid, camera, minimum_picture(ball(radius), grid, camera))
    rays_o, rays_d = camera.rays()
    middle = -(rays_o * rays_d).sum(-1)
    half_squared = middle**2 - 2.5**2 + radius**2
    t = middle - half_squared.clamp(min=0).sqrt()
    forward = -camera.c2w[:, :3, 2].repeat_interleave(48 * 48, 0)
    depth = (t[0] * (rays_d[0] * forward).sum(-1)).reshape(surface.depth.shape)
    clear = (half_squared > 0.01).reshape(surface.depth.shape)
    assert surface.hit[clear].all()
    assert not surface.hit[(half_squared < 0).reshape(surface.depth.shape)].any()
    assert (surface.depth - depth)[clear].abs().max() < 1e-3
    normals = ((rays_o + t[..., None] * rays_d) / radius)[0].reshape(surface.normals.shape)
    assert (surface.normals * normals).sum(-1)[clear].min() > 0.999
    assert surface.depth[~surface.hit].isnan().all()
    assert (surface.normals[~surface.hit] == 0).all()


def test_normals_point_outward() -> None:
    points = torch.tensor([[[0.6, 0.01, 0.02], [0.01, -0.4, 0.02]]])
    torch.testing.assert_close(field_normals(box((0.5, 0.3, 0.2)), points)[0].round(), torch.tensor([[1.0, 0, 0], [0, -1.0, 0]]))


def _unit(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    mesh.apply_translation(-mesh.bounds.mean(axis=0))
    mesh.apply_scale(0.9 / np.linalg.norm(mesh.vertices, axis=1).max())
    return mesh


def _sampled_distance(mesh: trimesh.Trimesh, resolution: int) -> Sdf:
    """Trilinear interpolation of distances to the nearest of many surface points, signed by the side of that point's face."""
    axis = np.linspace(-1, 1, resolution)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    cloud, face = trimesh.sample.sample_surface(mesh, 60_000, seed=0)
    distance, nearest = cKDTree(cloud).query(nodes)
    outward = ((nodes - cloud[nearest]) * mesh.face_normals[face[nearest]]).sum(axis=1) > 0
    signed = torch.tensor(np.where(outward, distance, -distance), dtype=torch.float32)
    values = signed.reshape(1, 1, resolution, resolution, resolution)

    def field(points: torch.Tensor) -> torch.Tensor:
        where = points.flip(-1)[:, None, None]
        return torch.nn.functional.grid_sample(values, where, padding_mode="border", align_corners=True)[:, 0, 0, 0]

    return field


@pytest.mark.parametrize("name", ["penguin", "torus"])
def test_silhouettes_of_real_meshes_are_trimeshs_ray_casts(data_folder: Path, name: str) -> None:
    mesh = _unit(trimesh.load(data_folder / "meshes_watertight" / f"{name}.obj", force="mesh", process=True))
    assert mesh.is_watertight
    sdf = _sampled_distance(mesh, 40)
    camera = _camera(32, 1)
    rendered = minimum_picture(sdf, GridField(sdf), camera) < 0
    rays_o, rays_d = camera.rays()
    truth = torch.from_numpy(mesh.ray.intersects_any(rays_o[0].numpy(), rays_d[0].numpy())).reshape(rendered.shape)
    agreement = float((rendered & truth).sum() / (rendered | truth).sum())
    assert agreement > 0.95, "a 40^3 grid rounds ears and edges by a pixel at most"
