"""Views of one object must agree, wherever in their world it lies; what cannot be used is left out when asked, and named."""

import json
from pathlib import Path

import numpy as np
import pytest

from sdfsrn.data.agreement import agreement, meeting_point, silhouette
from sdfsrn.data.archive import BadDataset
from sdfsrn.data.camera import Camera
from tests.sdfsrn.data import scene
from tests.sdfsrn.data.scene import CAMERAS, nerf, orbit, read, rgba, worst_iou


@pytest.mark.parametrize("by", [(1.6, 0.0, 0.3), (3.0, 1.0, 0.0), (40.0, -7.0, 12.0)])
def test_an_object_beside_the_origin_is_moved_there_if_asked(tmp_path: Path, by: tuple[float, float, float]) -> None:
    cameras, balls = scene.shifted(by)
    files = nerf(cameras=cameras, masks=[scene.silhouette(camera, balls=balls) for camera in cameras])
    with pytest.raises(BadDataset) as caught:
        read(tmp_path, files)
    assert "object lies around (" in caught.value.advice and "recentre=true" in caught.value.advice
    found = read(tmp_path, files, recentre=True)
    assert worst_iou(found, balls) > 0.97
    assert found.report["centre"] == pytest.approx(np.add(by, (0.05, 0.05, 0.03)), abs=0.05), "a bit beside the large ball's"
    assert found.report["camera_distance"] == pytest.approx(3.2 * found.report["scale"], rel=0.06)


@pytest.mark.parametrize("by", [(0.0, 0.0, 0.0), (0.3, 0.0, 0.0), (0.9, 0.0, 0.3)])
def test_an_object_around_the_origin_stays_where_it_is(tmp_path: Path, by: tuple[float, float, float]) -> None:
    """The origin may mean something: a plane of symmetry, the middle of all objects."""
    cameras, balls = scene.shifted(by)
    found = read(tmp_path, nerf(cameras=cameras, masks=[scene.silhouette(camera, balls=balls) for camera in cameras]))
    assert found.report["centre"] == [0, 0, 0]
    np.testing.assert_allclose(
        found.views.c2w[:, :3, 3], found.report["scale"] * np.stack([camera[:3, 3] for camera in cameras]), atol=1e-5
    )
    assert worst_iou(found, balls) > 0.94


def _some_views(views: int) -> dict[str, bytes]:
    return nerf(folder="a/", stored=lambda i: f"a/images/{i:04d}.png", cameras=CAMERAS[:views])


def test_one_view_cannot_be_compared_and_the_report_says_so(tmp_path: Path) -> None:
    report = read(tmp_path, _some_views(1)).report["agreement"]
    assert report == {"min": None, "mean": None, "unchecked": 1, "objects": {}}
    report = read(tmp_path, _some_views(2)).report["agreement"]
    assert report["unchecked"] == 0 and report["objects"]["a"]["views"] == 2 and report["min"] > 0.99


def test_a_mask_of_something_else_is_named(tmp_path: Path) -> None:
    masks = [scene.silhouette(camera) for camera in CAMERAS]
    masks[2] = scene.silhouette(CAMERAS[2], balls=scene.BALLS[1:2])  # one small ball of three
    found = read(tmp_path, nerf(masks=masks)).report["agreement"]["objects"]["object"]
    assert found["min"] < 0.5 and list(found["low"]) == ["images/0002.png"]


def test_a_camera_of_another_picture_is_refused_by_name_or_left_out(tmp_path: Path) -> None:
    masks = [scene.silhouette(camera) for camera in CAMERAS]
    masks[4] = np.roll(scene.silhouette(CAMERAS[4], focal=40.0), (20, -28), axis=(0, 1))
    with pytest.raises(BadDataset, match="does not agree with the other views of object") as caught:
        read(tmp_path, nerf(masks=masks))
    assert list(caught.value.files) == ["images/0004.png"]
    found = read(tmp_path, nerf(masks=masks), skip_bad=True)
    assert list(found.report["skipped"]) == ["images/0004.png"] and found.report["pictures"] == 5
    assert worst_iou(found) > 0.97


def test_skip_bad_leaves_out_and_names_what_cannot_be_used(tmp_path: Path) -> None:
    masks = [scene.silhouette(camera) for camera in CAMERAS]
    files = nerf(masks=masks)
    document = json.loads(files["transforms.json"])
    document["frames"][1].pop("transform_matrix")
    document["frames"].append({**document["frames"][0], "file_path": "images/missing.png"})
    document["frames"][5]["transform_matrix"] = [[float("nan")] * 4] * 4
    files["transforms.json"] = json.dumps(document).encode()
    files["images/0002.png"] = rgba(np.zeros_like(masks[2]))
    files["images/0003.png"] = rgba(np.roll(masks[3], 40, axis=1))
    files["images/0004.png"] = b"damaged"
    bad = {"images/0001.png", "images/missing.png", "images/0005.png", "images/0002.png", "images/0003.png", "images/0004.png"}
    with pytest.raises(BadDataset, match="With skip_bad=true") as caught:
        read(tmp_path, files)
    assert set(caught.value.files) <= bad
    found = read(tmp_path, files, skip_bad=True)
    assert set(found.report["skipped"]) == bad and found.report["pictures"] == 1
    assert "border" in found.report["skipped"]["images/0003.png"]
    del files["images/0000.png"]
    with pytest.raises(BadDataset) as caught:
        read(tmp_path, files, skip_bad=True)
    assert set(caught.value.files) == bad | {"images/0000.png"} and "skip_bad" not in str(caught.value)


def test_lines_meet_where_most_of_them_do() -> None:
    generator = np.random.default_rng(1)
    truth = np.array([3.0, -2.0, 5.0])
    places = truth + generator.normal(size=(12, 3)) * 4
    directions = truth - places
    directions[:2] = generator.normal(size=(2, 3))  # two are wrong
    centre, spread = meeting_point(places, directions / np.linalg.norm(directions, axis=1, keepdims=True))
    assert np.linalg.norm(centre - truth) < 0.02 and spread > 0.1


@pytest.mark.parametrize("thin", [1, 3])
def test_thin_things_are_explained(thin: int) -> None:
    """A wire, a few pixels wide in every picture: a coarse grid must not lose it."""
    views = []
    for azimuth in range(0, 360, 40):
        mask = np.zeros((400, 400), dtype=bool)
        mask[40:360, 200 - thin : 200 + thin] = True  # a vertical wire through the origin
        pose = orbit(azimuth, 0)
        views.append(silhouette(mask, np.array([[500, 0, 200], [0, 500, 200], [0, 0, 1.0]]), Camera(lambda w, h: np.eye(3), pose)))
    found = agreement(views)
    assert found and found.centre is not None and min(found.shares) > 0.95
    assert np.linalg.norm(found.centre) < 0.05 and found.radius == pytest.approx(1.02, abs=0.15)
