"""`python -m service`: everything on one machine — broker, keeper, a worker per queue, and the HTTP server.

All state lies in one folder. Every child ends when this process ends, however it ends.
"""

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import BinaryIO

import httpx

from service import broker, lifeline, logs
from service.log_file import PARENT, LogFile
from service.queue import DATASET, RECONSTRUCTION, TRAINING
from service.serve import listen
from service.settings import Settings, read_settings

READY_WITHIN_S = 180
SLOW_AFTER_S = 30  # then it is said what is waited for
STOP_WITHIN_S = 12  # a training hears of it within two seconds, and writes its checkpoint
_log = logging.getLogger(__name__)


@dataclass
class Child:
    """One process of the service, started again when it dies, ever later."""

    name: str
    command: list[str]
    pass_fds: tuple[int, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None
    failures: int = 0
    started_at: float = 0.0

    def start(self, environment: dict[str, str], output: BinaryIO) -> None:
        """Start it in a process group of its own: Ctrl-C is for the parent, who ends its children in order."""
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self.command],
            env=environment,
            pass_fds=self.pass_fds,
            process_group=0,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    def due(self) -> bool:
        """Whether it has died and has waited long enough to be started again."""
        if self.process is None or self.process.poll() is None:
            return False
        age = time.monotonic() - self.started_at
        if age > 60:
            self.failures = 0
        return age > min(30.0, 2.0**self.failures)


@dataclass
class Stack:
    """The processes of the service, in the order in which they start; they end in the opposite one."""

    environment: dict[str, str]
    children: list[Child]
    log: LogFile
    ending: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Start them all."""
        for child in self.children:
            child.start(self.environment, self.log.stream)

    def restart_dead(self) -> None:
        """Start again what died."""
        for child in self.children:
            if child.due():
                assert child.process is not None
                code = child.process.returncode
                _log.warning("%s ended with code %s, starting it again; %s may say why", child.name, code, self.log.path)
                child.failures += 1
                child.start(self.environment, self.log.stream)

    def stop(self) -> None:
        """End them: the API and the workers while the broker still answers, the broker last."""
        for group in (self.children[1:], self.children[:1]):
            for child in group:
                if child.process and child.process.poll() is None:
                    child.process.terminate()
            deadline = time.monotonic() + STOP_WITHIN_S
            for child in group:
                _end(child, deadline)


def main() -> None:
    """Start everything, say where it is, and stay until told to end."""
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__)
    parser.add_argument("--host", help="interface to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8000; 0 takes one that is free)")
    parser.add_argument(
        "--run",
        nargs=argparse.REMAINDER,
        metavar="CMD",
        help="run this command with SDFSRN_URL set when all is ready, then end with its code",
    )
    arguments = parser.parse_args()
    given = {name: value for name in ("host", "port") if (value := getattr(arguments, name)) is not None}
    settings = read_settings(**given)
    sys.exit(run(settings, arguments.run))


def run(settings: Settings, command: list[str] | None) -> int:
    """Run the service; the exit code."""
    lock = broker.lock(settings.data)
    if not settings.redis_url:
        broker.prepare(settings)
    listener = listen(settings)
    url = _url(listener)
    log = LogFile(settings.data)
    logs.configure(PARENT, settings.log, log.path)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stack = Stack(_environment(settings), _children(settings, listener), log)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stack.ending.set())
    print(f"data folder: {settings.data}\nlog:         {log.path}\naddress:     {url}", flush=True)
    print(f"starting:    {', '.join(child.name for child in stack.children)} (10 to 60 s)", flush=True)
    try:
        log.follow()
        stack.start()
        if not _wait_ready(stack, url):
            return 1 if not stack.ending.is_set() else 0
        log.ready()
        if not command:
            print("Ctrl-C ends the service. Its page, for a browser:", flush=True)
        print(f"ready:       {url}/", flush=True)
        return _accompany(stack, command, url) if command else _stay(stack)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _ignore)
        stack.stop()
        log.close()
        listener.close()
        lock.close()


def _children(settings: Settings, listener: socket.socket) -> list[Child]:
    own_broker = [] if settings.redis_url else [Child("broker", ["service.broker"])]
    return [
        *own_broker,
        Child("api", ["service.serve", "--fd", str(listener.fileno())], pass_fds=(listener.fileno(),)),
        Child("keeper", ["service.keeper"]),
        # Each may use all cores; niceness says who goes first (docs/cores.md): pictures, then data sets, then trainings.
        Child("reconstruction worker", ["worker", "--queue", RECONSTRUCTION]),
        Child("training worker", ["worker", "--queue", TRAINING, "--nice", "10"]),
        Child("dataset worker", ["worker", "--queue", DATASET, "--nice", "5"]),
    ]


def _environment(settings: Settings) -> dict[str, str]:
    return lifeline.child_environment(SDFSRN_DATA=str(settings.data), SDFSRN_HOST=settings.host, PYTHONUNBUFFERED="1")


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _wait_ready(stack: Stack, url: str) -> bool:
    """Wait until everything answers; where that takes long, say what is missing whenever that changes."""
    started, said = time.monotonic(), ""
    deadline = started + READY_WITHIN_S
    while not stack.ending.wait(0.1) and time.monotonic() < deadline:
        stack.restart_dead()
        missing = _missing(url)
        if not missing:
            return True
        if missing != said and time.monotonic() - started > SLOW_AFTER_S:
            print(f"waiting for: {missing}", flush=True)
            said = missing
    if not stack.ending.is_set():
        print(
            f"not ready after {READY_WITHIN_S} s, giving up; still missing: {said}; the log says why: {stack.log.path}",
            file=sys.stderr,
            flush=True,
        )
    return False


def _missing(url: str) -> str:
    try:
        answer = httpx.get(f"{url}/readyz", timeout=5, headers={"Host": "localhost"}, trust_env=False)
        # workers and keeper do not decide what /readyz answers, but nothing is done without them
        missing = [name.replace("_", " ") for name, state in answer.json().items() if state != "ok" and name != "uploads"]
    except (httpx.HTTPError, ValueError):
        return "api"
    return ", ".join(missing)


def _stay(stack: Stack) -> int:
    while not stack.ending.wait(0.5):
        stack.restart_dead()
    return 0


def _accompany(stack: Stack, command: list[str], url: str) -> int:
    """Run the command beside the service; its exit code, 130 if the service was told to end first."""
    try:
        process = subprocess.Popen(
            command, env={**os.environ, "SDFSRN_URL": url}, preexec_fn=lifeline.kernel_signal_on_parent_death
        )
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    while process.poll() is None:
        if stack.ending.wait(0.2):
            process.terminate()
            process.wait()
            return 130
        stack.restart_dead()
    return process.returncode


def _end(child: Child, deadline: float) -> None:
    if child.process is None:
        return
    try:
        child.process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        child.process.kill()
        child.process.wait()


def _ignore(_: int, __: FrameType | None) -> None:
    """A second Ctrl-C does not keep the first from ending things in order."""


if __name__ == "__main__":
    main()
