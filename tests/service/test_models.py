"""Train, publish, infer by name: the model registry over real HTTP."""

import hashlib
import http.client
import json
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save

from sdfsrn.checkpoint import Checkpoint
from sdfsrn.checkpoint_header import FORMAT, network_shapes
from sdfsrn.config import WEIGHTS
from service.app import create_app
from service.artifacts import Artifacts, job_key
from service.jobs import Job, Jobs, connect, new_id, now
from service.settings import Settings
from tests.conftest import SMALL_TRAINING, Broker, Stack
from tests.sdfsrn.test_checkpoint_header import changed, listed

DEFAULT = WEIGHTS / "default.safetensors"


@pytest.fixture(scope="module")
def published(stack: Stack) -> dict[str, Any]:
    """A training that was published as `small`."""
    job = stack.client.post("/v1/trainings", json={**SMALL_TRAINING, "publish_as": "small"}).json()
    ended = stack.ended(job["id"])
    assert ended["status"] == "succeeded", ended
    return ended


def reconstruct(client: httpx.Client, photo: bytes, model: str) -> httpx.Response:
    fields = {"size": "32", "views": '{"count": 1}', "model": model}
    return client.post("/v1/reconstructions", files={"image": photo}, data=fields, headers={"Prefer": "wait=30"})


def test_a_training_is_published_and_used_by_name(stack: Stack, published: dict[str, Any], photo: bytes) -> None:
    assert published["published"] == {"name": "small", "version": 1}
    names = {artifact["name"] for artifact in stack.client.get(published["links"]["artifacts"]).json()}
    assert {name for name in names if "checkpoint" in name} == {"checkpoint.safetensors"}
    card = stack.client.get("/v1/models/small").json()
    assert (card["version"], card["versions"], card["shared"]) == (1, [1], True)
    version = stack.client.get("/v1/models/small/versions/1").json()
    assert version["job"] == published["id"] and version["evaluation"]["n_shapes"] == 4
    answer = reconstruct(stack.client, photo, "small")
    # four passes over four shapes teach little: what counts is whose model it was
    assert answer.json()["model"] == {"name": "small", "version": 1}
    assert answer.json()["provenance"]["model_digest"] == version["digest"]


