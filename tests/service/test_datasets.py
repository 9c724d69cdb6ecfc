"""Data sets over HTTP: uploaded, checked, looked at, trained on, removed; and what bad ones are told."""

import http.client
import io
import json
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from sdfsrn.client import Client
from sdfsrn.config import SyntheticData
from sdfsrn.data.synthetic import make_scenes
from tests.conftest import SMALL_TRAINING, Stack
from tests.sdfsrn.data.scene import CAMERAS, nerf, rgba, silhouette
from tests.sdfsrn.given import pictures_of

ZIP = {"Content-Type": "application/zip"}
WAIT = {"Prefer": "wait=60"}


def _archive(*, broken: str = "") -> bytes:
    """Four synthetic objects, one view each, in a folder each; the picture named `broken` is none."""
    data = SyntheticData(n_shapes=4, seed=17)
    pictures, poses = pictures_of(data), make_scenes(data).c2w
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i in range(4):
            pose = poses[i].double().numpy()
            pose[:3] = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ pose[:3]
            frame = {"file_path": "view", "transform_matrix": pose.tolist()}
            name = f"shape{i}/view.png"
            archive.writestr(name, b"broken" if name == broken else pictures[i].to_png())
            archive.writestr(f"shape{i}/transforms.json", json.dumps({"camera_angle_x": math.radians(50), "frames": [frame]}))
    return buffer.getvalue()


def _uploaded(client: httpx.Client, data: bytes) -> dict[str, object]:
    answer = client.post("/v1/datasets", content=data, headers=ZIP | WAIT)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_a_data_set_from_upload_to_training_to_removal(stack: Stack) -> None:
    client = stack.client
    job = _uploaded(client, _archive())
    assert (job["type"], job["status"]) == ("dataset", "succeeded"), job
    card = client.get(f"/v1/datasets/{job['id']}").json()
    assert (card["objects"], card["pictures"], card["error"]) == (4, 4, None)
    assert card["digest"].startswith("sha-256:") and card["report"]["unused"] == []
    sheet = client.get(card["links"]["contact_sheet"])
    assert Image.open(io.BytesIO(sheet.content)).size == (4 * 64, 64)
    assert card["id"] in [each["id"] for each in client.get("/v1/datasets").json()["items"]]
    plan = {**SMALL_TRAINING, "dataset": {"type": "uploaded", "id": job["id"]}}
    refused = client.post("/v1/trainings", json=plan | {"config": {"supervision": "pair"}})
    assert refused.status_code == 422 and refused.json()["errors"][0]["field"] == "config.supervision"
    training = client.post("/v1/trainings", json=plan, headers=WAIT).json()
    assert training["status"] == "succeeded", training
    assert training["metrics"]["n_shapes"] == 4 and training["metrics"]["novel_view_iou"] is None
    assert training["provenance"]["dataset_digest"] == card["digest"]
    assert client.delete(f"/v1/datasets/{job['id']}").status_code == 204
    assert client.get(f"/v1/datasets/{job['id']}").status_code == 404
    refused = client.post("/v1/trainings", json=plan)
    assert refused.status_code == 422 and refused.json()["errors"][0]["field"] == "dataset.id"


def test_a_form_does_as_well_and_the_same_upload_is_one(stack: Stack) -> None:
    data, key = _archive(), {"Idempotency-Key": "one upload"}
    first = stack.client.post("/v1/datasets", files={"archive": ("mine.zip", data)}, headers=WAIT | key)
    again = stack.client.post("/v1/datasets", content=data, headers=ZIP | WAIT | key)
    assert first.status_code == again.status_code == 200
    assert first.json()["id"] == again.json()["id"] and first.json()["status"] == "succeeded"


def test_bad_files_are_named(stack: Stack) -> None:
    job = _uploaded(stack.client, _archive(broken="shape2/view.png"))
    assert job["status"] == "failed"
    error = stack.client.get(f"/v1/datasets/{job['id']}").json()["error"]
    assert [each["field"] for each in error["errors"]] == ["shape2/view.png"]
    assert "PNG" in error["detail"]
    refused = stack.client.post("/v1/trainings", json={"dataset": {"type": "uploaded", "id": job["id"]}})
    assert refused.status_code == 422 and "failed" in refused.json()["detail"]
    assert stack.client.get(f"/v1/jobs/{job['id']}/artifacts").json() == []


