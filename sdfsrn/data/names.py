"""Which file of an archive a name means that was written on another machine.

The name may have backslashes, another case, another Unicode form, another extension, or a path from the folders of the machine it
was written on. It finds its file when exactly one fits; when several do, none is taken.
"""

import re
import unicodedata
from collections.abc import Iterator
from pathlib import PurePosixPath

from sdfsrn.data.archive import PICTURES, Archive, is_picture


class Ambiguous(ValueError):
    """A name that fits several files."""


class Names:
    """The pictures of an archive, to be found by what others call them."""

    def __init__(self, archive: Archive) -> None:
        self._exact = set(filter(is_picture, archive.paths))
        self._alike: dict[str, set[str]] = {}
        self._named: dict[str, set[str]] = {}
        for path in self._exact:
            for spelt in archive.spellings(path):
                key = _key(str(PurePosixPath(spelt)))
                self._add(self._alike, key, path)
                self._add(self._alike, _without_extension(key), path)
                self._add(self._named, PurePosixPath(_without_extension(key)).name, path)

    @staticmethod
    def _add(index: dict[str, set[str]], key: str, path: str) -> None:
        index.setdefault(key, set()).add(path)

    def find(self, folder: PurePosixPath, name: str) -> str | None:
        """The file that a name in a file of cameras in `folder` means; None if there is none. Raises Ambiguous."""
        parts, leads_out = _parts(folder, name)
        for kept in _shorter(folder, parts, leads_out):
            if found := self.at(kept):
                return found
        return self._anywhere(parts) if leads_out else None

    def at(self, path: str) -> str | None:
        """The file at a path: as it stands, with an extension (NeRF leaves it off), as others spell it, or with another extension.

        Raises Ambiguous.
        """
        for exact in (path, *(path + extension for extension in PICTURES)):
            if exact in self._exact:
                return exact
        key = _key(path)
        for alike in (key, *(key + extension for extension in PICTURES), _without_extension(key)):
            if found := self._alike.get(alike):
                return _only(found)
        return None

    def _anywhere(self, parts: list[str]) -> str | None:
        """The file whose path ends as a strange machine's does, the most of it that fits any."""
        named = self._named.get(PurePosixPath(_without_extension(_key(parts[-1]))).name, set()) if parts else set()
        ends = [_without_extension(_key("/".join(parts[i:]))) for i in range(len(parts))]
        for end in ends:
            if fitting := {path for path in named if f"/{_without_extension(_key(path))}".endswith(f"/{end}")}:
                return _only(fitting)
        return None


def _parts(folder: PurePosixPath, name: str) -> tuple[list[str], bool]:
    """A name's path from the archive's root, and whether it led out of the archive: it is another machine's then."""
    name = name.replace("\\", "/")
    drive = re.match(r"(?:file:)?/*[A-Za-z]:/|(?:file:)?/", name)
    parts = [] if drive else list(folder.parts)
    leads_out = drive is not None
    for part in (name[drive.end() :] if drive else name).split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part == "..":
            leads_out = True
        elif part not in ("", "."):
            parts.append(part)
    return parts, leads_out


def _shorter(folder: PurePosixPath, parts: list[str], leads_out: bool) -> Iterator[str]:
    """The path itself, then from each folder above, then what is left in the folder as the front of it is taken away."""
    if not leads_out:
        yield "/".join(parts)
        if parts[: len(folder.parts)] == list(folder.parts):
            parts = parts[len(folder.parts) :]
            yield from (str(above / "/".join(parts)) for above in folder.parents)
    for i in range(len(parts)):
        yield str(folder / "/".join(parts[i:]))


def _only(found: set[str]) -> str:
    if len(found) > 1:
        raise Ambiguous(f"fits several files, {', '.join(sorted(found)[:3])}; give it the full name of one")
    return next(iter(found))


def _key(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _without_extension(key: str) -> str:
    extension = next((extension for extension in PICTURES if key.endswith(extension)), "")
    return key.removesuffix(extension)
