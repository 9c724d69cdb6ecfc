"""A fit from files to files: three balls in a world whose z axis is up, and the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from typer.testing import CliRunner

from sdfsrn import experiments
from sdfsrn.cli import app
from sdfsrn.config import FitConfig, View
from sdfsrn.data.one_object import placed
from sdfsrn.fits import fit, shared_out
from tests.sdfsrn.data import scene

CONFIG = FitConfig(steps=120, hidden_dim=64, n_rays=1024, views=(View(10, 5),), size=48, mesh_resolution=64, hold_out=6)
TRUTH = [(scene.Y_UP_TO_Z_UP[:3, :3] @ np.array(centre), radius) for centre, radius in scene.BALLS]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    """The folder, what was returned, and the phases that were told."""
    folder = tmp_path_factory.mktemp("fit")
    archive = scene.write(folder / "set.zip", scene.nerf(cameras=scene.AROUND))
    phases: list[str] = []

    def note(phase: str, step: int, total: int) -> None:
        assert 0 <= step <= total
        phases.append(phase)

    return folder, fit(archive, folder / "out", CONFIG, note), list(dict.fromkeys(phases))


def test_views_left_out_are_explained(fitted: tuple[Path, dict[str, Any], list[str]]) -> None:
    _, result, phases = fitted
    roles = {view["name"]: view["role"] for view in result["views"]}
    assert [name for name, role in roles.items() if role == "held_out"] == ["images/0005.png", "images/0011.png"]
    assert result["trained_iou"]["mean"] > 0.97
    assert result["held_out_iou"]["min"] > 0.93
    assert 0.8 < result["hull"]["held_out_iou"]["mean"] < 1
    assert phases == ["reading", "fitting", "mesh", "rendering"]


def test_the_mesh_is_closed_and_lies_in_the_captures_own_coordinates(fitted: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, result, _ = fitted
    mesh: Any = trimesh.load(folder / "out" / "mesh.glb", force="mesh")
    assert mesh.is_watertight and result["mesh"]["watertight"]
    low = np.min([centre - radius for centre, radius in TRUTH], axis=0)
    high = np.max([centre + radius for centre, radius in TRUTH], axis=0)
    assert np.abs(mesh.bounds - [low, high]).max() < 0.12
    assert all(mesh.contains([centre])[0] for centre, _ in TRUTH)


def test_pictures_agree_with_their_cameras(fitted: tuple[Path, dict[str, Any], list[str]]) -> None:
    """The scene in closed form, seen by the cameras that the result names, has the silhouettes of the files."""
    folder, result, _ = fitted
    assert [picture["role"] for picture in result["pictures"]] == ["held_out", "held_out", "new"]
    for picture in result["pictures"]:
        number = f"{picture['number']:03d}"
        shown = np.asarray(Image.open(folder / "out" / f"silhouette_{number}.png")) > 127
        truth = scene.silhouette(np.array(picture["c2w"]), picture["K"][0][0], tuple(picture["size"]), TRUTH)
        assert (shown & truth).sum() / (shown | truth).sum() > 0.88
        depth = np.load(folder / "out" / f"depth_{number}.npy")
        assert (np.isfinite(depth) == shown).mean() > 0.99
        assert np.abs(np.nanmedian(depth) - 3.2) < 0.6
        assert np.asarray(Image.open(folder / "out" / f"normals_{number}.png")).shape == (*shown.shape, 3)


def test_film_losses_and_figures_are_written(fitted: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, result, _ = fitted
    with Image.open(folder / "out" / "fit.gif") as film:
        assert 10 < film.n_frames < 40
        first = np.asarray(film.convert("L"))
        film.seek(film.n_frames - 1)
        assert np.abs(first.astype(int) - np.asarray(film.convert("L"))).mean() > 1, "something changes"
    assert Image.open(folder / "out" / "loss.png").width > 100
    assert json.loads((folder / "out" / "result.json").read_text()) == json.loads(json.dumps(result))


def test_one_view_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"view0\.png is the only view that teaches: one silhouette does not say"):
        fit(placed(scene.object_views(count=1)), tmp_path)
    with pytest.raises(ValueError, match="only view that teaches once others are left out"):
        fit(placed(scene.object_views(count=2)), tmp_path, FitConfig(hold_out=2))


def test_every_so_manyth_view_is_left_out() -> None:
    views = scene.object_views()
    taught, left_out = shared_out(views, 5)
    assert left_out == [views[4]] and taught == [*views[:4], views[5]]
    assert shared_out(views, 0) == (views, [])
    with pytest.raises(ValueError, match="hold_out must be 0 or at least 2"):
        FitConfig(hold_out=1)


def test_the_command_fits_and_names_bad_views(tmp_path: Path) -> None:
    archive = scene.write(tmp_path / "set.zip", scene.nerf())
    few = '{"hidden_dim": 32, "n_rays": 256, "views": [], "mesh_resolution": 48}'
    out = tmp_path / "out"
    done = CliRunner().invoke(
        app, ["fit", str(archive), "--out", str(out), "--steps", "10", "--mesh-format", "ply", "--config", few]
    )
    assert done.exit_code == 0, done.output
    assert "at views left out" in done.output and (out / "mesh.ply").is_file()
    masks = [scene.silhouette(camera) for camera in scene.CAMERAS]
    masks[3][:, -1] = True
    bad = scene.write(tmp_path / "bad.zip", scene.nerf(masks=masks))
    done = CliRunner().invoke(app, ["fit", str(bad), "--out", str(out)])
    assert done.exit_code == 1
    assert "0003.png" in done.output and "cut off" in done.output
    done = CliRunner().invoke(app, ["fit", str(archive), "--out", str(out), "--config", '{"nothing": 1}'])
    assert done.exit_code == 1


def test_one_view_is_enough_for_spheres(tmp_path: Path) -> None:
    config = FitConfig(representation="spheres", n_spheres=16, steps=30, n_rays=256, views=(), mesh_resolution=48)
    result = fit(placed(scene.object_views(count=1)), tmp_path, config)
    assert result["held_out_iou"] is None and result["trained_iou"]["mean"] > 0.9
    assert result["mesh"]["watertight"]


def test_an_experiment_leaves_its_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "SIZE", 64)
    monkeypatch.setattr(experiments, "FRAMES", 4)
    done = CliRunner().invoke(app, ["experiment", "spheres_growing", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert float(done.output.split("IoU ")[1].split()[0]) > 0.93
    with Image.open(tmp_path / "spheres_growing.gif") as film:
        assert film.n_frames >= 4
    done = CliRunner().invoke(app, ["experiment", "nothing", "--out", str(tmp_path)])
    assert done.exit_code == 1
