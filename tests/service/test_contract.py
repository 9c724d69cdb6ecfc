"""The contract's finer promises, over real HTTP against the real service."""

import base64
import hashlib
import io
import json
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image

from service.jobs import connect
from tests.conftest import SMALL_TRAINING, Stack

SMALL_PICTURE = {"size": "32", "views": '{"count": 2}'}
LONG_TRAINING = {**SMALL_TRAINING, "config": {**SMALL_TRAINING["config"], "epochs": 400, "checkpoint_every": 1000}}


@pytest.fixture(scope="module")
def finished(stack: Stack, photo: bytes) -> dict[str, Any]:
    """A small reconstruction that succeeded."""
    sent = stack.client.post("/v1/reconstructions", files={"image": photo}, data=SMALL_PICTURE, headers={"Prefer": "wait=30"})
    assert sent.status_code == 200, sent.text
    return dict(sent.json())


def pictured(*boxes: tuple[int, int, int, int]) -> bytes:
    """Boxes of one colour before a background of another."""
    image = Image.new("RGB", (96, 96), (235, 235, 240))
    for box in boxes:
        image.paste((60, 110, 70), box)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_what_was_understood_of_a_picture_comes_back_as_a_mask_and_warnings(stack: Stack) -> None:
    image = pictured((40, 30, 96, 70), (5, 5, 25, 25))
    wait = {"Prefer": "wait=30"}
    job = stack.client.post("/v1/reconstructions", files={"image": image}, data=SMALL_PICTURE, headers=wait).json()
    assert job["status"] == "succeeded", job
    assert job["params"]["background"] == "auto"
    warnings = job["metrics"]["warnings"]
    assert {warning["code"] for warning in warnings} == {"cut_off", "several_objects"}
    assert all(set(warning) == {"code", "message"} and len(warning["message"]) > 60 for warning in warnings)
    artifacts = {file["name"]: file for file in stack.client.get(job["links"]["artifacts"]).json()}
    assert (artifacts["mask.png"]["kind"], artifacts["mask.png"]["media_type"]) == ("mask", "image/png")
    used = Image.open(io.BytesIO(stack.client.get(artifacts["mask.png"]["href"]).content))
    assert (used.mode, used.size, used.getbbox()) == ("L", (96, 96), (40, 30, 96, 70))
    levels = {level: count for count, level in used.getcolors()}
    assert set(levels) == {0, 255} and abs(levels[255] - 56 * 40) <= 4  # its corners are rounded
    assert stack.client.get(artifacts["result.json"]["href"]).json()["warnings"] == warnings


def test_what_is_left_empty_counts_as_absent(stack: Stack, photo: bytes, finished: dict[str, Any]) -> None:
    files = {"image": photo, "mask": ("", b"", "application/octet-stream"), "seed": (None, ""), "input_view": (None, "")}
    files |= {name: (None, value) for name, value in SMALL_PICTURE.items()}
    for name in ("outputs", "model", "metadata", "background", "webhook_url"):
        files[name] = (None, "")
    sent = stack.client.post("/v1/reconstructions", files=files)
    assert sent.status_code == 202, sent.text
    assert sent.json()["params"] == finished["params"]
    for part in (("", b"", "application/octet-stream"), (None, "")):
        missing = stack.client.post("/v1/reconstructions", files={"image": part})
        assert missing.status_code == 422 and "image is missing" in missing.json()["detail"]


