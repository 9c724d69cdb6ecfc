"""Zip files from strangers: every name is checked, members are read into memory under limits, and nothing is ever unpacked."""

import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import TracebackType

from sdfsrn.images import MAX_BYTES

MAX_MEMBERS = 65_000
MAX_DIRECTORY = 32_000_000  # bytes of the list of members, which is read whole before anything can be counted
MAX_REPORTED = 200
_END = struct.Struct("<4s4H2LH")  # the record at a zip's end (APPNOTE.TXT 4.3.16)
_ZIP64_LOCATOR_BYTES = 20  # right before it, if there is one (4.3.15)
_HIDDEN = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


class BadDataset(ValueError):
    """A data set that cannot be used; `files` says what is wrong with each bad file, by name."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = dict(list(files.items())[:MAX_REPORTED])
        first, reason = next(iter(files.items()))
        more = f"; {len(files) - 1} more files are bad" if len(files) > 1 else ""
        super().__init__(f"{first}: {reason}{more}")


class Archive:
    """The files of a zip by path, `paths` all of them, sorted.

    Raises BadDataset for one that is no zip or has members of unsafe names or kinds.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        _check_directory(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise BadDataset({path.name: f"is not a readable zip file: {error}"}) from error
        if len(self._zip.infolist()) > MAX_MEMBERS:  # whatever the record at the end says
            raise _too_many(path)
        members = [member for member in self._zip.infolist() if not member.filename.endswith("/")]
        if bad := dict(_bad_members(members)):
            raise BadDataset(bad)
        self._members = {member.filename: member for member in members if not _is_hidden(member.filename)}
        if not self._members:
            raise BadDataset({path.name: "holds no files"})
        self.paths = sorted(self._members)
        self._folders: dict[PurePosixPath, list[str]] = {}
        for name in self.paths:
            self._folders.setdefault(PurePosixPath(name).parent, []).append(name)

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._zip.close()

    def folder(self, path: PurePosixPath) -> list[str]:
        """The files that lie in a folder itself, sorted; none if there is no such folder."""
        return self._folders.get(path, [])

    def __contains__(self, path: str) -> bool:
        return path in self._members

    def size(self, path: str) -> int:
        """How many bytes a file has by the list of members; `read` gives no more."""
        return self._members[path].file_size

    def read(self, path: str, limit: int = MAX_BYTES) -> bytes:
        """The bytes of a file. Raises ValueError if it is damaged or longer than `limit`, whatever its header says."""
        try:
            with self._zip.open(self._members[path]) as member:
                data = member.read(limit + 1)
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, zlib.error) as error:
            raise ValueError(f"cannot be unpacked: {error}") from error
        if len(data) > limit:
            raise ValueError(f"is longer than {limit} bytes")
        return data


def _check_directory(path: Path) -> None:
    with path.open("rb") as opened:
        opened.seek(max(0, path.stat().st_size - _ZIP64_LOCATOR_BYTES - _END.size - 65_535))
        tail = opened.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise BadDataset({path.name: "is not a zip file"})
    *_, members, directory, _, _ = _END.unpack_from(tail, at)
    if tail[max(0, at - _ZIP64_LOCATOR_BYTES) :].startswith(b"PK\6\7"):  # to a record whose numbers would count instead of these
        raise BadDataset({path.name: f"is a zip64 file, which only more than {MAX_MEMBERS} files or 4 GB need; write it without"})
    if members > MAX_MEMBERS or directory > MAX_DIRECTORY:
        raise _too_many(path)


def _too_many(path: Path) -> BadDataset:
    return BadDataset({path.name: f"holds more than {MAX_MEMBERS} files; send them as several data sets"})


def _bad_members(members: list[zipfile.ZipInfo]) -> Iterator[tuple[str, str]]:
    often = Counter(member.filename for member in members)
    for member in members:
        name = member.orig_filename  # as it was sent, backslashes included
        path = PurePosixPath(name)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if not path.parts:
            yield ascii(name), "names no file"
        elif "\\" in name or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            yield ascii(name), "leads out of the archive; names must be relative, with /, and without .."
        elif any(not character.isprintable() for character in name):
            yield ascii(name), "has unprintable characters in its name"
        elif kind not in (0, stat.S_IFREG):
            yield name, "is a link or a device; send plain files"
        elif often[member.filename] > 1:
            yield name, f"stands {often[member.filename]} times in the archive"
        elif member.flag_bits & 1:
            yield name, "is encrypted"
        elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            yield name, "is compressed in a way that is not read; use deflate, the usual one"
        elif member.file_size > MAX_BYTES:
            yield name, f"has {member.file_size} bytes, at most {MAX_BYTES} are accepted"


def _is_hidden(name: str) -> bool:
    return any(part in _HIDDEN or part.startswith("._") for part in PurePosixPath(name).parts)
