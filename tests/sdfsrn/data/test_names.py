"""Names as other machines write them, and zips as other programs do: the file is found when exactly one fits."""

import io
import json
import struct
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdfsrn.data.archive import Archive, BadDataset
from sdfsrn.data.shots import find_shots
from sdfsrn.data.sizes import check_sizes, picture_size
from tests.sdfsrn.data.scene import CAMERAS, INTRINSICS, frames, grey, nerf, noise, rgba, silhouette, worst_iou, write
from tests.sdfsrn.data.scene import read as read_set

Name = Callable[[int], str]


def _found(path: Path) -> dict[str, int]:
    """Which picture of an archive gets which camera."""
    with Archive(path) as archive:
        shots, bad = find_shots(archive)
    if bad:
        raise BadDataset(bad)
    places = [camera[:3, 3] for camera in CAMERAS]
    return {shot.image: int(np.argmin([np.linalg.norm(shot.camera.place - place) for place in places])) for shot in shots}


@pytest.mark.parametrize(
    ("name", "stored", "folder"),
    [
        (lambda i: f"./train/r_{i}", lambda i: f"train/r_{i}.png", ""),
        (lambda i: f"images\\frame_{i:05d}.png", lambda i: f"images/frame_{i:05d}.png", ""),
        (lambda i: f"images/frame_{i:05d}.png", lambda i: f"images\\frame_{i:05d}.png", ""),
        (lambda i: f"../images/{i}.png", lambda i: f"scan/images/{i}.png", "scan/sparse/"),
        (lambda i: f"./../scan/images/{i}.png", lambda i: f"scan/images/{i}.png", "scan/"),
        (lambda i: f"images/{i}.png", lambda i: f"scan/images/{i}.png", "scan/sparse/"),
        (lambda i: f"data/nerf/fox/images/{i}.png", lambda i: f"fox/images/{i}.png", "fox/"),
        (lambda i: f"C:\\Users\\me\\spoon\\DJI_{i:04d}.png", lambda i: f"DJI_{i:04d}.png", ""),
        (lambda i: f"/home/me/spoon/images/{i:04d}.png", lambda i: f"images/{i:04d}.png", ""),
        (lambda i: f"/home/me/spoon/images/{i:04d}.png", lambda i: f"pictures/images/{i:04d}.png", "cameras/"),
        (lambda i: f"images/IMG_{i:04d}", lambda i: f"images/IMG_{i:04d}.PNG", ""),
        (lambda i: f"images/IMG_{i:04d}.PNG", lambda i: f"images/IMG_{i:04d}.png", ""),
        (lambda i: f"Images/img_{i:04d}.jpg", lambda i: f"images/IMG_{i:04d}.png", ""),
        (lambda i: f"images//{i:04d}.png", lambda i: f"images/{i:04d}.png", ""),
        (lambda i: f"train/frame_0361.png{i:04d}.png", lambda i: f"train/frame_0361.png{i:04d}.png", ""),
        (lambda i: f"train/{i:04d}.png", lambda i: f"train/{i:04d}.png.png", ""),
        (
            lambda i: unicodedata.normalize("NFC", f"images/théière {i}.png"),
            lambda i: unicodedata.normalize("NFD", f"images/théière {i}.png"),
            "",
        ),
    ],
)
def test_names_find_their_file_when_one_fits(tmp_path: Path, name: Name, stored: Name, folder: str) -> None:
    files = nerf(name=name, stored=stored, folder=folder, picture=lambda mask: b"x")
    expected = {str(stored(i)).replace("\\", "/"): i for i in range(6)}
    assert _found(write(tmp_path / "set.zip", files)) == expected


def test_names_that_fit_several_files_or_none_are_said(tmp_path: Path) -> None:
    files = nerf(name=lambda i: f"/home/me/{i}.png", stored=lambda i: f"a/{i}.png", folder="c/", picture=lambda mask: b"x")
    with pytest.raises(BadDataset, match=r"fits several files, a/2.png, b/2.png"):
        _found(write(tmp_path / "set.zip", files | {"b/2.png": b"x"}))
    files = nerf(name=lambda i: f"test/{i}.png", stored=lambda i: f"train/{i}.png", picture=lambda mask: b"x")
    with pytest.raises(BadDataset, match=r"test/0.png: is named by transforms.json and not in the archive"):
        _found(write(tmp_path / "set.zip", files))
    files["transforms_test.json"] = files.pop("transforms.json")
    with pytest.raises(BadDataset, match=r"named by transforms_test.json and not"):
        _found(write(tmp_path / "set.zip", files))


