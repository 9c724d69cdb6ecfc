"""What the running stack must show; each check raises AssertionError or gives back one line for the summary."""

import hashlib
import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.deploy.compose import Stack

WORKERS = ("worker-reconstruction", "worker-training", "worker-dataset")
OURS = ("api", "keeper", *WORKERS)
SERVICES = ("valkey", *OURS)
Job = dict[str, Any]


def wait_until(condition: Callable[[], bool], within_s: float, what: str) -> None:
    """Look twice a second; AssertionError if it does not come true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {within_s:.0f} s"
        time.sleep(0.5)


def ready(client: httpx.Client) -> bool:
    """Whether broker and storage are there, and the keeper and workers that work is left to."""
    try:
        answer = client.get("/readyz")
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and set(answer.json().values()) == {"ok"}


def hardened(stack: Stack, service: str) -> None:
    """Not root, no capabilities, no way to new ones, nothing to write but the volume and a /tmp that runs nothing."""
    lines = stack.inside(service, "cat", "/proc/1/status").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert "0" not in status["Uid"].split(), f"{service} runs as root"
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, f"{service} has capabilities"
    assert status["NoNewPrivs"] == "1", f"{service} may gain privileges"
    refused = stack.inside(service, "sh", "-c", "touch /new /opt/new /etc/new 2>&1", check=False)
    assert refused.count("Read-only file system") == 3, f"{service}: the root is writable: {refused}"
    stack.inside(service, "sh", "-c", "touch /tmp/new /data/new && rm /tmp/new /data/new")
    noexec = stack.inside(service, "sh", "-c", "cp /bin/true /tmp/true; /tmp/true 2>&1; rm -f /tmp/true")
    assert "denied" in noexec, f"{service}: /tmp runs programs: {noexec}"


def without_torch(stack: Stack) -> None:
    """The API's image has no torch to import."""
    found = stack.inside("api", "python", "-c", "import importlib.util as u; print(u.find_spec('torch'))")
    assert found == "None", f"torch is in the API's image: {found}"


def published_on_loopback_only(stack: Stack) -> None:
    """One port, on 127.0.0.1; and the broker's network has no way out."""
    assert stack.compose("port", "api", "8000").startswith("127.0.0.1:")
    reach = "import socket; socket.create_connection(('1.1.1.1', 443), 2)"
    said = stack.inside("worker-training", "python", "-c", reach, check=False)
    assert "Error" in said, "a worker reaches the internet"


def durable_broker(stack: Stack) -> None:
    """What was acknowledged is on the disk, and nothing is evicted."""
    ask = (
        "import os, redis; r = redis.Redis.from_url(os.environ['SDFSRN_REDIS_URL'], decode_responses=True); "
        "print(*(r.config_get(n)[n] for n in ('appendonly', 'appendfsync', 'maxmemory-policy')))"
    )
    assert stack.inside("api", "python", "-c", ask) == "yes always noeviction"


def guarded_broker(stack: Stack) -> None:
    """Nobody without the password is served."""
    ask = "import redis; redis.Redis('valkey').ping()"
    said = stack.inside("worker-training", "python", "-c", ask, check=False)
    assert "AuthenticationError" in said, f"the broker asks for no password: {said}"


def bounded(stack: Stack, service: str) -> None:
    """A container has limits of memory and of processes."""
    memory, processes = stack.limits(service)
    assert 0 < memory <= 16 << 30 and 0 < processes <= 1024, f"{service}: {memory} bytes, {processes} processes"


def shaded_disc(side: int = 128) -> bytes:
    """A PNG of a lit ball; its alpha is the mask."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    radius = np.hypot(x, y) / 0.6
    light = np.clip(np.sqrt(np.clip(1 - radius**2, 0, 1)) - 0.3 * x - 0.3 * y, 0.1, 1)
    rgba = np.dstack([220 * light, 120 * light, 80 * light, 255 * (radius < 1)]).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, format="PNG")
    return buffer.getvalue()


def reconstruct(client: httpx.Client, **form: str) -> Job:
    """Send the disc, wait for the end, and require success; only a machine under load needs longer than the request waits."""
    answer = client.post(
        "/v1/reconstructions", files={"image": ("disc.png", shaded_disc())}, data=form, headers={"Prefer": "wait=60"}
    )
    assert answer.status_code in (200, 202), f"{answer.status_code}: {answer.text}"
    return finished(client, answer.json()["id"])


def upload(client: httpx.Client) -> Job:
    """Send a data set of three discs, larger than what a container's /tmp holds, and wait for the end of its check."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i in range(3):
            pose = np.array([[1.0, 0, 0, 0], [0, 0, -1, -4], [0, 1, 0, 0], [0, 0, 0, 1]])  # from -y, the world's z up
            frame = {"file_path": "disc.png", "transform_matrix": pose.tolist()}
            archive.writestr(f"disc{i}/disc.png", shaded_disc())
            archive.writestr(f"disc{i}/transforms.json", json.dumps({"camera_angle_x": 0.7, "frames": [frame]}))
        for i in range(5):
            archive.writestr(f"unused{i}.bin", os.urandom(15_000_000))
    answer = client.post("/v1/datasets", content=buffer.getvalue(), headers={"Content-Type": "application/zip"})
    assert answer.status_code == 202, f"{answer.status_code}: {answer.text}"
    return finished(client, answer.json()["id"])


def submit(client: httpx.Client) -> Job:
    """Send the disc and wait for nothing."""
    answer = client.post("/v1/reconstructions", files={"image": ("disc.png", shaded_disc())}, data={"size": "64"})
    assert answer.status_code == 202, f"{answer.status_code}: {answer.text}"
    created: Job = answer.json()
    return created


def start_training(client: httpx.Client, epochs: int, dataset: Job | None = None) -> Job:
    """Queue a training small enough for a test: six shapes, three optimiser steps an epoch."""
    config = {"epochs": epochs, "batch_size": 2, "checkpoint_every": 5}
    answer = client.post("/v1/trainings", json={"dataset": dataset or {"n_shapes": 6}, "config": config})
    assert answer.status_code == 202, f"{answer.status_code}: {answer.text}"
    created: Job = answer.json()
    return created


def job(client: httpx.Client, job_id: str) -> Job:
    """The envelope as it is now."""
    envelope: Job = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()
    return envelope


def finished(client: httpx.Client, job_id: str, within_s: float = 420) -> Job:
    """Wait for the job's end and require success."""
    wait_until(lambda: job(client, job_id)["finished_at"] is not None, within_s, f"job {job_id} ends")
    return succeeded(job(client, job_id))


def succeeded(envelope: Job) -> Job:
    """Require that a job ended well."""
    assert envelope["status"] == "succeeded", f"{envelope['type']} is {envelope['status']}: {envelope['error']}"
    return envelope


def artifacts(client: httpx.Client, job_id: str) -> dict[str, str]:
    """Name and digest of every artifact, after fetching each and comparing it with what is listed."""
    digests = {}
    for listed in client.get(f"/v1/jobs/{job_id}/artifacts").raise_for_status().json():
        data = client.get(listed["href"]).raise_for_status().content
        assert len(data) == listed["bytes"], f"{listed['name']} has {len(data)} bytes, not {listed['bytes']}"
        assert hashlib.sha256(data).hexdigest() in listed["sha256"], f"{listed['name']} is not what was stored"
        digests[listed["name"]] = listed["sha256"]
    return digests


def contains(names: dict[str, str], *required: str) -> None:
    """Require artifacts by name."""
    missing = set(required) - set(names)
    assert not missing, f"missing {sorted(missing)} among {sorted(names)}"
