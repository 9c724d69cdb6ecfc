"""How large an archive's contents are, from headers alone: nothing is decoded. Free of torch.

The API asks before it accepts an archive, for a few seconds; the reader asks before it reads one, about every file.
"""

import math
import re
import struct
import time
from collections.abc import Callable

from sdfsrn.data.archive import Archive, BadDataset, is_camera_file, is_picture
from sdfsrn.images import MAX_BYTES, MAX_PIXELS

MAX_CAMERAS = 64_000_000  # bytes of an archive's files of cameras together
MAX_DECODED = 20_000_000_000  # pixels of an archive's pictures and masks together; all are decoded twice: 20 minutes at worst
_HEADER = 64  # bytes in which a PNG and a WebP say their size
_JPEG_HEADERS = (4_096, 65_536, 1_048_576)  # a JPEG says it after its EXIF data and colour profile
_MAX_MARKERS = 1_000  # a colour profile takes 255 of them
_MARKER = re.compile(rb"\xff+([^\xff])")  # any number of fill bytes may stand before one (ITU-T T.81, B.1.1.2)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF markers (ITU-T T.81, table B.1)
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


def check_sizes(
    archive: Archive,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    skip_bad: bool = False,
    within_s: float = math.inf,
) -> None:
    """Raise BadDataset for an archive that is too large to be read; with `skip_bad` single large pictures do not count.

    After `within_s` seconds of this thread's computing, the pictures that are left are not looked at.
    """
    cameras = sum(map(archive.size, filter(is_camera_file, archive.paths)))
    if cameras > MAX_CAMERAS:
        reason = f"its files of cameras have {cameras} bytes together, at most {MAX_CAMERAS} are accepted"
        raise BadDataset({archive.name: reason}, too_large=True)
    bad: dict[str, str] = {}
    total = 0
    until = time.thread_time() + within_s
    pictures = list(filter(is_picture, archive.paths))
    for i, path in enumerate(pictures):
        if time.thread_time() > until:
            break
        progress(i, len(pictures))
        width, height = picture_size(archive, path)
        if width * height <= MAX_PIXELS:
            total += width * height
        else:
            bad[path] = f"the picture has {width} x {height} pixels, at most {MAX_PIXELS} are accepted"
        if archive.size(path) > MAX_BYTES:
            bad[path] = f"has {archive.size(path)} bytes, at most {MAX_BYTES} are accepted"
    if bad and not skip_bad:
        raise BadDataset(bad, "With skip_bad=true such pictures are left out", too_large=True)
    if total > MAX_DECODED:
        reason = f"its pictures have more than {MAX_DECODED} pixels; send smaller ones, or fewer"
        raise BadDataset({archive.name: reason}, too_large=True)


def picture_size(archive: Archive, path: str) -> tuple[int, int]:
    """Width and height that a picture's header claims; 0, 0 if it is none."""
    try:
        head = archive.start(path, _HEADER)
        if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) >= 24:
            width, height = struct.unpack_from(">2L", head, 16)
            return width, height
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _webp_size(head)
        if head.startswith(b"\xff\xd8"):
            return next((size for count in _JPEG_HEADERS if (size := _jpeg_size(archive.start(path, count)))), (0, 0))
    except (ValueError, struct.error):
        pass
    return 0, 0


def _webp_size(head: bytes) -> tuple[int, int]:
    """Of the three kinds of WebP (RFC 9649, 2.5 to 2.7)."""
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<2H", head, 26)
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Of the first frame (ITU-T T.81, B.2.2); None if it lies beyond `data`, 0, 0 if there will be none."""
    at = 2
    for _ in range(_MAX_MARKERS):
        if at + 9 > len(data):
            return None
        found = _MARKER.match(data, at)
        if found is None:
            return None if data[at] == 0xFF else (0, 0)
        marker, at = found[1][0], found.end()
        if marker in _ALONE:
            continue
        if at + 7 > len(data):
            return None
        if marker in _FRAMES:
            height, width = struct.unpack_from(">2H", data, at + 3)
            return width, height
        at += max(2, int(struct.unpack_from(">H", data, at)[0]))
    return 0, 0