def test_a_backup_that_says_the_same_is_no_second_camera(tmp_path: Path) -> None:
    files = nerf(picture=lambda mask: b"x")
    files["transforms_backup.json"] = files["transforms.json"]
    assert list(_found(write(tmp_path / "set.zip", files)).values()) == list(range(6))
    files["transforms_backup.json"] = json.dumps({**INTRINSICS, "frames": frames(cameras=CAMERAS[::-1])}).encode()
    with pytest.raises(BadDataset, match=r"named by transforms.json and again by transforms_backup.json"):
        _found(write(tmp_path / "set.zip", files))
    other = {**INTRINSICS, "fl_x": 120.0}
    files["transforms_backup.json"] = json.dumps({**other, "frames": frames()}).encode()
    with pytest.raises(BadDataset, match="with another camera"):
        _found(write(tmp_path / "set.zip", files))


@pytest.mark.parametrize("masks", ["masks/{:04d}.png", "mask/{:04d}.png", "masks/{:04d}.png.png"])
def test_masks_beside_the_pictures_are_used(tmp_path: Path, masks: str) -> None:
    """nerfstudio's and COLMAP's conventions; the file of cameras says nothing of them."""
    files = nerf(picture=noise)
    files |= {masks.format(i): grey(silhouette(camera)) for i, camera in enumerate(CAMERAS)}
    found = read_set(tmp_path, files)
    assert worst_iou(found) > 0.97 and found.report["unused"] == []
    del files[masks.format(3)]
    with pytest.raises(BadDataset, match=r"images/0003.png: has no mask"):
        read_set(tmp_path, files)


def _raw_zip(files: dict[str, bytes], encoding: str = "utf-8", *, zip64: bool = False, streamed: bool = False) -> bytes:
    """As programs write that Python's zipfile is not: names without the flag for UTF-8, zip64 and data descriptors throughout."""
    out, directory = bytearray(), bytearray()
    for name, data in files.items():
        written, crc, at, flags = name.encode(encoding), zlib.crc32(data), len(out), 8 if streamed else 0
        size = 0xFFFFFFFF if zip64 else len(data)
        sizes = struct.pack("<HHQQ", 1, 16, len(data), len(data)) if zip64 else b""
        head = (0, 0, 0) if streamed and not zip64 else (0 if streamed else crc, size, size)
        extra = struct.pack("<HHQQ", 1, 16, 0, 0) if streamed and zip64 else sizes
        out += struct.pack("<4s5H3L2H", b"PK\3\4", 45 if zip64 else 20, flags, 0, 0, 33, *head, len(written), len(extra))
        out += written + extra + data
        if streamed:
            out += struct.pack("<4sLQQ" if zip64 else "<4s3L", b"PK\7\10", crc, len(data), len(data))
        directory += struct.pack(
            *("<4s6H3L5H2L", b"PK\1\2", 0x31E, 45 if zip64 else 20, flags, 0, 0, 33, crc, size, size),
            *(len(written), len(sizes), 0, 0, 0, 0o100644 << 16, at),
        )
        directory += written + sizes
    start, count = len(out), len(files)
    out += directory
    if zip64:
        record = len(out)
        out += struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), start)
        out += struct.pack("<4sLQL", b"PK\6\7", 0, record, 1)
        out += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    else:
        out += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), start, 0)
    return bytes(out)


@pytest.mark.parametrize(("zip64", "streamed"), [(True, False), (True, True), (False, True)])
def test_small_zip64_and_streamed_archives_are_read(tmp_path: Path, zip64: bool, streamed: bool) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(_raw_zip(nerf(picture=lambda mask: b"x"), zip64=zip64, streamed=streamed))
    assert len(_found(path)) == 6
    with Archive(path) as archive:
        assert archive.read("images/0000.png") == b"x"


@pytest.mark.parametrize(("encoding", "word"), [("utf-8", "été"), ("gbk", "椅子"), ("cp932", "椅子"), ("cp1252", "été")])
def test_names_without_the_flag_for_utf_8_are_found(tmp_path: Path, encoding: str, word: str) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(_raw_zip(nerf(name=lambda i: f"images/{word} {i}.png", picture=lambda mask: b"x"), encoding))
    assert sorted(_found(path).values()) == list(range(6))


