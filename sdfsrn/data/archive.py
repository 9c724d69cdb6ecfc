"""Zip files from strangers: every name is checked, members are read into memory under limits, and nothing is ever unpacked.

Free of torch: the API looks at an archive's list of members before it accepts it.
"""

import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO

from sdfsrn.images import MAX_BYTES

MAX_MEMBERS = 65_000
MAX_DIRECTORY = 32_000_000  # bytes of the list of members, which is read whole before anything can be counted
MAX_REPORTED = 200
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_END = struct.Struct("<4s4H2LH")  # the record at a zip's end (APPNOTE.TXT 4.3.16)
_ZIP64_END = struct.Struct("<4sQ2H2L4Q")  # the one with 64-bit numbers, which goes before it (4.3.14)
_ZIP64_LOCATOR_BYTES = 20  # between the two (4.3.15)
_IS_UTF8 = 0x800  # the flag of a name that is UTF-8 (appendix D)
_OTHER_ENCODINGS = ("gb18030", "cp932", "cp1252")  # of names without it, as Windows writes them in China, Japan and Europe
_HIDDEN = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


class BadDataset(ValueError):
    """A data set that cannot be used; `files` says what is wrong with each bad file, by name.

    `advice` is said once, after the first of them; `too_large` tells whether size is the reason.
    """

    def __init__(self, files: dict[str, str], advice: str = "", *, too_large: bool = False) -> None:
        self.files = dict(list(files.items())[:MAX_REPORTED])
        self.advice = advice
        self.too_large = too_large
        first, reason = next(iter(files.items()))
        more = f"; {len(files) - 1} more files are bad" if len(files) > 1 else ""
        super().__init__(f"{first}: {reason}{more}" + (f". {advice}" if advice else ""))


@dataclass(frozen=True)
class _Directory:
    members: int
    bytes: int


class Archive:
    """The files of a zip by path, `paths` all of them, sorted; paths have / and no `.` whatever the zip has.

    Takes a path, or an open file and the name to call it by. Raises BadDataset for one that is no zip or has members of unsafe
    names or kinds.
    """

    def __init__(self, source: Path | BinaryIO, name: str = "") -> None:
        self.name = name or (source.name if isinstance(source, Path) else "archive.zip")
        self._opened = source.open("rb") if isinstance(source, Path) else None
        try:
            self._open(self._opened or source)  # type: ignore[arg-type]
        except BaseException:
            self._close()
            raise

    def _open(self, file: BinaryIO) -> None:
        directory = self._directory(file)
        if directory.members > MAX_MEMBERS or directory.bytes > MAX_DIRECTORY:
            raise self._too_many()
        file.seek(0)
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise BadDataset({self.name: f"is not a readable zip file: {error}"}) from error
        if len(self._zip.infolist()) > MAX_MEMBERS:  # whatever the record at the end says
            raise self._too_many()
        members = [member for member in self._zip.infolist() if not member.filename.endswith(("/", "\\"))]
        if bad := dict(_bad_members(members)):
            raise BadDataset(bad)
        self._members = {_path(member): member for member in members if not _is_hidden(_path(member))}
        if not self._members:
            raise BadDataset({self.name: "holds no files"})
        self.paths = sorted(self._members)
        self._folders: dict[PurePosixPath, list[str]] = {}
        for path in self.paths:
            self._folders.setdefault(PurePosixPath(path).parent, []).append(path)

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._zip.close()
        self._close()

    def _close(self) -> None:
        if self._opened:
            self._opened.close()

    def folder(self, path: PurePosixPath) -> list[str]:
        """The files that lie in a folder itself, sorted; none if there is no such folder."""
        return self._folders.get(path, [])

    def __contains__(self, path: str) -> bool:
        return path in self._members

    def size(self, path: str) -> int:
        """How many bytes a file has by the list of members; `read` gives no more."""
        return self._members[path].file_size

    def spellings(self, path: str) -> set[str]:
        """All that a path may stand for: a zip without the flag for UTF-8 does not say how its names are written."""
        member = self._members[path]
        return {path, *(name.replace("\\", "/") for name in _spellings(member))}

    def read(self, path: str, limit: int = MAX_BYTES) -> bytes:
        """The bytes of a file. Raises ValueError if it is damaged or longer than `limit`, whatever its header says."""
        if self.size(path) > limit:
            raise ValueError(f"has {self.size(path)} bytes, at most {limit} are accepted")
        data = self.start(path, limit + 1)
        if len(data) > limit:
            raise ValueError(f"is longer than {limit} bytes")
        return data

    def start(self, path: str, count: int) -> bytes:
        """The first bytes of a file, at most `count`. Raises ValueError if it is damaged."""
        try:
            with self._zip.open(self._members[path]) as member:
                return member.read(count)
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, zlib.error, struct.error) as error:
            raise ValueError(f"cannot be unpacked: {error}") from error

    def _directory(self, file: BinaryIO) -> _Directory:
        """What the record at the end says, by the numbers that Python's zipfile will go by."""
        file.seek(0, 2)
        size = file.tell()
        start = max(0, size - _ZIP64_END.size - _ZIP64_LOCATOR_BYTES - _END.size - 65_535)
        file.seek(start)
        tail = file.read()
        at = tail.rfind(b"PK\5\6")
        if at < 0 or len(tail) - at < _END.size:
            raise BadDataset({self.name: "is not a zip file, or the end of it is missing; send a zip"})
        *_, members, directory, _, _ = _END.unpack_from(tail, at)
        locator, record = at - _ZIP64_LOCATOR_BYTES, at - _ZIP64_LOCATOR_BYTES - _ZIP64_END.size
        if locator < 0 or tail[locator : locator + 4] != b"PK\6\7":
            return _Directory(members, directory)
        if record < 0 or tail[record : record + 4] != b"PK\6\6":
            raise BadDataset({self.name: "is a damaged zip64 file: the record of its 64-bit numbers is not where it must be"})
        *_, members, directory, _ = _ZIP64_END.unpack_from(tail, record)
        return _Directory(members, directory)

    def _too_many(self) -> BadDataset:
        return BadDataset(
            {self.name: f"holds more than {MAX_MEMBERS} files; send them as several data sets"}, too_large=True
        )


