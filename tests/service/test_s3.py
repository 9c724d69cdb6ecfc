"""Artifacts in an object store: moto's server speaks S3, over HTTP, in a process of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import httpx
import pytest

from service.artifacts import Artifacts
from tests.conftest import SMALL_TRAINING, start_stack, stop_stack

# what botocore reads from the environment, in the service's processes and in this one
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of a bucket."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    before = {name: os.environ.get(name) for name in (*_CREDENTIALS, "AWS_ENDPOINT_URL_S3")}
    os.environ |= {**_CREDENTIALS, "AWS_ENDPOINT_URL_S3": endpoint}
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                httpx.get(endpoint, trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("artifacts")
        yield "s3://artifacts/shapes"
    finally:
        server.terminate()
        server.wait()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def test_the_store_does_in_s3_what_it_does_in_a_folder(s3: str, tmp_path: Path) -> None:
    store = Artifacts(s3)
    store.probe()
    stored = store.put("jobs/a/1/x.bin", b"0123456789" * 1000)
    assert store.read("jobs/a/1/x.bin") == b"0123456789" * 1000 and stored["bytes"] == 10_000
    assert b"".join(store.chunks("jobs/a/1/x.bin", 5, 25)) == b"56789012345678901234"
    assert store.fetch("jobs/a/1/x.bin", tmp_path / "x") == stored["sha256"]
    store.copy("jobs/a/1/x.bin", "models/x.bin")
    assert store.job_ids() == ["a"] and store.keys("a") == ["jobs/a/1/x.bin"]
    assert 0 <= store.age_s("models/x.bin") < 60
    store.remove_job("a")
    store.remove("models/x.bin")
    store.remove("models/x.bin")
    assert store.job_ids() == [] and store.keys_under("models") == []
    with pytest.raises(FileNotFoundError):
        store.read("models/x.bin")


def test_a_service_whose_artifacts_lie_in_s3(s3: str, tmp_path: Path, photo: bytes) -> None:
    stack = start_stack(tmp_path / "data", artifacts_url=s3)
    try:
        wait = {"Prefer": "wait=60"}
        job = stack.client.post("/v1/reconstructions", files={"image": photo}, data={"size": "64"}, headers=wait).json()
        assert job["status"] == "succeeded", job
        first = stack.client.get(job["links"]["artifacts"]).json()[0]
        part = stack.client.get(first["href"], headers={"Range": "bytes=0-7"})
        assert part.status_code == 206 and part.content == stack.client.get(first["href"]).content[:8]
        assert stack.client.get(job["links"]["archive"]).content[:2] == b"PK"
        training = stack.client.post("/v1/trainings", json=SMALL_TRAINING, headers=wait).json()
        assert training["status"] == "succeeded", training
        with_it = {"model": f"job:{training['id']}", "size": "32"}
        again = stack.client.post("/v1/reconstructions", files={"image": photo}, data=with_it, headers=wait).json()
        assert again["status"] in ("succeeded", "failed") and "removed" not in str(again["error"])
        assert not list((tmp_path / "data").glob("artifacts/**/*.png")), "nothing lies in the folder"
        for each in (job, training, again):
            assert stack.client.delete(f"/v1/jobs/{each['id']}").status_code == 204
        assert Artifacts(s3).job_ids() == []
    finally:
        stop_stack(stack)
