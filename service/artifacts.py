"""The artifact store: files under keys, in a local folder or at any URL that fsspec knows.

A key is `jobs/{job id}/{fence}/{name}`. The fence keeps two workers apart that both believe to own a job; nothing is
ever renamed from one fence to another, because object stores cannot.
"""

import errno
import hashlib
import math
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypedDict

import fsspec
from fsspec.implementations.local import LocalFileSystem

_CHUNK = 1 << 20
PROBE_HOLDS_S = 2.0
PROBE_WITHIN_S = 5.0
# What is left free on a local disk, in bytes and as a share of all: a broker that cannot write ends.
SPARED, SPARED_SHARE = 512_000_000, 0.05
NEARLY_FULL = "the disk of the artifact store is nearly full: its operator must make room before anything is stored"
_LOOKED_AHEAD = 16 << 20  # bytes for which the disk is asked at once
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StorageError(OSError):
    """The store cannot be reached or written; `errno` is the system's reason, where it gave one."""

    def __init__(self, message: str, reason: int | None = None) -> None:
        super().__init__(message)
        self.errno = reason

    @property
    def full(self) -> bool:
        """Whether there is no room for a file: until somebody makes some, it is of no use to ask again."""
        return self.errno in _NO_ROOM


class Stored(TypedDict):
    """One file in the store."""

    key: str
    bytes: int
    sha256: str


def job_prefix(job_id: str) -> str:
    """Where everything of a job lies."""
    return f"jobs/{job_id}"


def job_key(job_id: str, fence: int | str, name: str) -> str:
    """Where a file of one claim of a job lies."""
    return f"{job_prefix(job_id)}/{fence}/{name}"


