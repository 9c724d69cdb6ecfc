"""Data sets of one's own: one object through NeRF's and IDR's files, zips that mean harm, and what bad files are told."""

import io
import json
import math
import stat
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdfsrn.config import SdfSrnConfig, SyntheticData
from sdfsrn.data.archive import MAX_MEMBERS, Archive, BadDataset
from sdfsrn.data.cameras_npz import read_cameras_npz
from sdfsrn.data.captures import contact_sheet, read_captures
from sdfsrn.data.dataset import open_dataset, save_dataset
from sdfsrn.data.sizes import check_sizes
from sdfsrn.data.synthetic import make_scenes
from sdfsrn.data.transforms_json import read_transforms
from sdfsrn.geometry.bounds import unit_sphere_interval
from sdfsrn.geometry.cameras import pixel_rays
from sdfsrn.geometry.primitives import KINDS, Primitives, intersect
from sdfsrn.images import mask_circle
from sdfsrn.training.sdf_srn import train

Y_UP_TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
FLIP = np.diag([1.0, -1.0, -1.0])
BOX = Primitives(torch.tensor([[1.2, 0.8, 0.5]]), torch.tensor([KINDS.index("box")]))  # larger than the unit sphere
SIZE, FOVY = 200, 40.0


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def _poses() -> torch.Tensor:
    """Cameras on a sphere of radius 6 that look past the origin, and are rolled."""
    generator = torch.Generator().manual_seed(3)
    poses = []
    for i in range(6):
        direction = torch.nn.functional.normalize(torch.randn(3, generator=generator), dim=0)
        place = direction * (5.0 + 0.4 * i)
        target = 0.15 * torch.randn(3, generator=generator)
        backward = torch.nn.functional.normalize(place - target, dim=0)
        right = torch.nn.functional.normalize(torch.linalg.cross(torch.randn(3, generator=generator), backward), dim=0)
        pose = torch.eye(4)
        pose[:3] = torch.stack([right, torch.linalg.cross(backward, right), backward, place], dim=-1)
        poses.append(pose)
    return torch.stack(poses)