def events_of(client: httpx.Client, job_id: str, after: str | None = None, at_most: int = 10_000) -> list[dict[str, Any]]:
    """Read server-sent events until the stream ends."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": after} if after else {})}
    found: list[dict[str, Any]] = []
    with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: dict[str, Any] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line == "" and event:
                found.append(event)
                event = {}
                if len(found) == at_most:
                    break
            elif name in ("event", "id"):
                event[name] = value
            elif name == "data":
                event["data"] = json.loads(value)
    return found


def test_events_tell_the_whole_story_and_resume_without_a_gap(stack: Stack) -> None:
    job = stack.client.post("/v1/trainings", json=SMALL_TRAINING).json()
    seen = events_of(stack.client, job["id"])
    statuses = [event["data"]["status"] for event in seen if event["event"] == "status"]
    assert statuses == ["queued", "running", "succeeded"]
    assert {event["event"] for event in seen} >= {"progress", "metric"}
    assert seen[-1]["event"] == "end" and seen[-1]["data"] == {"status": "succeeded"}
    ids = [tuple(int(part) for part in event["id"].split("-")) for event in seen]
    assert ids == sorted(set(ids))
    for cut in (0, len(seen) // 2, len(seen) - 2):
        assert events_of(stack.client, job["id"], after=seen[cut]["id"]) == seen[cut + 1 :]
    listed = stack.client.get(f"/v1/jobs/{job['id']}/events", headers={"Accept": "application/json"}).json()
    assert [(event["id"], event["event"], event["data"]) for event in listed] == [(e["id"], e["event"], e["data"]) for e in seen]


def test_a_client_that_was_away_too_long_is_told_of_the_gap(stack: Stack) -> None:
    job = stack.client.post("/v1/trainings", json=SMALL_TRAINING).json()
    seen = events_of(stack.client, job["id"])
    connect(stack.settings()).xtrim(f"sdfsrn:events:{job['id']}", maxlen=2, approximate=False)
    again = events_of(stack.client, job["id"], after=seen[0]["id"])
    assert [event["event"] for event in again] == ["gap", *(event["event"] for event in seen[-2:])]
    assert events_of(stack.client, job["id"]) == seen[-2:], "who never saw anything has nothing to miss"


def test_events_of_a_job_that_is_removed_end(stack: Stack) -> None:
    job = stack.client.post("/v1/trainings", json=LONG_TRAINING).json()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(events_of, stack.client, job["id"])
        stack.wait_for(job["id"], lambda found: found["status"] == "running")
        assert stack.client.delete(f"/v1/jobs/{job['id']}").status_code == 204
        assert reading.result(20)[-1] == {"event": "end", "data": {"status": "deleted"}, "id": reading.result()[-1]["id"]}


@pytest.mark.slow
def test_a_paused_training_goes_on_as_if_nothing_had_been(stack: Stack) -> None:
    plan = {**SMALL_TRAINING, "config": {**SMALL_TRAINING["config"], "epochs": 60, "checkpoint_every": 1000}}
    whole = stack.client.post("/v1/trainings", json=plan).json()
    stack.ended(whole["id"])
    job = stack.client.post("/v1/trainings", json=plan).json()
    address = f"/v1/jobs/{job['id']}"
    stack.wait_for(job["id"], lambda found: found["progress"]["phase"] == "training" and found["progress"]["step"] > 3)
    assert stack.client.post(f"{address}/pause").status_code == 202
    stack.wait_for(job["id"], lambda found: found["status"] == "paused", 20)
    assert stack.client.post(f"{address}/pause").status_code == 200
    assert stack.client.post(f"{address}/resume").status_code == 202
    ended = stack.ended(job["id"])
    assert ended["status"] == "succeeded", ended["error"]
    assert stack.client.post(f"{address}/pause").status_code == 409
    assert stack.client.post(f"{address}/resume").status_code == 409
    curves = [stack.client.get(f"/v1/jobs/{each['id']}/artifacts/metrics.jsonl").text for each in (whole, job)]
    assert curves[0] == curves[1] and len(curves[0].splitlines()) == 60
    assert ended["attempt"] == 2
    statuses = [event["data"]["status"] for event in events_of(stack.client, job["id"]) if event["event"] == "status"]
    assert statuses == ["queued", "running", "pausing", "paused", "queued", "running", "succeeded"]


def test_a_waiting_training_pauses_at_once_and_a_paused_one_can_be_cancelled(stack: Stack) -> None:
    first = stack.client.post("/v1/trainings", json=LONG_TRAINING).json()
    second = stack.client.post("/v1/trainings", json=LONG_TRAINING).json()
    paused = stack.client.post(f"/v1/jobs/{second['id']}/pause")
    assert (paused.status_code, paused.json()["status"], paused.json()["queue"]) == (202, "paused", None)
    assert stack.client.post(f"/v1/jobs/{second['id']}/cancel").json()["status"] == "cancelled"
    stack.client.delete(f"/v1/jobs/{first['id']}")


def test_a_reconstruction_cannot_be_paused(stack: Stack, finished: dict[str, Any]) -> None:
    refused = stack.client.post(f"/v1/jobs/{finished['id']}/pause")
    assert refused.status_code == 409 and "only trainings" in refused.json()["detail"]


def test_one_key_makes_one_job_however_often_and_at_once_it_is_sent(stack: Stack, photo: bytes) -> None:
    def send(key: str, size: str = "32", picture: bytes = photo) -> httpx.Response:
        fields = {**SMALL_PICTURE, "size": size}
        return httpx.post(
            stack.client.base_url.join("/v1/reconstructions"),
            files={"image": ("p.png", picture)},
            data=fields,
            headers={"Idempotency-Key": key},
            timeout=60,
            trust_env=False,
        )

    def folders() -> set[str]:
        return {path.name for path in (stack.data / "artifacts" / "jobs").iterdir()}

    before = folders()
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(send, ["one"] * 6))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    job_id = answers[0].json()["id"]
    stack.ended(job_id)
    assert send("one").json()["id"] == job_id, "also after its end"
    assert send("two").json()["id"] != job_id
    for other in (send("one", size="48"), send("one", picture=photo + b" ")):
        assert other.status_code == 422 and "Idempotency-Key" in other.json()["detail"]
    known = {job["id"] for job in stack.client.get("/v1/jobs?limit=200").json()["items"]}
    assert folders() - before <= known, "pictures of requests that made no job are not kept"


def test_ranges_digests_and_tags(stack: Stack, finished: dict[str, Any]) -> None:
    address = f"/v1/jobs/{finished['id']}/artifacts/silhouette_000.png"
    whole = stack.client.get(address)
    data, tag = whole.content, whole.headers["etag"]
    sha = hashlib.sha256(data).digest()
    assert tag == f'"{sha.hex()}"'
    assert whole.headers["content-digest"] == f"sha-256=:{base64.b64encode(sha).decode()}:"
    assert whole.headers["x-content-type-options"] == "nosniff"
    size = len(data)
    for asked, part in (
        ("bytes=0-9", data[:10]),
        ("bytes=10-", data[10:]),
        ("bytes=-7", data[-7:]),
        (f"bytes={size - 3}-{size + 50}", data[-3:]),
    ):
        answer = stack.client.get(address, headers={"Range": asked})
        assert (answer.status_code, answer.content) == (206, part), asked
        assert answer.headers["content-range"].endswith(f"/{size}")
        digest = base64.b64encode(hashlib.sha256(part).digest()).decode()
        assert answer.headers["content-digest"] == f"sha-256=:{digest}:", "of what was sent (RFC 9530, 2)"
        assert answer.headers["repr-digest"] == whole.headers["repr-digest"], "of the whole (RFC 9530, 3)"
    for ignored in ("bytes=0-1,4-5", "bytes=9-1", "lines=1-2", "bytes=-"):
        assert stack.client.get(address, headers={"Range": ignored}).content == data, ignored
    beyond = stack.client.get(address, headers={"Range": f"bytes={size}-"})
    assert beyond.status_code == 416 and beyond.headers["content-range"] == f"bytes */{size}"
    assert stack.client.get(address, headers={"Range": "bytes=0-1", "If-Range": '"other"'}).status_code == 200
    for known in (tag, f"W/{tag}", f'"x", {tag}', f'W/"x",W/{tag} ,"y"', "*"):
        answer = stack.client.get(address, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag), known
    assert stack.client.get(address, headers=[("If-None-Match", '"x"'), ("If-None-Match", tag)]).status_code == 304
    for unknown in ('"x"', f'"{tag[1:9]}"', tag.strip('"'), 'W/"*"'):
        assert stack.client.get(address, headers={"If-None-Match": unknown}).status_code == 200, unknown
    for asked in ({}, {"Range": "bytes=0-9"}):
        head = stack.client.head(address, headers=asked)
        assert (head.status_code, head.content) == (200, b""), "Range is for GET (RFC 9110, 14.2)"
        for name in ("etag", "content-length", "content-type", "content-digest", "repr-digest", "accept-ranges"):
            assert head.headers[name] == whole.headers[name]
    assert stack.client.head(finished["links"]["archive"]).headers["content-type"] == "application/zip"
    assert stack.client.head(finished["links"]["events"]).status_code == 200


def test_the_archive_holds_every_artifact_byte_for_byte(stack: Stack, finished: dict[str, Any]) -> None:
    archive = zipfile.ZipFile(io.BytesIO(stack.client.get(finished["links"]["archive"]).content))
    assert archive.testzip() is None
    listed = stack.client.get(finished["links"]["artifacts"]).json()
    assert archive.namelist() == [file["name"] for file in listed]
    for file in listed:
        assert hashlib.sha256(archive.read(file["name"])).hexdigest() == file["sha256"]


def test_what_is_kept_long_enough_is_removed_and_says_so(stack: Stack, photo: bytes) -> None:
    sent = stack.client.post(
        "/v1/reconstructions",
        files={"image": photo},
        data={**SMALL_PICTURE, "expires_after_s": "3600"},
        headers={"Prefer": "wait=30"},
    ).json()
    assert sent["finished_at"] < sent["expires_at"]
    broker = connect(stack.settings())
    assert broker.zscore("sdfsrn:expiring", sent["id"]) is not None
    broker.zadd("sdfsrn:expiring", {sent["id"]: 1.0})  # an hour later
    folder = stack.data / "artifacts" / "jobs" / sent["id"]
    assert folder.is_dir()
    address = f"/v1/jobs/{sent['id']}"
    deadline = time.monotonic() + 10
    while stack.client.get(f"{address}/artifacts").status_code != 410 and time.monotonic() < deadline:
        time.sleep(0.1)
    gone = stack.client.get(f"{address}/artifacts/silhouette_000.png")
    assert gone.status_code == 410 and gone.headers["content-type"] == "application/problem+json"
    assert stack.client.get(f"{address}/archive").status_code == 410
    assert not folder.exists()
    assert stack.client.get(address).json()["status"] == "succeeded", "the record stays"
    assert events_of(stack.client, sent["id"])[-1]["event"] == "end"


def test_lists_are_complete_whatever_is_filtered(stack: Stack, finished: dict[str, Any]) -> None:
    def all_pages(**wanted: str) -> list[str]:
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = stack.client.get("/v1/jobs", params={"limit": "3", **wanted, **cursor}).json()
            found += [job["id"] for job in page["items"]]
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}

    everything = all_pages()
    assert everything == sorted(set(everything), reverse=True) and finished["id"] in everything
    split = [job_id for kind in ("reconstruction", "training", "dataset") for job_id in all_pages(type=kind)]
    assert sorted(split) == sorted(everything)


def test_metrics_are_prometheus_text(stack: Stack, finished: dict[str, Any]) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    stack.client.request("BREW", "/healthz")
    stack.client.get(f"/v1/jobs/{finished['id']}")
    families = {family.name: family for family in text_string_to_metric_families(stack.client.get("/metrics").text)}
    methods = {sample.labels["method"] for sample in families["sdfsrn_http_requests"].samples}
    assert "other" in methods and "BREW" not in methods, "who may not even ask must not make series"
    samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families.values() for s in f.samples}
    assert samples[("sdfsrn_alive", (("process", "keeper"),))] == 1
    assert samples[("sdfsrn_jobs_ended_total", (("status", "succeeded"), ("type", "reconstruction")))] >= 1
    routes = {s.labels["route"] for s in families["sdfsrn_http_requests"].samples if "route" in s.labels}
    assert "/v1/jobs/{job_id}" in routes and not any(finished["id"] in route for route in routes)