class Artifacts:
    """Put, read, list and remove files by key; what goes wrong is a StorageError, what is not there a FileNotFoundError."""

    def __init__(self, url: str) -> None:
        # other processes write too: a listing holds for no longer than it takes to read it
        self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        self._probing = threading.Lock()
        self._probe_began, self._probed_at, self._probe_found = math.inf, -math.inf, ""

    def put(self, key: str, data: bytes) -> Stored:
        """Store bytes; they are on disk when this returns."""
        return self._store(key, [data])

    def put_file(self, key: str, path: Path) -> Stored:
        """Store a local file; it is on disk when this returns."""
        with path.open("rb") as source:
            return self.put_stream(key, source)

    def put_stream(self, key: str, source: BinaryIO) -> Stored:
        """Store what is left of an open file; it is on disk when this returns."""
        return self._store(key, iter(lambda: source.read(_CHUNK), b""))

    def read(self, key: str) -> bytes:
        """All bytes of a file; FileNotFoundError if there is none."""
        with _translated(f"cannot read {key}", FileNotFoundError):
            return bytes(self._fs.cat_file(self._path(key)))

    def chunks(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of a file from `start` to before `end`, in pieces; it is opened before the first piece is asked for."""
        with _translated(f"cannot read {key}", FileNotFoundError):
            source = self._fs.open(self._path(key), "rb")

        def pieces() -> Iterator[bytes]:
            with _translated(f"cannot read {key}", FileNotFoundError), source:
                source.seek(start)
                left = end - start if end is not None else None
                while chunk := source.read(_CHUNK if left is None else min(_CHUNK, left)):
                    left = None if left is None else left - len(chunk)
                    yield chunk

        return pieces()

    def fetch(self, key: str, path: Path, going_on: Callable[[], None] = lambda: None) -> str:
        """Copy a file from the store to a local path; its SHA-256. `going_on` is called after each piece, and may raise."""
        digest = hashlib.sha256()
        with path.open("wb") as target:
            for chunk in self.chunks(key):
                digest.update(chunk)
                target.write(chunk)
                going_on()
        return digest.hexdigest()

    def job_ids(self) -> list[str]:
        """The jobs that have anything in the store."""
        with _translated("cannot list jobs"), suppress(FileNotFoundError):
            return [Path(str(path)).name for path in self._fs.ls(self._path("jobs"), detail=False)]
        return []

    def keys(self, job_id: str) -> list[str]:
        """The keys of everything a job has in the store."""
        return self.keys_under(job_prefix(job_id))

    def keys_under(self, prefix: str) -> list[str]:
        """The keys of everything in a folder of the store."""
        root = self._root.lstrip("/")
        with _translated(f"cannot list {prefix}"), suppress(FileNotFoundError):
            return [str(path).lstrip("/")[len(root) + 1 :] for path in self._fs.find(self._path(prefix))]
        return []

    def age_s(self, key: str) -> float:
        """Seconds since a file was written; 0 if it is gone."""
        with _translated(f"cannot look at {key}"), suppress(FileNotFoundError):
            modified = self._fs.modified(self._path(key))
            return float((datetime.now(UTC) - modified.astimezone(UTC)).total_seconds())
        return 0.0

    def remove(self, key: str) -> None:
        """Remove a file, if it is there."""
        with _translated(f"cannot remove {key}"), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    def remove_job(self, job_id: str) -> None:
        """Remove everything of a job."""
        with _translated(f"cannot remove job {job_id}"), suppress(FileNotFoundError):
            self._fs.rm(self._path(job_prefix(job_id)), recursive=True)

    def probe(self) -> None:
        """Write and remove a small file; raises StorageError if the store does not work.

        One at a time: what it finds holds for two seconds, and while the next one is under way, unless that takes too long.
        """
        # of the first one there is nothing to remember yet: whoever asks meanwhile waits for it
        wait_s = 0.0 if self._probed_at > -math.inf else PROBE_WITHIN_S
        if self._probe_is_old() and self._probing.acquire(timeout=wait_s):
            try:
                if self._probe_is_old():
                    self._probe_began = time.monotonic()
                    self._probe_found = self._probe()
                    self._probed_at = time.monotonic()
            finally:
                self._probe_began = math.inf
                self._probing.release()
        if time.monotonic() - self._probe_began >= PROBE_WITHIN_S:
            raise StorageError(f"the store does not answer: it was asked more than {PROBE_WITHIN_S:g} s ago")
        if self._probe_found:
            raise StorageError(self._probe_found)

    def has_room(self, size: int = 0) -> bool:
        """Whether so many bytes more leave enough of the disk free; where there is no local folder, or not yet, they do."""
        if not self._local or not Path(self._root).is_dir():
            return True
        disk = shutil.disk_usage(self._root)
        return disk.free - size >= min(SPARED, disk.total * SPARED_SHARE)

    def _probe_is_old(self) -> bool:
        return time.monotonic() - self._probed_at > PROBE_HOLDS_S

    def _probe(self) -> str:
        key = f"probe/{uuid.uuid4().hex}"
        try:
            with _translated("cannot store a probe"):
                self._write(key, [b"probe"])  # on a nearly full disk, too: they are gone at once
            self.remove(key)
        except StorageError as error:
            return str(error)
        return ""

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _store(self, key: str, chunks: Iterable[bytes]) -> Stored:
        digest, size, room = hashlib.sha256(), 0, 0

        def seen() -> Iterator[bytes]:
            nonlocal size, room
            for chunk in chunks:
                if size + len(chunk) > room:
                    room = size + max(len(chunk), _LOOKED_AHEAD)
                    if not self.has_room(room - size):
                        raise StorageError(f"cannot store {key}: {NEARLY_FULL}", errno.ENOSPC)
                digest.update(chunk)
                size += len(chunk)
                yield chunk

        with _translated(f"cannot store {key}"):
            self._write(key, seen())
        return {"key": key, "bytes": size, "sha256": digest.hexdigest()}

    def _write(self, key: str, chunks: Iterable[bytes]) -> None:
        if self._local:
            _write_durably(Path(self._path(key)), chunks)
            return
        target = self._fs.open(self._path(key), "wb")
        try:
            for chunk in chunks:
                target.write(chunk)
        except BaseException:
            target.closed = True  # else what there is would be stored as the file is closed, or forgotten
            target.discard()
            raise
        target.close()


@contextmanager
def _translated(what: str, *known: type[Exception]) -> Iterator[None]:
    """Whatever a store raises, but what is `known`, as a StorageError: botocore's errors are not even OSErrors."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (StorageError, *known)):
            raise
        raise StorageError(f"{what}: {error}", getattr(error, "errno", None)) from error


def _write_durably(path: Path, chunks: Iterable[bytes]) -> None:
    """Temporary name, fsync, replace, fsync of the folder: a reader sees the whole file or none, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("wb") as target:
            for chunk in chunks:
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