def test_what_is_published_from_a_job_holds_no_state_of_its_training(tmp_path: Path) -> None:
    """Without workers: the training's checkpoint is written here, as a training leaves it."""
    network = {f"weights.{name}": torch.rand(shape) for name, shape in network_shapes(8, 16).items()}
    state = {f"state.optimizer.exp_avg.{name}": torch.rand(shape) for name, shape in network_shapes(8, 16).items()}
    facts = {"step": 1, "temperature": 0.01, "mask_radius": 0.3, "camera_distance": 2.5, "fovy_deg": 50.0, "method": "sdf_srn"}
    described = {"format": FORMAT, "model": json.dumps({"latent_dim": 8, "hidden_dim": 16}), "facts": json.dumps(facts)}
    with Broker(Settings(data=tmp_path / "data")) as running:
        client = TestClient(create_app(running.settings), base_url="http://127.0.0.1")
        jobs, store = Jobs(connect(running.settings)), Artifacts(running.settings.store_url)
        jobs.create(Job(new_id(), "training", "training", now()))
        job = jobs.claim("training", "w")
        assert job
        stored = store.put(job_key(job.id, job.fence, "checkpoint.safetensors"), save({**network, **state}, described))
        ran = {"config": {"latent_dim": 8, "hidden_dim": 16}}
        jobs.finish(job, "succeeded", files=[{"name": "checkpoint.safetensors", **stored}], provenance=ran)

        def used() -> int:
            return int(connect(running.settings).hget("sdfsrn:used:", "bytes") or 0)

        before = used()
        version = client.post("/v1/models/bare/versions", json={"job": job.id})
        assert version.status_code == 201, version.text
        (path,) = (running.settings.data / "artifacts" / "models" / "everybody" / "bare").iterdir()
        served = load_file(path)
        assert served.keys() == network.keys() and all(torch.equal(value, network[name]) for name, value in served.items())
        assert version.json()["bytes"] == path.stat().st_size == used() - before < stored["bytes"] / 1.9
        assert version.json()["digest"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert version.json()["networks"] == {"latent_dim": 8, "hidden_dim": 16, "symmetry": "none"}
        assert Checkpoint.load(path).state == {} and Checkpoint.load(path).mask_radius == 0.3
        assert client.post("/v1/models/bare/versions", json={"job": job.id}).json()["version"] == 1
        assert client.delete("/v1/models/bare").status_code == 204 and used() == before
        (running.settings.data / "artifacts" / stored["key"]).write_bytes(b"damaged")
        damaged = client.post("/v1/models/bare/versions", json={"job": job.id})
        assert damaged.status_code == 422 and "cannot be served" in damaged.json()["detail"]


def test_its_artifacts_may_go_and_the_model_stays(stack: Stack, photo: bytes) -> None:
    job = stack.client.post("/v1/trainings", json={**SMALL_TRAINING, "publish_as": "kept"}).json()
    stack.ended(job["id"])
    assert stack.client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    answer = reconstruct(stack.client, photo, "kept")
    assert "was removed" not in str(answer.json()["error"])
    assert answer.json()["provenance"]["model_digest"]


def test_versions_count_up_and_the_same_source_is_one(stack: Stack, published: dict[str, Any]) -> None:
    again = stack.client.post("/v1/models/other/versions", json={"job": published["id"]})
    assert (again.status_code, again.json()["version"]) == (201, 1)
    assert again.headers["location"] == "/v1/models/other/versions/1"
    assert stack.client.post("/v1/models/other/versions", json={"job": published["id"]}).json()["version"] == 1
    same = stack.client.post("/v1/models/small/versions", json={"job": published["id"]})
    assert (same.status_code, same.json()["version"]) == (201, 1), "as its training published it"
    data = DEFAULT.read_bytes()
    headers = {"Content-Type": "application/octet-stream"}
    uploaded = stack.client.post("/v1/models/other/versions", content=data, headers=headers)
    assert (uploaded.status_code, uploaded.json()["version"]) == (201, 2), uploaded.text
    assert uploaded.json()["digest"] == hashlib.sha256(data).hexdigest()
    twice = stack.client.post("/v1/models/other/versions", content=data, headers=headers)
    assert (twice.status_code, twice.json()["version"]) == (201, 2)
    assert stack.client.get("/v1/models/other").json()["version"] == 2
    for name, digests in (("small", 1), ("other", 2)):
        versions = [stack.client.get(f"/v1/models/{name}/versions/{number + 1}").json() for number in range(digests)]
        files = (stack.data / "artifacts" / "models" / "everybody" / name).iterdir()
        stored = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
        assert stored == sorted(version["digest"] for version in versions), "each file is there once, as its card says"


def test_aliases_name_versions(stack: Stack, published: dict[str, Any], photo: bytes) -> None:
    for source in (published["id"],):
        stack.client.post("/v1/models/aliased/versions", json={"job": source})
    stack.client.post(
        "/v1/models/aliased/versions", content=DEFAULT.read_bytes(), headers={"Content-Type": "application/octet-stream"}
    )
    put = stack.client.put("/v1/models/aliased/aliases/good", json={"version": 2})
    assert put.json()["aliases"] == {"good": 2}
    for asked, version in (("aliased@good", 2), ("aliased@1", 1), ("aliased", 2)):
        assert reconstruct(stack.client, photo, asked).json()["model"]["version"] == version
    assert stack.client.put("/v1/models/aliased/aliases/good", json={"version": 9}).status_code == 404
    assert stack.client.put("/v1/models/aliased/aliases/7", json={"version": 1}).status_code == 422
    assert stack.client.delete("/v1/models/aliased/versions/2").status_code == 204
    assert stack.client.get("/v1/models/aliased").json()["aliases"] == {}, "its alias went with it"
    assert reconstruct(stack.client, photo, "aliased@good").status_code == 422
    assert stack.client.delete("/v1/models/aliased").status_code == 204
    assert stack.client.get("/v1/models/aliased").status_code == 404
    assert not list((stack.data / "artifacts" / "models" / "everybody" / "aliased").glob("*"))


def test_default_came_with_the_service(stack: Stack) -> None:
    assert stack.client.get("/v1/models/default").json()["versions"] == [1]
    assert stack.client.delete("/v1/models/default").status_code == 409
    assert stack.client.delete("/v1/models/default/versions/1").status_code == 409


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"\x80\x04}q\x00.", "application/octet-stream", 422),
        ((2 << 30).to_bytes(8, "little"), "application/octet-stream", 422),
        (changed(listed), "application/octet-stream", 422),
        (b"{}", "application/json", 422),
        (b'{"job": "nope"}', "application/json", 422),
        (b"x", "text/plain", 415),
    ],
)
def test_nothing_else_is_published(stack: Stack, content: bytes, kind: str, status: int) -> None:
    answer = stack.client.post("/v1/models/bad/versions", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status and answer.json()["errors"], answer.text
    assert stack.client.get("/v1/models/bad").status_code == 404


def begun(stack: Stack, kind: str, length: int, sent: bytes) -> http.client.HTTPConnection:
    """A request for a version, of which no more is sent than this."""
    connection = http.client.HTTPConnection(stack.client.base_url.host, stack.client.base_url.port, timeout=20)
    connection.putrequest("POST", "/v1/models/bad/versions")
    for name, value in {"Content-Type": kind, "Content-Length": str(length)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(sent)
    return connection


@pytest.mark.parametrize(("kind", "status"), [("application/json", 413), ("Application/JSON; x=y", 413), ("text/plain", 415)])
def test_what_is_no_checkpoint_is_refused_before_it_is_sent(stack: Stack, kind: str, status: int) -> None:
    answer = begun(stack, kind, 40_000_000, b"{").getresponse()
    assert answer.status == status and b'"errors"' in answer.read()


def test_a_checkpoint_is_not_in_memory_while_it_arrives(stack: Stack) -> None:
    family = psutil.Process(stack.process.pid).children(recursive=True)
    api = next(process for process in family if "service.serve" in process.cmdline())
    uploads = [begun(stack, "application/octet-stream", 40_000_001, b"") for _ in range(4)]
    before = api.memory_info().rss
    for upload in uploads:
        upload.send(bytes(40_000_000))
    time.sleep(1)
    assert api.memory_info().rss - before < 80_000_000
    for upload in uploads:
        upload.send(b"x")
        assert upload.getresponse().status == 422


@pytest.mark.parametrize("name", ["..", "A", "a/b", "%2e%2e", "a" * 65, "-a", "%00", "%0a"])
def test_names_that_cannot_be(stack: Stack, name: str) -> None:
    answer = stack.client.put(f"/v1/models/{name}/aliases/x", json={"version": 1})
    assert answer.status_code in (404, 405, 422), answer.text


def test_a_name_keeps_its_files_in_its_own_folder(stack: Stack, published: dict[str, Any]) -> None:
    assert published["published"]
    folder: Path = stack.data / "artifacts" / "models" / "everybody" / "small"
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]
