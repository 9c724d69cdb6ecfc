"""Artifacts in an object store: moto's server speaks S3, over HTTP, in a process of its own."""

import errno
import gc
import io
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from s3fs import S3FileSystem

from service import artifacts
from service.artifacts import Artifacts, StorageError
from service.decoding import CHILDREN
from service.keeper import Keeper
from service.settings import Settings
from tests.conftest import SMALL_TRAINING, start_stack, stop_stack

# what botocore reads from the environment, in the service's processes and in this one
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
}


@contextmanager
def _running_s3() -> "Iterator[tuple[str, subprocess.Popen[bytes]]]":
    """The URL of a bucket, and the server that has it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    before = {name: os.environ.get(name) for name in (*_ENVIRONMENT, "AWS_ENDPOINT_URL_S3")}
    os.environ |= {**_ENVIRONMENT, "AWS_ENDPOINT_URL_S3": endpoint}
    S3FileSystem.clear_instance_cache()
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                httpx.get(endpoint, trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        S3FileSystem(skip_instance_cache=True).mkdir("artifacts")
        yield "s3://artifacts/shapes", server
    finally:
        server.terminate()
        server.wait()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of a bucket."""
    with _running_s3() as (url, _):
        yield url


def test_the_store_does_in_s3_what_it_does_in_a_folder(s3: str, tmp_path: Path) -> None:
    store = Artifacts(s3)
    store.probe()
    stored = store.put("jobs/a/1/x.bin", b"0123456789" * 1000)
    assert store.read("jobs/a/1/x.bin") == b"0123456789" * 1000 and stored["bytes"] == 10_000
    assert b"".join(store.chunks("jobs/a/1/x.bin", 5, 25)) == b"56789012345678901234"
    assert store.fetch("jobs/a/1/x.bin", tmp_path / "x") == stored["sha256"]
    store.put("models/x.bin", b"0123456789" * 1000)
    assert store.job_ids() == ["a"] and store.keys("a") == ["jobs/a/1/x.bin"]
    S3FileSystem(skip_instance_cache=True).pipe_file("artifacts/shapes/jobs/b/1/y.bin", b"of another process")
    assert store.job_ids() == ["a", "b"]
    store.remove_job("b")
    assert 0 <= store.age_s("models/x.bin") < 60
    store.remove_job("a")
    store.remove("models/x.bin")
    store.remove("models/x.bin")
    assert store.job_ids() == [] and store.keys_under("models") == []
    with pytest.raises(FileNotFoundError):
        store.read("models/x.bin")


def test_half_a_file_is_not_stored(s3: str) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise OSError(errno.EIO, "the source broke")
            return super().read(size)

    store = Artifacts(s3)
    with pytest.raises(StorageError, match="the source broke") as broke:
        store.put_stream("jobs/half/1/x", Breaking(bytes(2 << 20)))
    assert not broke.value.full
    gc.collect()
    assert store.keys("half") == []


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def away() -> Iterator[Artifacts]:
    """A store whose server has ended."""
    with _running_s3() as (url, server):
        store = Artifacts(url)
        store.put("jobs/a/1/x", b"x")
        server.terminate()
        server.wait()
        yield store


_CALLS: dict[str, Callable[[Artifacts], object]] = {
    "put": lambda store: store.put("jobs/a/1/x", b"x"),
    "read": lambda store: store.read("jobs/a/1/x"),
    "chunks": lambda store: list(store.chunks("jobs/a/1/x")),
    "job_ids": Artifacts.job_ids,
    "keys": lambda store: store.keys("a"),
    "age_s": lambda store: store.age_s("jobs/a/1/x"),
    "remove": lambda store: store.remove("jobs/a/1/x"),
    "remove_job": lambda store: store.remove_job("a"),
    "probe": Artifacts.probe,
}


@pytest.mark.parametrize("call", _CALLS.values(), ids=_CALLS)
def test_a_store_that_is_away_is_a_storage_error(away: Artifacts, call: Callable[[Artifacts], object]) -> None:
    with pytest.raises(StorageError, match="cannot"):
        call(away)