def _photos() -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Poses, pictures and masks of one box, exact."""
    poses = _poses()
    rays_o, rays_d = pixel_rays(poses, FOVY, SIZE)
    hit, _, normal = intersect(BOX[torch.zeros(6, dtype=torch.long)], rays_o, rays_d)
    colours = ((0.5 + 0.5 * normal) * hit[..., None] * 255).round().to(torch.uint8)
    return poses, colours.view(-1, SIZE, SIZE, 3).numpy(), hit.view(-1, SIZE, SIZE).numpy()


def _nerf_files() -> dict[str, bytes]:
    poses, pictures, masks = _photos()
    frames, files = [], {}
    for i, pose in enumerate(poses.double().numpy()):
        pose[:3] = Y_UP_TO_Z_UP @ pose[:3]
        frames.append({"file_path": f"./train/r_{i}", "transform_matrix": pose.tolist()})
        files[f"box/train/r_{i}.png"] = _png(np.dstack([pictures[i], masks[i].astype(np.uint8) * 255]))
    files["box/transforms.json"] = json.dumps({"camera_angle_x": math.radians(FOVY), "frames": frames}).encode()
    return files


def _npz(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _idr_files(*, normalised: bool = False) -> dict[str, bytes]:
    """As IDR writes them, or DVR; the object's frame is a third of the world's and the sign of half the matrices turned."""
    poses, pictures, masks = _photos()
    focal = SIZE / 2 / math.tan(math.radians(FOVY) / 2)
    intrinsic = np.array([[focal, 0, SIZE / 2], [0, focal, SIZE / 2], [0, 0, 1]])
    arrays, files = {}, {}
    for i, pose in enumerate(poses.double().numpy()):
        world = np.eye(4)
        rotation = FLIP @ pose[:3, :3].T
        world[:3, :3], world[:3, 3] = rotation / 3, -rotation @ pose[:3, 3]
        world[:3] = world[:3] if normalised else intrinsic @ world[:3] * (-1) ** i
        arrays[f"world_mat_{i}"] = world
        arrays[f"scale_mat_{i}"] = np.diag([3.0, 3, 3, 1])
        if normalised:
            tangent = math.tan(math.radians(FOVY) / 2)
            arrays[f"camera_mat_{i}"] = np.diag([1 / tangent, 1 / tangent, 1, 1])
        files[f"image/{i:06d}.png"] = _png(pictures[i])
        files[f"mask/{i:03d}.png"] = _png(masks[i].astype(np.uint8) * 255)
    return files | {"cameras.npz": _npz(arrays)}


def _zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("files", [_nerf_files, _idr_files, lambda: _idr_files(normalised=True)], ids=["nerf", "idr", "dvr"])
def test_warped_pictures_are_those_of_cameras_that_look_at_the_origin(
    tmp_path: Path, files: Callable[[], dict[str, bytes]]
) -> None:
    """Against the same box, scaled as reported, drawn by ray casting from the new cameras."""
    found = read_captures(_zip(tmp_path / "box.zip", files()))
    report, views = found.report, found.views
    assert (report["objects"], report["pictures"], report["unused"]) == (1, 6, [])
    scale = report["scale"]
    corner = float(BOX.half_extents.norm())
    assert 0.9 < scale * corner <= 1.0, "it fills the unit sphere"
    small = Primitives(BOX.half_extents * scale, BOX.kind)
    rays_o, rays_d = pixel_rays(views.c2w, views.fovy_deg, views.size)
    truth = intersect(small[torch.zeros(6, dtype=torch.long)], rays_o, rays_d)[0].view(views.masks.shape)
    assert ((truth == views.masks).float().mean(dim=(1, 2)) > 0.99).all()
    union, both = (truth | views.masks).sum(dim=(1, 2)), (truth & views.masks).sum(dim=(1, 2))
    assert (both / union).min() > 0.95
    assert not (views.masks.flatten(1) & ~unit_sphere_interval(rays_o, rays_d)[2]).any()
    assert (views.tiles[:, :, [0, -1]] == 0).all(), "the background is black"
    assert contact_sheet(views).size == (6 * 64, 64)


def _ball_files(width: int, height: int, kind: str) -> dict[str, bytes]:
    """A ball at the origin, off centre in the picture and near its border; cameras in pixels of that picture."""
    focal, centre_x, centre_y = 1.2 * width, 0.56 * width, 0.46 * height
    place = np.array([0.3, 0.1, 4.0])
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(column - centre_x) / focal, -(row - centre_y) / focal, -np.ones_like(row)])
    cosine = np.einsum("i,ihw->hw", -place, rays) / np.linalg.norm(rays, axis=0) / np.linalg.norm(place)
    ball = np.sin(np.arccos(cosine)) * np.linalg.norm(place) < 1
    picture = _png(np.dstack([np.full((height, width, 3), 200), ball * 255]).astype(np.uint8))
    pose = np.eye(4)
    pose[:3, 3] = place
    if kind == "idr":
        intrinsic = np.array([[focal, 0, centre_x], [0, focal, centre_y], [0, 0, 1]])
        world = np.eye(4)
        world[:3] = intrinsic @ np.column_stack([FLIP, -FLIP @ place])
        return {"image/0.png": picture, "cameras.npz": _npz({"world_mat_0": world})}
    pose[:3] = Y_UP_TO_Z_UP @ pose[:3]
    frame = {"file_path": "view", "transform_matrix": pose.tolist()}
    camera = {"fl_x": focal, "cx": centre_x, "cy": centre_y}
    return {"view.png": picture, "transforms.json": json.dumps({**camera, "frames": [frame]}).encode()}


@pytest.mark.parametrize("kind", ["idr", "nerf"])
@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[(512, 512), (1024, 1024), (1600, 1600), (2048, 2048)], [(512, 384), (1600, 1200), (901, 2003)]])
def test_cameras_in_pixels_are_those_of_the_picture_as_it_was_sent(tmp_path: Path, kind: str, sizes: list[tuple[int, int]]) -> None:
    """Large pictures are reduced when they are read; the same ball must come out whatever its picture's size."""
    small, *others = (read_captures(_zip(tmp_path / "ball.zip", _ball_files(*size, kind))) for size in sizes)
    x, y, radius = mask_circle(small.views.masks[0].numpy())
    assert (x, y) == pytest.approx((32, 32), abs=0.3), "the camera looks at the origin, where the ball is"
    for found in others:
        assert found.report["fovy_deg"] == pytest.approx(small.report["fovy_deg"], rel=0.005)
        assert found.report["scale"] == pytest.approx(small.report["scale"], rel=0.005)
        assert mask_circle(found.views.masks[0].numpy()) == pytest.approx((x, y, radius), abs=0.15)
        assert (found.views.masks != small.views.masks).float().mean() < 0.01