def is_picture(path: str) -> bool:
    """Whether a file is a picture by its name."""
    return path.lower().endswith(PICTURES)


def is_camera_file(path: str) -> bool:
    """Whether a file holds cameras by its name."""
    return bool(re.fullmatch(r"transforms\w*\.json|cameras\w*\.npz", PurePosixPath(path).name))


def _bad_members(members: list[zipfile.ZipInfo]) -> Iterator[tuple[str, str]]:
    often = Counter(_path(member) for member in members)
    for member in members:
        name = member.orig_filename.replace("\\", "/")  # as it was sent, what stands behind a zero byte included
        path = PurePosixPath(name)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if not path.parts:
            yield ascii(member.orig_filename), "names no file"
        elif path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            yield ascii(member.orig_filename), "leads out of the archive; names must be relative and without .."
        elif any(not character.isprintable() for spelt in (name, _path(member)) for character in spelt):
            yield ascii(member.orig_filename), "has unprintable characters in its name"
        elif kind not in (0, stat.S_IFREG):
            yield _path(member), "is a link or a device; send plain files"
        elif often[_path(member)] > 1:
            yield _path(member), f"stands {often[_path(member)]} times in the archive"
        elif reason := _unreadable(member):
            yield _path(member), reason


def _unreadable(member: zipfile.ZipInfo) -> str:
    """Why a file that would be read cannot be; whatever else lies in the archive may be as it likes."""
    path = _path(member)
    if _is_hidden(path) or not (is_picture(path) or is_camera_file(path)):
        return ""
    if member.flag_bits & 1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that is not read; use deflate, the usual one"
    return ""


def _path(member: zipfile.ZipInfo) -> str:
    """Where a file lies: with /, without `.`, and its name read as UTF-8 if it can be."""
    return str(PurePosixPath(next(_spellings(member)).replace("\\", "/")))


def _spellings(member: zipfile.ZipInfo) -> Iterator[str]:
    """A name as each way of writing it reads it, the one to show first; zipfile takes code page 437 unless a flag says UTF-8."""
    if member.flag_bits & _IS_UTF8 or member.filename.isascii():
        yield member.filename
        return
    written = member.filename.encode("cp437")
    try:
        yield written.decode()  # text of another encoding is hardly ever UTF-8 as well
        return
    except UnicodeDecodeError:
        yield member.filename
    for encoding in _OTHER_ENCODINGS:
        with suppress(UnicodeDecodeError):
            yield written.decode(encoding)


def _is_hidden(path: str) -> bool:
    return any(part in _HIDDEN or part.startswith("._") for part in PurePosixPath(path).parts)