def test_a_probe_is_remembered_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Artifacts(str(tmp_path / "store"))
    store.probe()
    written = (tmp_path / "store" / "probe").stat().st_mtime_ns
    for _ in range(5):
        store.probe()
    assert (tmp_path / "store" / "probe").stat().st_mtime_ns == written
    monkeypatch.setattr(artifacts, "PROBE_HOLDS_S", 0.0)
    store.probe()
    assert (tmp_path / "store" / "probe").stat().st_mtime_ns > written


def test_a_store_that_hangs_is_told_and_the_first_probe_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "PROBE_WITHIN_S", 1.0)
    monkeypatch.setattr(artifacts, "PROBE_HOLDS_S", 0.0)
    with _running_s3() as (url, server), ThreadPoolExecutor() as askers:
        store = Artifacts(url)
        server.send_signal(signal.SIGSTOP)
        try:
            first = [askers.submit(store.probe) for _ in range(2)]
            time.sleep(0.3)
        finally:
            server.send_signal(signal.SIGCONT)
        for asked in first:
            asked.result()
        server.send_signal(signal.SIGSTOP)
        try:
            hanging = askers.submit(store.probe)
            time.sleep(0.2)
            store.probe()  # what was found last holds for a while
            time.sleep(1)
            with pytest.raises(StorageError, match="does not answer"):
                store.probe()
        finally:
            server.send_signal(signal.SIGCONT)
        hanging.result()
        store.probe()


@pytest.mark.slow
def test_s3_goes_away_under_a_service(tmp_path: Path, photo: bytes) -> None:
    with _running_s3() as (url, server):
        stack = start_stack(tmp_path / "data", artifacts_url=url)
        client = stack.client
        try:
            wait = {"Prefer": "wait=60"}
            job = client.post("/v1/reconstructions", files={"image": photo}, data={"size": "32"}, headers=wait).json()
            first = client.get(job["links"]["artifacts"]).json()[0]["href"]
            plan = {**SMALL_TRAINING, "config": {**SMALL_TRAINING["config"], "epochs": 5000}}
            training = client.post("/v1/trainings", json=plan).json()["id"]
            stack.wait_for(training, lambda envelope: envelope["progress"]["phase"] == "training")
            server.send_signal(signal.SIGSTOP)
            with ThreadPoolExecutor() as senders:
                taken = [senders.submit(client.post, "/v1/reconstructions", files={"image": photo}) for _ in range(2 * CHILDREN)]
                time.sleep(2)
                try:
                    refused = client.post("/v1/reconstructions", files={"image": photo[:200]}, timeout=10)
                finally:
                    server.send_signal(signal.SIGCONT)
            assert refused.status_code == 422, "pictures are looked at while others wait for the store"
            assert {each.result().status_code for each in taken} == {202}
            server.terminate()
            server.wait()
            answers = [
                client.post("/v1/reconstructions", files={"image": photo}),
                client.post("/v1/datasets", content=_small_zip(), headers={"Content-Type": "application/zip"}),
                client.get(first),
                client.get(job["links"]["archive"]),
            ]
            assert [answer.status_code for answer in answers] == [503] * 4, [answer.text for answer in answers]
            ready = client.get("/readyz")
            assert ready.status_code == 503 and ready.json()["storage"] != "ok" and ready.json()["broker"] == "ok"
            deadline = time.monotonic() + 30
            while "is not kept" not in stack.log() and time.monotonic() < deadline:
                time.sleep(0.2)
            step = client.get(f"/v1/jobs/{training}").json()["progress"]["step"]
            stack.wait_for(training, lambda envelope: envelope["status"] == "running" and envelope["progress"]["step"] > step)
            Keeper(Settings(data=stack.data, artifacts_url=url)).look()
            assert client.delete(f"/v1/jobs/{job['id']}").status_code == 204
            assert client.delete(f"/v1/jobs/{training}").status_code == 204
        finally:
            stop_stack(stack)


def _small_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("transforms.json", "{}")
    return buffer.getvalue()
