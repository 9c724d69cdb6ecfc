"""Build the compose stack, use it over HTTP, kill what it is made of, replace it in place, and take it down again.

`python -m tests.deploy [--scale N]`, N containers of the workers for pictures and for trainings.

It needs a Docker engine (DOCKER_HOST, or a local one) and runs beside any other stack, on a port of its own. Whatever
happens, containers and volumes are removed at the end; the images stay, so that the next build is short.
"""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx

from tests.deploy import checks
from tests.deploy.compose import NoEngineError, Stack, find_compose, free_port

PROJECT = "sdfsrn-deploy-test"
SILHOUETTES = [f"silhouette_{i:03d}.png" for i in range(6)]


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """One line of the summary: what was done, and how long it took."""
    print(f"{what} ... ", end="", flush=True)
    began = time.monotonic()
    yield
    print(f"ok, {time.monotonic() - began:.1f} s", flush=True)


def scenario(stack: Stack, client: httpx.Client, scale: int) -> None:
    """From nothing to a stack that has lost its workers, its API and its broker, and was replaced, and has gone on."""
    up = ["up", "--detach", *(f"--scale={worker}={scale}" for worker in ("worker-reconstruction", "worker-training"))]
    with step("build the images"):
        stack.compose("build")
    with step("start, until every container is healthy and the service ready"):
        stack.compose(*up)
        checks.wait_until(lambda: checks.ready(client), 180, "the service is ready")
        checks.wait_until(lambda: all(stack.health(name) == "healthy" for name in checks.SERVICES), 60, "all are healthy")
    with step("no root, read-only, no capabilities, limits, no torch in the API, loopback only, durable and guarded broker"):
        for service in checks.SERVICES:
            checks.hardened(stack, service)
            checks.bounded(stack, service)
        checks.without_torch(stack)
        checks.published_on_loopback_only(stack)
        checks.durable_broker(stack)
        checks.guarded_broker(stack)
        client.get("/static/swagger-ui-bundle.js").raise_for_status()
    with step("reconstruct an image: six silhouettes and a mesh"):
        picture = checks.reconstruct(client, outputs='["silhouettes", "mesh"]')
        before = checks.artifacts(client, picture["id"])
        checks.contains(before, "mesh.glb", "contact_sheet.png", "result.json", *SILHOUETTES)
    with step("train for a few epochs"):
        training = checks.finished(client, checks.start_training(client, epochs=6)["id"])
        checkpoint = checks.artifacts(client, training["id"])
        checks.contains(checkpoint, "checkpoint.safetensors", "evaluation.json", "metrics.jsonl", "loss.png")
    with step("reconstruct with the model just trained"):
        checks.reconstruct(client, model=f"job:{training['id']}", outputs="silhouettes")
    with step("upload a data set of 75 MB, and train on it"):
        dataset = checks.upload(client)
        checks.finished(client, checks.start_training(client, epochs=4, dataset={"type": "uploaded", "id": dataset["id"]})["id"])
    crashed(stack, client)
    broker_lost(stack, client, picture, before)
    replaced(stack, client, up)
    with step("stop and start everything: the volumes keep it"):
        stack.compose("down")
        stack.compose(*up)
        checks.wait_until(lambda: checks.ready(client), 180, "the service is ready")
        assert checks.artifacts(client, training["id"]) == checkpoint


def crashed(stack: Stack, client: httpx.Client) -> None:
    """Crash the workers and the API under their work; the engine starts them again, and every job ends well."""
    for service in ("worker-training", "worker-reconstruction", "api"):
        with step(f"crash {service} under a training and five pictures"):
            jobs = [checks.start_training(client, epochs=20)["id"], *(checks.submit(client)["id"] for _ in range(5))]
            checks.wait_until(lambda: checks.job(client, jobs[0])["progress"]["step"] > 0, 60, "the training's first step")  # noqa: B023
            stack.crash(service)
            checks.wait_until(lambda: checks.ready(client), 120, "the service is ready again")
            for each in jobs:
                checks.finished(client, each)


def replaced(stack: Stack, client: httpx.Client, up: list[str]) -> None:
    """New containers on the old volumes in the middle of a training, as an upgrade does it."""
    running = checks.start_training(client, epochs=60)["id"]
    with step("replace every container in the middle of a training"):
        checks.wait_until(lambda: checks.job(client, running)["progress"]["step"] > 5, 60, "the training's first steps")
        stack.compose(*up, "--force-recreate")
        checks.wait_until(lambda: checks.ready(client), 180, "the service is ready")
        ended = checks.finished(client, running)
        assert ended["attempt"] > 1, "the training was over before"


def broker_lost(stack: Stack, client: httpx.Client, picture: checks.Job, before: dict[str, str]) -> None:
    """Kill the broker with SIGKILL in the middle of a training."""
    running = checks.start_training(client, epochs=40)["id"]
    with step("reconstruct in the middle of a training"):
        checks.wait_until(lambda: checks.job(client, running)["progress"]["step"] > 0, 60, "the training's first step")
        checks.reconstruct(client)
    with step("kill the broker in the middle of a training, and start it again"):
        assert checks.job(client, running)["status"] == "running", "the training was over before the broker was killed"
        stack.compose("kill", "valkey")
        checks.wait_until(lambda: client.get("/readyz").status_code == 503, 60, "the service says that it is not ready")
        stack.compose("start", "valkey")
        checks.wait_until(lambda: checks.ready(client), 60, "the service is ready again")
    with step("jobs and artifacts are as they were"):
        assert checks.job(client, picture["id"]) == picture
        assert checks.artifacts(client, picture["id"]) == before
    with step("a new reconstruction works"):
        checks.reconstruct(client)
    with step("the training goes on and ends"):
        checks.finished(client, running)


def take_down(stack: Stack) -> None:
    """Remove containers, networks and volumes, and make sure of it."""
    with step("take everything down, volumes included"):
        stack.compose("down", "--volumes", "--remove-orphans")
        assert not stack.leftovers(), f"left behind: {stack.leftovers()}"


def main() -> int:
    """Run the scenario; 0 if all of it held, 1 if not, 2 if there is no engine."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy", description=__doc__)
    parser.add_argument("--scale", type=int, default=1, help="containers per worker")
    scale = parser.parse_args().scale
    try:
        command = find_compose()
    except NoEngineError as error:
        print(error, file=sys.stderr)
        return 2
    port = free_port()
    stack = Stack(command, PROJECT, port)
    began = time.monotonic()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=70) as client:
            scenario(stack, client, scale)
    except (AssertionError, httpx.HTTPError, subprocess.CalledProcessError) as error:
        print(f"FAILED\n{error}\n{getattr(error, 'output', None) or ''}")
        print(stack.compose("ps", check=False), stack.compose("logs", "--tail", "40", check=False))
        return 1
    finally:
        take_down(stack)
    print(f"the stack holds: {time.monotonic() - began:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