def test_the_chair_through_two_kinds_of_files_is_one_chair(data_folder: Path, tmp_path: Path) -> None:
    """NeRF's own cameras against the independently written OpenCV ones of the same photographs."""
    mv_chair = data_folder / "mv_chair"
    document = json.loads((mv_chair / "transforms_train.original.json").read_text())
    listed = json.loads((mv_chair / "cameras.json").read_text())["views"][:8]
    stems = [Path(view["image"]).stem for view in listed]
    frames = {Path(frame["file_path"]).name: frame for frame in document["frames"]}
    document["frames"] = [{**frames[stem], "file_path": f"image/{stem}"} for stem in stems]
    pictures = {f"image/{stem}.png": (mv_chair / "image" / f"{stem}.png").read_bytes() for stem in stems}
    nerf = read_captures(_zip(tmp_path / "nerf.zip", {"transforms.json": json.dumps(document).encode(), **pictures}))
    arrays, files = {}, {}
    for i, view in enumerate(listed):
        world = np.eye(4)
        world[:3] = np.array(view["K"]) @ np.column_stack([np.array(view["R"]) @ Y_UP_TO_Z_UP, view["t"]])
        arrays[f"world_mat_{i}"] = world
        files[f"image/{i}.png"] = pictures[f"image/{stems[i]}.png"]
    idr = read_captures(_zip(tmp_path / "idr.zip", files | {"cameras.npz": _npz(arrays)}))
    torch.testing.assert_close(nerf.views.c2w, idr.views.c2w, atol=1e-4, rtol=0)
    assert (nerf.views.masks == idr.views.masks).float().mean() > 0.9999
    assert nerf.report["scale"] == pytest.approx(idr.report["scale"], rel=1e-4)


@pytest.mark.slow
def test_a_training_on_many_objects_of_one_view(tmp_path: Path) -> None:
    """The synthetic pictures, packed as strangers would, train as their masks say; the truth is not known, and so not reported."""
    scenes = make_scenes(SyntheticData(n_shapes=4, seed=9))
    pictures = scenes.photographs(torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(4, -1), 128)
    files = {}
    for i in range(4):
        rgba = np.dstack([pictures[i].rgb, pictures[i].mask.astype(np.uint8) * 255])
        pose = scenes.c2w[i].double().numpy()
        pose[:3] = Y_UP_TO_Z_UP @ pose[:3]
        files[f"shape{i}/view.png"] = _png(rgba)
        frame = {"file_path": "view.png", "transform_matrix": pose.tolist()}
        files[f"shape{i}/transforms.json"] = json.dumps({"camera_angle_x": math.radians(50), "frames": [frame]}).encode()
    found = read_captures(_zip(tmp_path / "shapes.zip", files))
    assert found.report["objects"] == 4
    save_dataset(found.views, found.subjects, tmp_path / "views.safetensors")
    dataset = open_dataset(tmp_path / "views.safetensors")
    assert dataset.names == ("shape0", "shape1", "shape2", "shape3") and dataset.digest == found.report["digest"]
    report = train(
        SdfSrnConfig(epochs=3, hidden_dim=32, batch_size=2), tmp_path / "views.safetensors", tmp_path / "out", device="cpu"
    )
    assert report["novel_view_iou"] is None and report["n_shapes"] == 4 and report["input_iou"] > 0.2
    assert (tmp_path / "out" / "novel_views.png").is_file()


def _with_names(tmp_path: Path, names: list[str]) -> Path:
    path = tmp_path / "names.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo()
            info.filename = name  # as it stands: the constructor would tidy it up
            archive.writestr(info, b"x")
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["../up.png"], "leads out"),
        (["a/../../up.png"], "leads out"),
        (["/etc/passwd"], "leads out"),
        (["C:/windows.png"], "leads out"),
        (["a\\..\\b.png"], "leads out"),
        (["a.png", "a.png"], "2 times"),
        ([".", "a.png"], "names no file"),
        (["", "a.png"], "names no file"),
        (["a\n.png"], "unprintable"),
        (["a\u202egnp.exe"], "unprintable"),
    ],
)
def test_names_that_lead_astray_are_refused(tmp_path: Path, names: list[str], reason: str) -> None:
    with pytest.raises(BadDataset, match=reason):
        Archive(_with_names(tmp_path, names))


