"""The few things that are asked of Docker and its compose, whichever of the two spellings is installed."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

# process 1 is docker's own init, which ends when its only child does; this program's parent is none of the container's
_KILL_MAIN_PROGRAM = r"""
import os, pathlib
for status in pathlib.Path("/proc").glob("[0-9]*/status"):
    if "\nPPid:\t1\n" in status.read_text():
        os.kill(int(status.parent.name), 9)
"""
ROOT = Path(__file__).parents[2]


class NoEngineError(RuntimeError):
    """There is no Docker engine to run on, or no compose to run with; the message says what to do."""


def find_compose() -> list[str]:
    """The compose command of this machine; raises NoEngineError unless it and an engine are there."""
    if not shutil.which("docker"):
        raise NoEngineError("there is no `docker` command; install Docker, or run the service without it: make up")
    engine = subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True)
    if engine.returncode != 0:
        place = os.environ.get("DOCKER_HOST", "the local socket")
        why = engine.stderr.strip()
        raise NoEngineError(f"no Docker engine answers at {place}; start one, or set DOCKER_HOST\n{why}")
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            return command
    raise NoEngineError("there is neither `docker compose` nor `docker-compose`")


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """One run of docker-compose.yml, beside whatever else runs: a project name and a port of its own."""

    def __init__(self, command: list[str], project: str, port: int) -> None:
        self._command = [*command, "--project-name", project, "--file", str(ROOT / "docker-compose.yml")]
        self._project = project
        self._environment = {**os.environ, "SDFSRN_PORT": str(port)}

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run a compose command and give back what it said; CalledProcessError with that output if it failed."""
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT,
            env=self._environment,
            check=check,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return done.stdout

    def inside(self, service: str, *command: str, check: bool = True) -> str:
        """Run a command in a running container of the service."""
        return self.compose("exec", "-T", service, *command, check=check).strip()

    def crash(self, service: str) -> None:
        """End the program in every container of a service as the kernel would; their restart policy is what brings them back."""
        restarts = {each: _restarts(each) for each in self.compose("ps", "-q", service).split()}
        for container in restarts:
            # the program that kills may end with the container, and then says so
            subprocess.run(["docker", "exec", container, "python", "-c", _KILL_MAIN_PROGRAM], capture_output=True)
        deadline = time.monotonic() + 30
        while any(_restarts(container) == before for container, before in restarts.items()):
            assert time.monotonic() < deadline, f"{service} was not started again"
            time.sleep(0.2)

    def health(self, service: str) -> str:
        """`healthy`, `starting`, `unhealthy`, or `running` where nothing is checked."""
        state = "{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}"
        return docker("inspect", "--format", state, self.compose("ps", "-q", service).split()[-1])

    def limits(self, service: str) -> tuple[int, int]:
        """Bytes of memory and number of processes that a container may have; 0 or less where there is no limit."""
        limits = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"
        memory, processes = docker("inspect", "--format", limits, self.compose("ps", "-q", service).split()[-1]).split()
        return int(memory), int(processes)

    def leftovers(self) -> list[str]:
        """Containers, networks and volumes that still bear the project's name."""
        label = f"label=com.docker.compose.project={self._project}"
        listings = (["ps", "--all"], ["network", "ls"], ["volume", "ls"])
        return [line for listing in listings for line in docker(*listing, "--quiet", "--filter", label).split()]


def docker(*arguments: str) -> str:
    """Run a docker command and give back what it said."""
    return subprocess.run(["docker", *arguments], check=True, text=True, capture_output=True).stdout.strip()


def _restarts(container: str) -> int:
    return int(docker("inspect", "--format", "{{.RestartCount}}", container))
