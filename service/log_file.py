"""The log of a service on one machine: one file that its processes append to, and its warnings on the console.

The processes hold the file itself and no pipe: nothing of what they wrote is lost when their parent is killed, and none of them
waits for a reader.
"""

import contextlib
import re
import sys
import threading
from pathlib import Path
from typing import BinaryIO

PARENT = "service"  # as records name the process that starts the others
MAX_BYTES = 20_000_000  # then the file becomes service.log.1, and the one before that is gone
_LOOK_EVERY_S = 0.2
# the first line of a record, as service.logs writes it: text or JSON
_RECORD = re.compile(
    rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?P<process>.*?) (?P<level>[A-Z]+) "
    rb'|\{"time": "[^"]*", "level": "(?P<json_level>[a-z]+)", "process": "(?P<json_process>[^"]*)"'
)
# the first line of what Valkey and the pool of Celery's processes say in their own ways: of it the console shows nothing
_OF_OTHERS = re.compile(rb"\d+:[A-Z] \d|\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: [A-Z]+/")
_SHOWN = {b"WARNING", b"ERROR", b"CRITICAL"}


class LogFile:
    """`logs/service.log` in the data folder, new at every start; the one of the start before is `service.log.1`."""

    def __init__(self, data: Path) -> None:
        self.path = data / "logs" / "service.log"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            self.path.replace(self._older)
        self.stream: BinaryIO = self.path.open("ab", buffering=0)  # appending, so that processes share it
        self._read_to = 0
        self._is_starting = True
        self._is_shown = False  # whether the record that the last line belongs to was shown
        self._ending = threading.Event()
        self._reader = threading.Thread(target=self._follow, name="log", daemon=True)

    @property
    def _older(self) -> Path:
        return self.path.with_name("service.log.1")

    def follow(self) -> None:
        """From now on write warnings and errors to standard error too: the parent's alone until all is ready.

        While the others start they complain that the broker is not there yet.
        """
        self._reader.start()

    def ready(self) -> None:
        """From now on show those of all processes."""
        self._is_starting = False

    def close(self) -> None:
        """Show what is left and end."""
        self._ending.set()
        if self._reader.is_alive():
            self._reader.join()
        self.stream.close()

    def _follow(self) -> None:
        rest, is_last = b"", False
        while not is_last:
            is_last = self._ending.wait(_LOOK_EVERY_S)
            *lines, rest = (rest + self._new_bytes()).split(b"\n")
            for line in lines:
                self._show(line)

    def _new_bytes(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self._read_to)
            found = file.read()
            self._read_to += len(found)
            return found + self._cut(file) if self._read_to > MAX_BYTES else found

    def _cut(self, file: BinaryIO) -> bytes:
        """Move what the file holds into the older one; what was written meanwhile.

        The file's writers append, and go on at its new end. What they write between the two system calls of the last reading and
        the cut is lost: some microseconds, every 20 MB.
        """
        file.seek(0)
        with contextlib.suppress(OSError):  # a full disk needs the room more than the old lines
            self._older.write_bytes(file.read(self._read_to))
        late = file.read()
        self.stream.truncate(0)
        self._read_to = 0
        with contextlib.suppress(OSError), self._older.open("ab") as older:
            older.write(late)
        return late

    def _show(self, line: bytes) -> None:
        record = _RECORD.match(line)
        if record:
            process = record["process"] or record["json_process"]
            level = record["level"] or record["json_level"].upper()
            self._is_shown = level in _SHOWN and (process == PARENT.encode() or not self._is_starting)
        elif _OF_OTHERS.match(line):
            self._is_shown = False
        if self._is_shown and line.strip():
            with contextlib.suppress(OSError):  # the terminal may be gone
                sys.stderr.buffer.write(line + b"\n")
                sys.stderr.flush()