def test_links_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "link.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("innocent.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(BadDataset, match="link"):
        Archive(path)


def test_bombs_are_refused_before_they_go_off(tmp_path: Path) -> None:
    big = _zip(tmp_path / "big.zip", {"zeros.png": bytes(30_000_000)})
    with Archive(big) as archive, pytest.raises(BadDataset, match="at most"):
        check_sizes(archive)
    with Archive(big) as archive, pytest.raises(ValueError, match="at most"):
        archive.read("zeros.png")
    # a header that lies: 30 MB said to be 100 bytes, in the member and in the directory
    lying = bytearray(big.read_bytes())
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = lying.find(signature) + offset
        lying[at : at + 4] = (100).to_bytes(4, "little")
    (tmp_path / "lying.zip").write_bytes(lying)
    with Archive(tmp_path / "lying.zip") as archive, pytest.raises(ValueError, match=r"cannot be unpacked|longer"):
        archive.read("zeros.png")
    # one member, a million times in the directory
    data = bytearray(_zip(tmp_path / "one.zip", {"a.png": b"x"}).read_bytes())
    start = data.find(b"PK\1\2")
    end = data.find(b"PK\5\6")
    entry = bytes(data[start:end])
    record = bytearray(data[end:])
    count = 1_000_000
    record[8:12] = (0xFFFF).to_bytes(2, "little") * 2
    record[12:16] = (len(entry) * count).to_bytes(4, "little")
    (tmp_path / "many.zip").write_bytes(bytes(data[:start]) + entry * count + bytes(record))
    with pytest.raises(BadDataset, match="holds more than"):
        Archive(tmp_path / "many.zip")


def test_what_a_small_end_record_hides_is_counted(tmp_path: Path) -> None:
    """Zip64's record, which Python's zipfile prefers, says more files than the usual one; and either may lie."""
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for i in range(MAX_MEMBERS + 600):
            archive.writestr(f"{i}", b"")
    data = bytearray(many.getvalue())
    end = len(data) - 22
    assert data[end - 20 : end - 16] == b"PK\6\7", "so many need zip64"
    directory = int.from_bytes(data[end - 76 + 40 : end - 76 + 48], "little")
    data[end + 8 : end + 16] = (1).to_bytes(2, "little") * 2 + (60).to_bytes(4, "little")
    (tmp_path / "zip64.zip").write_bytes(data)
    with pytest.raises(BadDataset, match="holds more than"):
        Archive(tmp_path / "zip64.zip")
    (tmp_path / "damaged.zip").write_bytes(data[: end - 76] + b"xx" + data[end - 74 :])
    with pytest.raises(BadDataset, match="damaged zip64"):
        Archive(tmp_path / "damaged.zip")
    start = int.from_bytes(data[end - 76 + 48 : end - 76 + 56], "little")
    data[end + 12 : end + 20] = directory.to_bytes(4, "little") + start.to_bytes(4, "little")
    (tmp_path / "lying.zip").write_bytes(data[: end - 76] + data[end:])
    with pytest.raises(BadDataset, match="holds more than"):
        Archive(tmp_path / "lying.zip")


def test_an_archive_has_a_limit_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = _nerf_files()
    monkeypatch.setattr("sdfsrn.data.sizes.MAX_DECODED", 6 * SIZE**2)
    assert read_captures(_zip(tmp_path / "box.zip", files)).report["pictures"] == 6
    document = json.loads(files["box/transforms.json"])
    document["frames"][2]["mask_path"] = "mask.png"
    files["box/transforms.json"] = json.dumps(document).encode()
    files["box/mask.png"] = files["box/train/r_2.png"]
    with pytest.raises(BadDataset, match="more than 240000 pixels"):
        read_captures(_zip(tmp_path / "box.zip", files))


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip at all", b"PK\5\6" + bytes(10)])
def test_what_is_no_zip_is_said_to_be_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "no.zip").write_bytes(data)
    with pytest.raises(BadDataset, match="zip"):
        Archive(tmp_path / "no.zip")


