"""Marching cubes against exact bodies: centre, radius, volume, and closed surfaces that face outward."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from sdfsrn.geometry.meshes import EmptySurface, extract_mesh, grid_points, sample_grid, save_mesh

CENTRE = torch.tensor([0.1, -0.2, 0.05])


def _ball(points: torch.Tensor) -> torch.Tensor:
    return (points - CENTRE).norm(dim=-1) - 0.5


def test_exact_sphere_keeps_centre_and_radius() -> None:
    mesh = extract_mesh(sample_grid(_ball, 64))
    radii = np.linalg.norm(mesh.vertices - CENTRE.numpy(), axis=1)
    assert np.abs(mesh.center_mass - CENTRE.numpy()).max() < 1e-3
    assert np.abs(radii - 0.5).max() < 1e-3
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=5e-3), "positive: the normals face outward"


def test_node_on_the_surface_leaves_no_hole() -> None:
    axis = torch.linspace(-1.05, 1.05, 33)
    radius = float(axis[24])  # nodes lie exactly on this sphere
    mesh = extract_mesh(sample_grid(lambda points: points.norm(dim=-1) - radius, 33))
    assert mesh.is_watertight
    assert mesh.volume > 0


def test_shape_larger_than_the_unit_sphere_is_closed_by_it() -> None:
    mesh = extract_mesh(sample_grid(lambda points: points.norm(dim=-1) - 3.0, 64))
    assert mesh.is_watertight
    assert np.linalg.norm(mesh.vertices, axis=1).max() < 1.001


def test_two_bodies_are_two_bodies() -> None:
    apart = torch.tensor([0.5, 0.0, 0.0])
    values = sample_grid(lambda p: torch.minimum((p - apart).norm(dim=-1), (p + apart).norm(dim=-1)) - 0.3, 48)
    assert len(extract_mesh(values).split()) == 2


@pytest.mark.parametrize("value", [1.0, -5e-6, float("nan"), float("inf")])
def test_nothing_to_extract_is_said(value: float) -> None:
    with pytest.raises(EmptySurface):
        extract_mesh(torch.full((8, 8, 8), value))


def test_grid_is_indexed_x_y_z() -> None:
    points = grid_points(5)
    torch.testing.assert_close(points[4, 2, 0], torch.tensor([1.05, 0.0, -1.05]))


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl"])
def test_every_format_reads_back(tmp_path: Path, suffix: str) -> None:
    mesh = extract_mesh(sample_grid(_ball, 24))
    save_mesh(mesh, tmp_path / f"mesh.{suffix}")
    read = trimesh.load(tmp_path / f"mesh.{suffix}", force="mesh")
    read.merge_vertices()
    assert read.is_watertight
    assert read.volume == pytest.approx(mesh.volume, rel=1e-3)


def test_torus_has_the_published_volume_and_area(data_folder: Path) -> None:
    truth = json.loads((data_folder / "primitives" / "primitives.json").read_text())["torus"]

    def torus(points: torch.Tensor) -> torch.Tensor:
        ring = torch.hypot(points[..., 0], points[..., 2]) - truth["parameters"]["R"]
        return torch.hypot(ring, points[..., 1]) - truth["parameters"]["r"]

    points = torch.tensor(truth["points"])
    torch.testing.assert_close(torus(points), torch.tensor(truth["sdf"]), atol=1e-5, rtol=0)
    mesh = extract_mesh(sample_grid(torus, 96))
    assert mesh.euler_number == 0, "genus 1"
    assert mesh.volume == pytest.approx(truth["volume"], rel=0.01)
    assert mesh.area == pytest.approx(truth["area"], rel=0.01)
