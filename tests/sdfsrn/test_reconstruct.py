"""From a picture to everything that was asked for, with a model fresh from training and with the one that is served."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image, ImageDraw

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.config import WEIGHTS, ReconstructionConfig, View
from sdfsrn.images import Picture, read_picture
from sdfsrn.reconstruct import Looked, ReconstructionFailed, Reconstructor, Shape
from sdfsrn.rendering.grids import GridField
from tests.sdfsrn.conftest import TinyTraining


@pytest.fixture(scope="module")
def picture() -> Picture:
    """A ball."""
    image = Image.new("RGB", (96, 96))
    ImageDraw.Draw(image).ellipse((20, 20, 70, 70), fill=(200, 120, 60))
    rgb = np.asarray(image)
    return Picture(rgb, rgb.any(axis=2))


@pytest.fixture(scope="module")
def model(tiny_training: TinyTraining) -> Reconstructor:
    """Hardly trained, so its field is forced to be one body whatever the latent says."""
    checkpoint = Checkpoint.load(tiny_training.checkpoint)
    for name in ("decoder.latent_in.weight", "decoder.latent_skip.weight"):
        checkpoint.weights[name].zero_()
    return Reconstructor(checkpoint, torch.device("cpu"))


def test_writes_what_was_asked_and_result_json_agrees(model: Reconstructor, picture: Picture, tmp_path: Path) -> None:
    config = ReconstructionConfig(
        views=(View(30, 20), View(200, -10)),
        size=64,
        refine_steps=2,
        outputs=("silhouettes", "depth", "normals", "mesh", "sdf_grid"),
    )
    phases: list[str] = []
    metrics = model.run(picture, config, tmp_path, lambda phase, step, total: phases.append(phase))
    kinds = (("silhouette", "png"), ("depth", "npy"), ("normals", "png"))
    expected = {f"{kind}_{i:03d}.{end}" for i in (0, 1) for kind, end in kinds}
    expected |= {"mesh.glb", "sdf_grid.npy", "contact_sheet.png", "mask.png", "result.json"}
    assert {path.name for path in tmp_path.iterdir()} == expected
    assert (np.asarray(Image.open(tmp_path / "mask.png")) == picture.mask * 255).all()
    assert 0 < metrics["unrefined_input_iou"] <= metrics["input_iou"] <= 1
    assert {"encoding", "refining", "rendering", "mesh"} <= set(phases)
    mesh = trimesh.load(tmp_path / "mesh.glb", force="mesh")
    assert mesh.is_watertight
    assert mesh.volume > 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["scale"] == "unknown"
    axis = torch.linspace(-result["grid_bound"], result["grid_bound"], 64)
    nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    scale = result["latent_scale"]
    with torch.no_grad():
        field = scale * model.model.sdf(torch.tensor(result["latent"])[None])(nodes.view(1, -1, 3) / scale).view(64, 64, 64)
    assert np.load(tmp_path / "sdf_grid.npy") == pytest.approx(field.numpy(), abs=1e-5), "the field itself, at every node"
    for i, view in enumerate(result["views"]):
        # a client's own check: every vertex of the mesh, projected with K and c2w, falls into the silhouette's box and fills it
        pose, k = np.array(view["c2w"]), np.array(view["K"])
        local = (mesh.vertices - pose[:3, 3]) @ pose[:3, :3] * [1, -1, -1]
        pixel = (local @ k.T)[:, :2] / local[:, 2:]
        y, x = np.nonzero(np.asarray(Image.open(tmp_path / f"silhouette_{i:03d}.png")) > 127)
        assert np.abs(pixel.min(axis=0) - [x.min(), y.min()]).max() < 1.6
        assert np.abs(pixel.max(axis=0) - [x.max() + 1, y.max() + 1]).max() < 1.6


@pytest.mark.parametrize(
    ("low", "high", "sought"),
    [(-10.0, 40.0, [-5.0, 15.0, 35.0]), (50.0, 80.0, [55.0, 75.0]), (30.0, 30.0, [30.0]), (-90.0, 90.0, None)],
)
def test_views_are_sought_where_the_model_was_trained(
    model: Reconstructor, low: float, high: float, sought: list[float] | None
) -> None:
    trained = dataclasses.replace(model.checkpoint, lowest_deg=low, highest_deg=high)
    found = Reconstructor(trained, torch.device("cpu"))._search_elevations()
    assert sought is None or found == sought
    assert max(np.diff([low, *found, high])) <= 20, "no elevation is further than half of this from one that is tried"


@pytest.mark.parametrize(("distance", "fovy_deg"), [(100.0, 50.0), (20.0, 90.0), (2.5, 50.0)])
def test_the_inside_is_255_and_the_background_0_from_any_distance(
    model: Reconstructor, picture: Picture, tmp_path: Path, distance: float, fovy_deg: float
) -> None:
    config = ReconstructionConfig(views=(View(),), size=256, camera_distance=distance, fovy_deg=fovy_deg)
    model.run(picture, config, tmp_path)
    seen = np.asarray(Image.open(tmp_path / "silhouette_000.png"))
    assert seen[0, 0] == 0 and seen.max() == 255
    assert (seen == 0).mean() + (seen == 255).mean() > 0.9


def test_angles_relative_to_the_picture_may_lie_at_the_end_of_their_range(
    model: Reconstructor, picture: Picture, tmp_path: Path
) -> None:
    config = ReconstructionConfig(views=(View(3600, 10),), size=32, frame="input", input_view=View(12, 0))
    model.run(picture, config, tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["frame"] == "input" and result["views"][0]["azimuth_deg"] == 3600
    # the camera's own axis says where it stands: 12 degrees round from +z, 10 above the horizon
    backward = np.array(result["views"][0]["c2w"])[:3, 2]
    azimuth, elevation = np.radians([12, 10])
    expected = [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    np.testing.assert_allclose(backward, expected, atol=1e-5)


def test_turntable_is_a_moving_picture(model: Reconstructor, picture: Picture, tmp_path: Path) -> None:
    model.run(picture, ReconstructionConfig(size=32, outputs=("turntable",)), tmp_path)
    with Image.open(tmp_path / "turntable.gif") as turntable:
        assert (turntable.n_frames, turntable.size) == (24, (128, 128))  # type: ignore[attr-defined]
        turntable.seek(12)
        assert np.asarray(turntable.convert("L")).max() > 100


def missed_a_little() -> tuple[Reconstructor, Looked, Shape]:
    """The served model, a mask of its own kind, and what it makes of it, which does not fit when it is seen from elsewhere."""
    served = Reconstructor.load(WEIGHTS / "default.safetensors", "cpu")
    image = Image.new("RGB", (128, 128))
    ImageDraw.Draw(image).ellipse((30, 50, 98, 78), fill=(180, 180, 90))
    rgb = np.asarray(image)
    looked = served.look(Picture(rgb, rgb.any(axis=2)))
    return served, looked, served.shape(looked, View(0, 40))


def test_refinement_explains_the_picture_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty steps must bring it closer, deterministically."""
    monkeypatch.setattr("sdfsrn.reconstruct.SETTLED_IOU", 1.0)  # whatever is explained already
    served, looked, start = missed_a_little()
    config = ReconstructionConfig(refine_steps=50, seed=4, input_view=start.view)
    moved, again = (served.refined(start, looked, config) for _ in range(2))
    assert torch.equal(moved.latent, again.latent) and not torch.equal(moved.latent, start.latent)
    assert 1 - moved.input_iou < 0.8 * (1 - start.input_iou)


