"""Pictures of objects that no shipped model was trained on: renders of real meshes, and photographs with alpha."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh

from sdfsrn.data.synthetic import AMBIENT, CAMERA_DISTANCE, ELEVATION_RANGE_DEG, FOVY_DEG
from sdfsrn.geometry.cameras import orbit_c2w, pixel_rays
from sdfsrn.images import Picture, read_picture
from tests.benchmarks.machine import ROOT

SIDE = 256
DATA = Path(os.environ.get("SDFSRN_TEST_DATA", ROOT.parent / "shared" / "data"))


def photographs() -> list[Picture]:
    """The pictures with alpha of `post_images`; none where the folder is absent."""
    return [read_picture(path.read_bytes()) for path in sorted((DATA / "post_images").glob("*.png"))]


def renders(split: str, seed: int) -> Iterator[tuple[str, Picture]]:
    """Category and picture of every mesh of a split of `objects_cc0`, seen from a random side."""
    manifest = DATA / "objects_cc0" / "manifest.csv"
    if not manifest.is_file():
        return
    generator = np.random.default_rng(seed)
    with manifest.open() as opened:
        for row in csv.DictReader(opened):
            if row["split"] == split:
                mesh = trimesh.load(DATA / "objects_cc0" / row["file"], force="mesh")
                yield row["category"], _render(mesh, generator)


def _render(mesh: Any, generator: np.random.Generator) -> Picture:
    """Lambertian, of one colour, on black, as the synthetic data set's pictures are."""
    mesh.apply_scale(0.8 / np.linalg.norm(mesh.vertices, axis=1).max())
    azimuth, elevation = generator.uniform(0, 360), generator.uniform(*ELEVATION_RANGE_DEG)
    c2w = orbit_c2w(torch.tensor([azimuth]).float(), torch.tensor([elevation]).float(), CAMERA_DISTANCE)
    rays_o, rays_d = (rays[0].numpy().astype(np.float64) for rays in pixel_rays(c2w, FOVY_DEG, SIDE))
    triangle = mesh.ray.intersects_first(rays_o, rays_d)
    hit = triangle >= 0
    normals = mesh.face_normals[triangle] * hit[:, None]
    normals *= -np.sign((normals * rays_d).sum(axis=1, keepdims=True))  # faces are seen from both sides
    light = c2w[0, :3, :3].numpy() @ [generator.normal(), generator.normal(), abs(generator.normal()) + 0.3]
    lambert = np.clip(normals @ (light / np.linalg.norm(light)), 0, None)
    brightness = (AMBIENT + (1 - AMBIENT) * lambert) * hit
    colour = generator.uniform(0.25, 1, 3) * 255
    return Picture((brightness[:, None] * colour).round().astype(np.uint8).reshape(SIDE, SIDE, 3), hit.reshape(SIDE, SIDE))