def test_every_bad_file_is_named(tmp_path: Path) -> None:
    files = _nerf_files()
    files["box/train/r_1.png"] = b"no picture"
    files["box/train/r_3.png"] = _png(np.full((SIZE, SIZE, 4), 255, dtype=np.uint8))
    cut = np.zeros((SIZE, SIZE, 4), dtype=np.uint8)
    cut[:100] = 255
    files["box/train/r_4.png"] = _png(cut)
    del files["box/train/r_5.png"]
    with pytest.raises(BadDataset) as caught:
        read_captures(_zip(tmp_path / "bad.zip", files))
    assert list(caught.value.files) == ["box/train/r_5"], "first what is missing"
    document = json.loads(files["box/transforms.json"])
    document["frames"].pop()
    files["box/transforms.json"] = json.dumps(document).encode()
    with pytest.raises(BadDataset) as caught:
        read_captures(_zip(tmp_path / "bad.zip", files))
    assert list(caught.value.files) == ["box/train/r_1.png", "box/train/r_3.png", "box/train/r_4.png"]
    assert "cut off" in caught.value.files["box/train/r_4.png"] and "2 more" in str(caught.value)


def _at(z: float, focal: float = 1.0) -> np.ndarray:
    matrix = np.diag([focal, focal, 1.0, 1.0])
    matrix[2, 3] = z
    return matrix


def _posed(matrix: np.ndarray) -> dict[str, Any]:
    return {"frames": [{"file_path": "a", "transform_matrix": matrix.tolist()}]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"frames": 3}, "list `frames`"),
        ({"is_fisheye": "yes"}, "is_fisheye must be true or false"),
        ({"camera_angle_x": "wide"}, "must be a number"),
        ({"camera_angle_x": -1}, "camera_angle_x must be a number from"),
        ({"camera_angle_x": 0}, "camera_angle_x must be a number from"),
        ({"camera_angle_x": math.pi}, "focal lengths"),
        ({"camera_angle_x": 4}, "looks like degrees"),
        ({"fl_x": 10**400}, "fl_x must be a number from"),
        ({"fl_x": 500, "fl_y": -500}, "fl_y must be a number from"),
        ({"fl_x": 500, "w": 0}, "w must be a number from"),
        ({"fl_x": 500, "h": 0}, "h must be a number from"),
        ({"cx": float("nan")}, "cx must be a number from"),
        ({"camera_angle_x": None, "fl_x": None}, "no focal length"),
        ({"frames": [{"file_path": "a", "transform_matrix": [[1, 2], [3, 4]]}]}, "transform_matrix must be 4 x 4"),
        ({"frames": [{"file_path": "a", "transform_matrix": np.diag([2, 1, 2, 1]).tolist()}]}, "scales its axes differently"),
        ({"frames": [{"file_path": "a", "transform_matrix": np.diag([0, 0, 0, 1]).tolist()}]}, "scales its axes differently"),
        ({"frames": [{"file_path": 7, "transform_matrix": np.eye(4).tolist()}]}, "must be texts"),
        ({"frames": [{"transform_matrix": np.eye(4).tolist()}]}, "frame 0: file_path"),
        ({"frames": [{"file_path": "a"}]}, "no pose"),
        (_posed(_at(1e300)), r"the camera is 1e\+300 from the origin"),
        (_posed(np.full((4, 4), np.nan)), "finite numbers"),
        (_posed(np.array([[10**400] * 4] * 4, dtype=object)), "transform_matrix must be 4 x 4"),
    ],
)
def test_bad_transforms_are_explained(change: dict[str, Any], reason: str) -> None:
    good = {"camera_angle_x": 0.7, **_posed(_at(3))}
    assert len(read_transforms(json.dumps(good).encode())) == 1
    with pytest.raises(ValueError, match=reason):
        read_transforms(json.dumps(good | change).encode())