def test_refinement_that_mends_less_than_a_tenth_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps from shapes that are said to explain the mask a little less, or more, than would make a tenth of them."""
    served, looked, start = missed_a_little()
    config = ReconstructionConfig(refine_steps=3, input_view=start.view)
    monkeypatch.setattr("sdfsrn.reconstruct.SETTLED_IOU", 1.0)  # whatever is explained already
    left = 1 - served.refined(dataclasses.replace(start, input_iou=0.0), looked, config).input_iou
    worse, better = (dataclasses.replace(start, input_iou=1 - left / 0.9 + change) for change in (-0.001, 0.001))
    assert served.refined(worse, looked, config).input_iou == pytest.approx(1 - left)
    assert served.refined(better, looked, config) is better


def test_callers_exception_stops_it(tiny_training: TinyTraining, picture: Picture, tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyError("cancelled")

    with pytest.raises(KeyError):
        Reconstructor.load(tiny_training.checkpoint, "cpu").run(picture, ReconstructionConfig(), tmp_path, stop)


@pytest.mark.slow
def test_served_model_makes_a_closed_mesh_of_every_picture(data_folder: Path, tmp_path: Path) -> None:
    if not (WEIGHTS / "default.safetensors").is_file():
        pytest.skip("no default model yet; make weights trains it")
    served = Reconstructor.load(WEIGHTS / "default.safetensors", "cpu")
    for path in sorted((data_folder / "post_images").glob("*.png")):
        config = ReconstructionConfig(size=64, outputs=("silhouettes", "mesh"))
        served.run(read_picture(path.read_bytes()), config, tmp_path / path.stem)
        mesh = trimesh.load(tmp_path / path.stem / "mesh.glb", force="mesh")
        assert mesh.is_watertight, path.name
        assert mesh.volume > 0, path.name


@pytest.mark.parametrize("layer", ["decoder.out.weight", "encoder.head.2.bias"])
def test_a_model_of_no_finite_numbers_is_a_failure(picture: Picture, tmp_path: Path, layer: str) -> None:
    checkpoint = Checkpoint.load(WEIGHTS / "default.safetensors")
    broken = dataclasses.replace(checkpoint, weights=checkpoint.weights | {layer: checkpoint.weights[layer] * float("nan")})
    with pytest.raises(ReconstructionFailed, match="not finite"):
        Reconstructor(broken, torch.device("cpu")).run(picture, ReconstructionConfig(size=32), tmp_path)


@pytest.mark.parametrize(("radius", "warns"), [(0.3, True), (0.0, False)])
def test_half_a_turn_is_told_where_the_shape_is_another_then(radius: float, warns: bool) -> None:
    """A box with a ball on the side that is looked at: its outline is the box's, from behind too."""
    served = Reconstructor.load(WEIGHTS / "default.safetensors", "cpu")

    def sdf(points: torch.Tensor) -> torch.Tensor:
        box = (points.abs() - torch.tensor([0.25, 0.35, 0.35])).amax(-1)
        ball = (points - torch.tensor([0.35, 0.0, 0.0])).norm(dim=-1) - radius
        return torch.minimum(box, ball) if radius else box

    shape = Shape(torch.zeros(1, 1), sdf, GridField(sdf), View(90, 0), 1.0)
    outline = served._silhouette(shape.sdf, shape.grid, shape.view, 256)
    looked = dataclasses.replace(served.look_at(torch.zeros(3, 128, 128, dtype=torch.uint8), outline), seen=None)
    assert served._may_be_turned(shape, looked) is warns
