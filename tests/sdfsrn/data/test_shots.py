"""Whose camera and whose mask is whose, by the names of the files alone: nothing here is decoded."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdfsrn.data.archive import Archive, BadDataset
from sdfsrn.data.shots import Shot, find_shots
from sdfsrn.data.sizes import check_sizes


def _shots(archive: Archive) -> list[Shot]:
    """All of them, if all are good."""
    shots, bad = find_shots(archive)
    if bad:
        raise BadDataset(bad)
    return shots


def _paired(tmp_path: Path, images: list[str], cameras: list[int], masks: list[str] | None = None) -> dict[str, Any]:
    """Which camera and mask each picture gets; camera i stands i + 1 from the origin."""
    worlds = {f"world_mat_{i}": np.array([[100, 0, 0, 0], [0, 100, 0, 0], [0, 0, 1, i + 1.0]]) for i in cameras}
    npz = io.BytesIO()
    np.savez(npz, **worlds)
    with zipfile.ZipFile(tmp_path / "names.zip", "w") as archive:
        archive.writestr("cameras.npz", npz.getvalue())
        for name in [f"image/{name}" for name in images] + [f"mask/{name}" for name in masks or []]:
            archive.writestr(name, b"x")
    with Archive(tmp_path / "names.zip") as opened:
        shots = _shots(opened)
    found = {shot.image: (round(np.linalg.norm(shot.camera.c2w[:3, 3])) - 1, shot.mask) for shot in shots}
    return {Path(image).name: (camera, mask and Path(mask).name) for image, (camera, mask) in found.items()}


def test_pictures_with_numbers_for_names_have_the_cameras_of_these_numbers(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(12)]
    assert _paired(tmp_path, names, list(range(12)), names) == {f"{i}.png": (i, f"{i}.png") for i in range(12)}
    assert _paired(tmp_path, ["7.png", "0010.jpg"], [7, 8, 9, 10]) == {"7.png": (7, None), "0010.jpg": (10, None)}


def test_other_names_are_in_the_order_people_count(tmp_path: Path) -> None:
    views = [f"view_{i}.png" for i in range(1, 13)]
    masks = [f"{i:03d}.png" for i in range(12)]
    expected = {f"view_{i + 1}.png": (i, f"{i:03d}.png") for i in range(12)}
    assert _paired(tmp_path, views, list(range(12)), masks) == expected
    from_one = [f"{i}.png" for i in range(1, 13)]
    assert _paired(tmp_path, from_one, list(range(12))) == {f"{i + 1}.png": (i, None) for i in range(12)}
    assert _paired(tmp_path, ["1.png", "1.jpg"], [0, 1]) == {"1.jpg": (0, None), "1.png": (1, None)}, "both cannot be number 1"


def test_masks_are_paired_by_name_before_order(tmp_path: Path) -> None:
    assert _paired(tmp_path, ["a.jpg", "b.jpg"], [0, 1], ["b.png", "a.png", "c.png"]) == {
        "a.jpg": (0, "a.png"),
        "b.jpg": (1, "b.png"),
    }
    with pytest.raises(BadDataset, match=r"image/b\.png: has no mask"):
        _paired(tmp_path, ["a.png", "b.png"], [0, 1], ["a.png"])
    with pytest.raises(BadDataset) as caught:
        _paired(tmp_path, ["a.png", "b.png", "c.png"], [0, 1, 2], ["a.png", "c.png", "d.png"])
    assert list(caught.value.files) == ["image/b.png"] and "expected mask/b," in str(caught.value)


def test_names_that_do_not_say_whose_camera_they_mean_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="3 cameras for 2 pictures"):
        _paired(tmp_path, ["a.png", "b.png"], [0, 1, 2])


def _transforms(*names: str, z: float = 3.0) -> bytes:
    pose = np.eye(4)
    frames = []
    for i, name in enumerate(names):
        pose[2, 3] = z + i
        frames.append({"file_path": name, "transform_matrix": pose.tolist()})
    return json.dumps({"camera_angle_x": 0.7, "frames": frames}).encode()


@pytest.mark.parametrize(
    ("files", "bad"),
    [
        ({"transforms.json": ["./a", "a.png", "b"]}, "a.png"),
        ({"x/transforms_train.json": ["a", "b"], "x/transforms_val.json": ["./b"]}, "x/b.png"),
        ({"transforms.json": ["x/a"], "x/transforms.json": ["a"]}, "x/a.png"),
    ],
)
def test_no_picture_is_named_twice(tmp_path: Path, files: dict[str, list[str]], bad: str) -> None:
    """Else a small archive could have one large picture read any number of times."""
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        for name in ("a.png", "b.png", "x/a.png", "x/b.png"):
            archive.writestr(name, b"x")
        for name, frames in files.items():
            archive.writestr(name, _transforms(*frames, z=3.0 + len(name)))
    with Archive(tmp_path / "twice.zip") as opened, pytest.raises(BadDataset, match="and again by") as caught:
        _shots(opened)
    assert list(caught.value.files) == [bad]


def test_files_of_cameras_have_a_limit_together(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cameras.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"x")
        for i in range(4):
            archive.writestr(f"{i}/transforms.json", _transforms("a") + b" " * 17_000_000)
    with Archive(tmp_path / "cameras.zip") as opened, pytest.raises(BadDataset, match="files of cameras have 68"):
        check_sizes(opened)