@pytest.mark.slow
def test_what_a_document_says_besides_costs_its_frames_nothing() -> None:
    """Else each of many thousand frames would carry a copy of it."""
    junk = {f"junk{i}": 0 for i in range(100_000)}
    pose = np.eye(4)
    pose[2, 3] = 3
    frames = [{"file_path": f"{i}.png", "transform_matrix": pose.tolist()} for i in range(1000)]
    spent = []
    for besides in ({}, junk):
        document = json.dumps({"camera_angle_x": 0.7, **besides, "frames": frames}).encode()
        start = time.thread_time()
        assert len(read_transforms(document)) == 1000
        spent.append(time.thread_time() - start)
    assert spent[1] < 3 * spent[0] + 0.5, "a copy for each takes a hundred times as long"
    with pytest.raises(ValueError, match="at most 65000"):
        read_transforms(json.dumps({"frames": [{}] * 65_001}).encode())


def test_bad_camera_arrays_are_explained() -> None:
    for arrays, reason in (
        ({"other": np.eye(4)}, "no world_mat_0"),
        ({"world_mat_0": np.eye(5)}, "4 x 4"),
        ({"world_mat_0": np.full((4, 4), np.nan)}, "finite"),
        ({"world_mat_0": np.zeros((4, 4))}, "cannot be inverted"),
        ({"world_mat_0": _at(-5, 100), "scale_mat_0": np.eye(4)}, "behind the camera"),
        ({"world_mat_0": _at(0, 100), "scale_mat_0": np.eye(4)}, "behind the camera"),
        ({"world_mat_0": _at(3)}, "none of pixels"),
        ({"world_mat_0": _at(1e29, 100)}, r"world_mat_0: the camera is 1e\+29 from the origin"),
        ({"world_mat_0": np.full((4, 4), np.inf)}, "finite"),
        ({"world_mat_0": _at(3, 100), "scale_mat_0": _at(3) * 1e200}, r"1e\+30"),
        ({"world_mat_0": np.diag([1, 1, 1e-200, 1])}, "cannot be inverted"),
        ({"world_mat_0": np.diag([1e20, 1, 1, 1]) @ _at(3)}, "focal lengths"),
        ({"world_mat_0": np.array([{"a": 1}], dtype=object)}, "world_mat_0"),
    ):
        with pytest.raises(ValueError, match=reason):
            read_cameras_npz(_npz(arrays))


def test_a_matrix_that_claims_to_be_huge_is_not_believed() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000), }"
        archive.writestr("world_mat_0.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match="4 x 4"):
        read_cameras_npz(buffer.getvalue())


@pytest.mark.parametrize("header", [b"{[]: 1}", b"-" * 3000 + b"1", b"(", b"\xff", b"{'descr': 7, 'fortran_order': 1, 'shape': 4}"])
def test_headers_of_arrays_may_be_anything(header: bytes) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("world_mat_0.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match="4 x 4"):
        read_cameras_npz(buffer.getvalue())


def test_numbers_of_cameras_may_be_padded() -> None:
    assert list(read_cameras_npz(_npz({"world_mat_000": _at(3, 100), "world_mat_001": _at(3, 100)}))) == [0, 1]


def test_a_damaged_file_of_cameras_is_named(tmp_path: Path) -> None:
    files = _idr_files()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, world_mat_0=np.random.default_rng(0).random((4, 4)))
    damaged = bytearray(buffer.getvalue())
    start = damaged.find(b".npy") + 24
    damaged[start : start + 40] = b"\xff" * 40
    with pytest.raises(BadDataset, match=r"cameras\.npz: is not a readable npz"):
        read_captures(_zip(tmp_path / "bad.zip", files | {"cameras.npz": bytes(damaged)}))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("world_mat_0.npy", bytes(1000))
    with pytest.raises(BadDataset, match=r"cameras\.npz: is not a readable npz"):
        read_captures(_zip(tmp_path / "bad.zip", files | {"cameras.npz": buffer.getvalue()}))


@pytest.mark.parametrize("focal", [1e5, 1e7, 1e9])
def test_cameras_that_see_next_to_nothing_are_named(tmp_path: Path, focal: float) -> None:
    picture = np.zeros((64, 64, 4), dtype=np.uint8)
    picture[29:35, 29:35] = 255
    pose = [[0, 0, 1, 4], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    document = {"fl_x": focal, "frames": [{"file_path": "view.png", "transform_matrix": pose}]}
    with pytest.raises(BadDataset, match="expected at most 100") as caught:
        read_captures(_zip(tmp_path / "narrow.zip", {"transforms.json": json.dumps(document).encode(), "view.png": _png(picture)}))
    assert list(caught.value.files) == ["view.png"]