def test_a_self_extracting_archive_is_read_and_an_inner_one_named(tmp_path: Path) -> None:
    inner = _raw_zip(nerf(picture=lambda mask: b"x"))
    (tmp_path / "self.zip").write_bytes(b"MZ" + bytes(100) + inner)
    assert len(_found(tmp_path / "self.zip")) == 6
    with pytest.raises(BadDataset, match=r"data.zip: is an archive within the archive"):
        _found(write(tmp_path / "outer.zip", {"data.zip": inner}))


def test_what_is_not_read_may_be_as_it_likes(tmp_path: Path) -> None:
    """A large model, or a database, beside the pictures."""
    path = write(tmp_path / "set.zip", nerf(picture=lambda mask: b"x"))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("colmap/database.db", bytes(30_000_000))
        archive.writestr("notes.txt", b"x", zipfile.ZIP_LZMA)
    assert len(_found(path)) == 6
    with Archive(path) as archive:
        check_sizes(archive)


def test_sizes_are_known_without_decoding(tmp_path: Path) -> None:
    """Against Pillow's own files of every kind, a JPEG's size behind a long profile included."""
    from PIL import Image

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8))
    files = {}
    for name, options in {
        "a.png": {},
        "b.jpg": {},
        "c.jpg": {"progressive": True, "icc_profile": bytes(300_000)},
        "d.webp": {},
        "e.webp": {"lossless": True},
        "f.webp": {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"},
    }.items():
        buffer = io.BytesIO()
        picture.save(buffer, {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[name.split(".")[1]], **options)
        files[name] = buffer.getvalue()
    with Archive(write(tmp_path / "sizes.zip", files | {"g.png": b"no picture", "h.jpg": b"\xff\xd8"})) as archive:
        assert {path: picture_size(archive, path) for path in archive.paths} == dict.fromkeys(files, (53, 37)) | {
            "g.png": (0, 0),
            "h.jpg": (0, 0),
        }


def test_large_pictures_are_refused_by_their_headers(tmp_path: Path) -> None:
    big = bytearray(rgba(silhouette(CAMERAS[0])))
    big[16:24] = struct.pack(">2L", 10_000, 10_000)
    with Archive(write(tmp_path / "big.zip", nerf() | {"images/0004.png": bytes(big)})) as archive:
        with pytest.raises(BadDataset, match=r"images/0004.png: the picture has 10000 x 10000") as caught:
            check_sizes(archive)
        assert caught.value.too_large
        check_sizes(archive, skip_bad=True)


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (b"\xff\xd8" + b"\xff" * 70 + b"\xe0\0\4ab" + b"\xff" * 9 + b"\xc0\0\x11\x08\0\x25\0\x35", (53, 37)),
        (b"\xff\xd8" + b"\xff" * 3_000_000, (0, 0)),
        (b"\xff\xd8" + b"\xff\xe0\0\2" * 750_000, (0, 0)),
        (b"\xff\xd8" + b"\xff\xd0" * 1_500_000, (0, 0)),
    ],
    ids=["fill bytes", "nothing else", "short segments", "markers alone"],
)
def test_a_jpeg_that_says_nothing_for_long_takes_no_time(tmp_path: Path, head: bytes, size: tuple[int, int]) -> None:
    with Archive(write(tmp_path / "set.zip", {"a.jpg": head})) as archive:
        picture_size(archive, "a.jpg")
        started = time.thread_time()
        assert picture_size(archive, "a.jpg") == size
        assert time.thread_time() - started < 0.05


def test_a_look_at_sizes_ends_in_time_and_reports_its_progress(tmp_path: Path) -> None:
    big = bytearray(rgba(silhouette(CAMERAS[0])))
    big[16:24] = struct.pack(">2L", 10_000, 10_000)
    told: list[tuple[int, int]] = []
    with Archive(write(tmp_path / "big.zip", {"a.png": b"", "b.png": bytes(big)})) as archive:
        check_sizes(archive, within_s=-1.0)
        with pytest.raises(BadDataset):
            check_sizes(archive, lambda done, total: told.append((done, total)), within_s=60.0)
    assert told == [(0, 2), (1, 2)]
