"""Requests through the whole service: HTTP, broker, worker, library, store and back."""

import hashlib
import io
import math
import time

import httpx
from PIL import Image, ImageDraw

from tests.conftest import SMALL_TRAINING, Stack


def test_ready_models_and_documentation(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    parts = {"broker", "storage", "keeper", "reconstruction_worker", "training_worker", "dataset_worker"}
    deadline = time.monotonic() + 60  # traffic may come before all workers are there
    while (named := client.get("/readyz").json()) != dict.fromkeys(parts, "ok"):
        assert named.keys() == parts and time.monotonic() < deadline, named
        time.sleep(0.2)
    default = client.get("/v1/models/default").json()
    assert client.get("/v1/models").json()["items"] == [default] and default["evaluation"]
    page = client.get("/docs").text
    assert "https://" not in page and client.get("/static/swagger-ui-bundle.js").is_success
    document = client.get("/openapi.json").json()
    epochs = document["components"]["schemas"]["SdfSrnConfig"]["properties"]["epochs"]
    assert (epochs["default"], epochs["minimum"]) == (300, 1) and epochs["description"]


def test_a_picture_in_silhouettes_out(client: httpx.Client, photo: bytes) -> None:
    answer = client.post(
        "/v1/reconstructions",
        files={"image": photo},
        headers={"Prefer": "wait=30"},
        data={"metadata": '{"who": "me"}', "outputs": ["silhouettes", "depth"], "size": "64"},
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["Preference-Applied"] == "wait=30"
    job = answer.json()
    assert job["status"] == "succeeded", job["error"]
    assert job["metadata"] == {"who": "me"} and job["params"]["size"] == 64 and job["model"]["name"] == "default"
    assert job["started_at"] and job["finished_at"] and job["provenance"]["device"] and job["progress"]["fraction"] == 1
    listed = client.get(job["links"]["artifacts"]).json()
    silhouettes = [file for file in listed if file["kind"] == "silhouette"]
    assert [file["view"]["azimuth_deg"] for file in silhouettes] == [0, 60, 120, 180, 240, 300]
    assert {"depth", "result"} <= {file["kind"] for file in listed}
    for file in listed:
        fetched = client.get(file["href"])
        assert hashlib.sha256(fetched.content).hexdigest() == file["sha256"] and len(fetched.content) == file["bytes"]
        assert fetched.headers["ETag"] == f'"{file["sha256"]}"'
        assert fetched.headers["X-Content-Type-Options"] == "nosniff"
    again = client.get(listed[0]["href"], headers={"If-None-Match": f'"{listed[0]["sha256"]}"'})
    assert again.status_code == 304


def test_a_training_its_model_and_its_end(stack: Stack, client: httpx.Client, photo: bytes) -> None:
    answer = client.post("/v1/trainings", json=SMALL_TRAINING)
    assert answer.status_code == 202 and answer.headers["Retry-After"]
    job = stack.ended(client.get(answer.headers["Location"]).json()["id"])
    assert job["status"] == "succeeded", job["error"]
    assert job["provenance"]["dataset_digest"]
    names = {file["name"] for file in client.get(job["links"]["artifacts"]).json()}
    assert {"checkpoint.safetensors", "metrics.jsonl", "loss.png", "convergence.png", "novel_views.png", "evaluation.json"} <= names
    continued = client.post("/v1/trainings", json=SMALL_TRAINING | {"from_checkpoint": {"job": job["id"]}})
    assert continued.status_code == 202, continued.text
    own = client.post(
        "/v1/reconstructions",
        files={"image": photo},
        data={"model": f"job:{job['id']}", "size": "32"},
        headers={"Prefer": "wait=30"},
    ).json()
    # Four passes make no good model; what counts is that this one was asked, and answered in its own words.
    assert own["model"] == {"name": f"job:{job['id']}", "version": 1} and own["status"] in ("succeeded", "failed")
    assert stack.ended(continued.json()["id"])["status"] == "succeeded"
    assert client.post(job["links"]["cancel"]).status_code == 409
    assert client.delete(job["links"]["self"]).status_code == 204
    assert client.get(job["links"]["self"]).status_code == 404
    assert not (stack.data / "artifacts" / "jobs" / job["id"]).exists()


def test_a_picture_is_answered_while_a_training_runs_and_that_can_be_cancelled(
    stack: Stack, client: httpx.Client, photo: bytes
) -> None:
    long = {"config": {"epochs": 100_000, "learning_rate": 1e-5}}
    training = client.post("/v1/trainings", json=long).json()
    stack.wait_for(training["id"], lambda job: job["progress"]["phase"] == "training")
    times = []
    for _ in range(4):
        start = time.monotonic()
        answer = client.post("/v1/reconstructions", files={"image": photo}, headers={"Prefer": "wait=30"})
        times.append(time.monotonic() - start)
        assert answer.status_code == 200, answer.text
    print("reconstructions beside a training:", ", ".join(f"{seconds:.2f} s" for seconds in times))
    # Answered beside the training, not behind it: under a second on a quiet machine, and the bound for a busy one.
    assert min(times) < 5
    waiting = client.post("/v1/trainings", json=SMALL_TRAINING).json()
    assert client.get(waiting["links"]["self"]).json()["queue"] == {"name": "training", "position": 0}
    page = client.get("/v1/jobs", params={"type": "training", "status": "queued", "limit": 1}).json()
    assert [job["id"] for job in page["items"]] == [waiting["id"]]
    assert client.post(waiting["links"]["cancel"]).json()["status"] == "cancelled"
    assert client.post(training["links"]["cancel"]).status_code == 202
    assert stack.ended(training["id"], 15)["status"] == "cancelled"
    assert client.post(training["links"]["cancel"]).status_code == 200


def _star() -> bytes:
    """Five long arms: nothing that is convex explains it."""
    canvas = Image.new("RGBA", (200, 200))
    corners = [(100 + r * math.sin(math.pi * i / 5), 100 - r * math.cos(math.pi * i / 5)) for i, r in enumerate([80, 18] * 5)]
    ImageDraw.Draw(canvas).polygon(corners, fill=(200, 150, 60, 255))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def test_the_answer_says_whether_the_model_knows_such_objects(client: httpx.Client, photo: bytes) -> None:
    found = {}
    for name, image in {"ball": photo, "star": _star()}.items():
        answer = client.post("/v1/reconstructions", files={"image": image}, data={"size": "64"}, headers={"Prefer": "wait=60"})
        metrics = answer.json()["metrics"]
        found[name] = (metrics["verdict"], "unfamiliar" in [warning["code"] for warning in metrics["warnings"]])
        assert 0 <= metrics["familiarity"] <= 1
    assert found == {"ball": ("familiar", False), "star": ("unfamiliar", True)}
