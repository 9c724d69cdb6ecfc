"""Views of one object: read from the files of data sets at full size, placed in the unit ball, refused by name."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from sdfsrn.data.archive import BadDataset
from sdfsrn.data.one_object import FILL, ObjectView, OneObject, placed, read_object
from tests.sdfsrn.data import scene


def _agrees(found: OneObject, axes: np.ndarray) -> None:
    """The scene's balls, taken from the capture's coordinates to the unit ball's, have the masks as their silhouettes."""
    to_ball = np.linalg.inv(found.to_sent) @ axes
    scale = np.cbrt(np.linalg.det(to_ball[:3, :3]))
    balls = [(tuple((to_ball @ [*centre, 1.0])[:3]), radius * scale) for centre, radius in scene.BALLS]
    for view in found.views:
        height, width = view.mask.shape
        seen = scene.silhouette(view.c2w, view.intrinsics[0, 0], (width, height), balls)
        assert (seen & view.mask).sum() / (seen | view.mask).sum() > 0.97
    reach = max(np.linalg.norm(centre) + radius for centre, radius in balls)
    assert FILL - 0.15 < reach < FILL + 0.02


@pytest.mark.parametrize("as_folder", [False, True])
def test_nerf_files_are_read_at_their_own_size_and_axes(tmp_path: Path, as_folder: bool) -> None:
    path = scene.write(tmp_path / "set.zip", scene.nerf())
    if as_folder:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "set")
        path = tmp_path / "set"
    found = read_object(path)
    assert [view.mask.shape for view in found.views] == [(scene.HEIGHT, scene.WIDTH)] * len(scene.VIEWS)
    assert found.shares is not None and min(found.shares) > 0.95
    _agrees(found, scene.Y_UP_TO_Z_UP)


def test_cameras_npz_are_read(tmp_path: Path) -> None:
    files = scene.npz(lambda i, camera: {f"world_mat_{i}": scene.pixels_of() @ scene.w2c(camera)})
    _agrees(read_object(scene.write(tmp_path / "set.zip", files)), np.eye(4))


def test_a_lens_is_straightened(tmp_path: Path) -> None:
    k1 = -0.15

    def straight(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        radius = np.hypot(x, y)
        grown = radius.copy()
        for _ in range(50):
            grown = radius / (1 + k1 * grown**2)
        times = np.divide(grown, radius, out=np.ones_like(radius), where=radius > 0)
        return x * times, y * times

    masks = [scene.silhouette(camera, ray=straight) for camera in scene.CAMERAS]
    files = scene.nerf({**scene.INTRINSICS, "k1": k1}, masks=masks)
    found = read_object(scene.write(tmp_path / "set.zip", files))
    to_ball = np.linalg.inv(found.to_sent) @ scene.Y_UP_TO_Z_UP
    scale = np.cbrt(np.linalg.det(to_ball[:3, :3]))
    balls = [(tuple((to_ball @ [*centre, 1.0])[:3]), radius * scale) for centre, radius in scene.BALLS]
    for view in found.views:
        height, width = view.mask.shape
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        directions = view.camera.directions(np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(height, width, 3)
        seen = np.zeros_like(view.mask)
        for centre, radius in balls:
            away = view.c2w[:3, 3] - np.array(centre)
            along = directions @ away
            seen |= (along**2 - away @ away + radius**2 >= 0) & (along < 0)
        assert (seen & view.mask).sum() / (seen | view.mask).sum() > 0.96


def test_one_view_lies_where_it_looks_nearest_to_the_origin() -> None:
    found = placed(scene.object_views(count=1))
    assert found.shares is None
    assert abs(np.linalg.norm(found.to_sent[:3, 3])) < 0.5
    with pytest.raises(BadDataset, match=r"view0\.png: looks away from the world's origin"):
        away = scene.CAMERAS[0].copy()
        away[:3, 3] *= -1
        placed([ObjectView("view0.png", scene.object_views(count=1)[0].mask, scene.MATRIX, away)])


def test_a_view_without_a_camera_is_named(tmp_path: Path) -> None:
    files = scene.nerf(change=lambda i, frame: {**frame, "transform_matrix": None} if i == 2 else frame)
    path = scene.write(tmp_path / "set.zip", files)
    with pytest.raises(BadDataset, match=r"0002\.png: has no pose"):
        read_object(path)
    found = read_object(path, skip_bad=True)
    assert len(found.views) == 5 and list(found.skipped) == ["images/0002.png"]


def test_a_mask_at_the_border_or_without_an_object_is_named(tmp_path: Path) -> None:
    cut, empty = (np.zeros((scene.HEIGHT, scene.WIDTH), dtype=bool) for _ in range(2))
    cut[20:50, 60:] = True
    for bad, said in ((cut, "cut off by the picture's border"), (empty, "nothing in the picture")):
        masks = [scene.silhouette(camera) for camera in scene.CAMERAS]
        masks[3] = bad
        path = scene.write(tmp_path / "set.zip", scene.nerf(masks=masks))
        with pytest.raises(BadDataset, match=rf"0003\.png: .*{said}"):
            read_object(path)


def test_a_mask_that_contradicts_the_others_is_named() -> None:
    views = scene.object_views()
    shifted = np.roll(views[4].mask, 40, axis=1)
    views[4] = ObjectView("view4.png", shifted, scene.MATRIX, views[4].c2w)
    with pytest.raises(BadDataset, match=r"view4\.png: contradicts the other views") as caught:
        placed(views)
    assert list(caught.value.files) == ["view4.png"]
    assert len(placed(views, skip_bad=True).views) == 5


def test_a_camera_within_the_object_is_named() -> None:
    views = scene.object_views()
    inside = views[1].c2w.copy()
    inside[:3, 3] = 0.1
    views[1] = ObjectView("view1.png", views[1].mask, scene.MATRIX, inside)
    with pytest.raises(BadDataset, match=r"view1\.png: the camera stands inside the object"):
        placed(views)


def test_one_of_several_objects_is_asked_for(tmp_path: Path) -> None:
    files = {f"{name}/{path}": data for name in ("a", "b") for path, data in scene.nerf().items()}
    path = scene.write(tmp_path / "set.zip", files)
    with pytest.raises(BadDataset, match="holds 2 objects and a fit takes one; say which: a, b"):
        read_object(path)
    with pytest.raises(BadDataset, match="has no object 'c'"):
        read_object(path, subject="c")
    assert [view.name.split("/")[0] for view in read_object(path, subject="b").views] == ["b"] * 6