def _packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_what_is_bad_is_left_out_and_named_when_asked(stack: Stack, tmp_path: Path) -> None:
    files = nerf() | {"images/0003.png": b"damaged", "images/0005.png": rgba(np.zeros_like(silhouette(CAMERAS[5])))}
    del files["images/0001.png"]
    refused = _uploaded(stack.client, _packed(files))
    assert refused["status"] == "failed" and "skip_bad=true" in str(refused["error"])
    (tmp_path / "mine.zip").write_bytes(_packed(files))
    with Client(str(stack.client.base_url)) as client:
        options: dict[str, Any] = {"skip_bad": True, "name": "three balls", "metadata": {"scan": 7}}
        job = client.wait(client.upload_dataset(tmp_path / "mine.zip", **options).id)
    assert job.status == "succeeded", job.error
    card = stack.client.get(f"/v1/datasets/{job.id}").json()
    assert (card["name"], card["metadata"], card["pictures"]) == ("three balls", {"scan": 7}, 3)
    assert sorted(card["report"]["skipped"]) == ["images/0001.png", "images/0003.png", "images/0005.png"]
    assert card["report"]["agreement"]["objects"]["object"]["min"] > 0.97 and card["report"]["centre"] == [0, 0, 0]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"metadata": "no JSON"}, "metadata"),
        ({"metadata": "[1]"}, "metadata"),
        ({"metadata": '{"a": [1]}'}, "metadata"),
        ({"skip_bad": "perhaps"}, "skip_bad"),
        ({"skip_bda": "true"}, "skip_bda"),
        ({"name": "x" * 201}, "name"),
        ({"webhook_url": "http://example.org"}, "webhook_url"),
    ],
)
def test_what_is_said_beside_the_zip_is_checked(stack: Stack, query: dict[str, str], field: str) -> None:
    answer = stack.client.post("/v1/datasets", params=query, content=_archive(), headers=ZIP)
    assert answer.status_code == 422, answer.text
    assert field in answer.json()["errors"][0]["field"]


def test_what_is_too_large_is_refused_at_once_and_by_name(stack: Stack) -> None:
    """What is accepted never fails on its size later."""
    big = bytearray(rgba(silhouette(CAMERAS[0])))
    big[16:24] = struct.pack(">2L", 10_000, 10_000)
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for i in range(65_001):
            archive.writestr(f"{i}", b"")
    for data, field in ((_packed(nerf() | {"images/0002.png": bytes(big)}), "images/0002.png"), (many.getvalue(), "archive")):
        answer = stack.client.post("/v1/datasets", content=data, headers=ZIP)
        assert answer.status_code == 413, answer.text
        assert answer.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"no zip", ZIP, 422),
        (b"PK but no zip", ZIP, 422),
        (b"", ZIP, 422),
        (b"PK", {"Content-Type": "image/png"}, 415),
        (b"PK", {}, 415),
    ],
)
def test_what_is_no_archive_is_refused_at_once(stack: Stack, content: bytes, headers: dict[str, str], status: int) -> None:
    answer = stack.client.post("/v1/datasets", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_archive_past_the_limit_is_refused_before_it_is_read(stack: Stack) -> None:
    url = stack.client.base_url
    connection = http.client.HTTPConnection(url.host, url.port, timeout=10)
    connection.putrequest("POST", "/v1/datasets")
    for name, value in {**ZIP, "Content-Length": "2000000001"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(
    ("dataset", "field"),
    [
        ({"type": "uploaded"}, "dataset.id"),
        ({"type": "uploaded", "id": "unknown"}, "dataset.id"),
        ({"type": "uploaded", "id": "x", "n_shapes": 4}, "dataset.n_shapes"),
        ({"type": "found"}, "dataset"),
        ([], "dataset"),
    ],
)
def test_unknown_data_sets_are_refused(stack: Stack, dataset: object, field: str) -> None:
    answer = stack.client.post("/v1/trainings", json={"dataset": dataset})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field


def test_another_type_of_job_is_no_data_set(stack: Stack) -> None:
    job = stack.client.post("/v1/trainings", json=SMALL_TRAINING).json()
    assert stack.client.get(f"/v1/datasets/{job['id']}").status_code == 404
    assert stack.client.delete(f"/v1/datasets/{job['id']}").status_code == 404
    stack.client.delete(f"/v1/jobs/{job['id']}")
