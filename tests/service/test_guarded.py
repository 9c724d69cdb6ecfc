"""A service with keys, webhooks and JSON logs: who sees what, who is told, what is written down."""

import base64
import json
import secrets
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from service import serve
from service.errors import Problem
from service.settings import Settings
from service.webhooks import NotSent, check_url, public_addresses
from tests.conftest import SMALL_TRAINING, Stack, start_stack, stop_stack

ALICE, BOB = {"Authorization": "Bearer alice-0123456789abcdef"}, {"Authorization": "Bearer bob-0123456789abcdefgh"}
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
BOBS_SECRET = "whsec_" + base64.b64encode(b"fedcba9876543210fedcba9876543210").decode()


class Receiver:
    """A web server that keeps what it is told, and refuses the first time."""

    def __init__(self) -> None:
        told: list[tuple[dict[str, str], bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append((dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(500 if len(told) == 1 else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.told = told
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/told"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.server.shutdown()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Stack]:
    running = start_stack(
        tmp_path_factory.mktemp("guarded") / "data",
        keys="alice:alice-0123456789abcdef, bob:bob-0123456789abcdefgh, carol:carol-0123456789abcdef",
        webhook_secret="whsec_" + base64.b64encode(bytes(32)).decode(),
        webhook_secrets=f"alice:{SECRET}, bob:{BOBS_SECRET}",
        webhook_hosts=receiver.url.split("/")[2],
        webhook_private="1",
        max_unfinished="2",
        log="json",
    )
    yield running
    stop_stack(running)


@pytest.mark.parametrize("sent", [None, "Basic YTpi", "Bearer", "Bearer nobody"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/models", "/metrics", "/v1/jobs/x/events"])
def test_without_a_key_nothing_is_told(guarded: Stack, sent: str | None, path: str) -> None:
    headers = {"Authorization": sent} if sent else {}
    answer = guarded.client.get(path, headers=headers)
    assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
    assert guarded.client.post("/v1/trainings", json={}, headers=headers).status_code == 401
    assert guarded.client.get("/healthz").status_code == 200


def test_a_key_sees_its_own_jobs_and_quotas(guarded: Stack, photo: bytes) -> None:
    sent = guarded.client.post(
        "/v1/reconstructions", files={"image": photo}, data={"size": "32"}, headers={**ALICE, "Prefer": "wait=30"}
    ).json()
    here = f"/v1/jobs/{sent['id']}"
    assert guarded.client.get(here, headers=ALICE).status_code == 200
    for method, path in [
        ("GET", here),
        ("GET", f"{here}/artifacts"),
        ("GET", f"{here}/artifacts/silhouette_000.png"),
        ("GET", f"{here}/archive"),
        ("GET", f"{here}/events"),
        ("POST", f"{here}/cancel"),
        ("POST", f"{here}/pause"),
        ("POST", f"{here}/resume"),
        ("DELETE", here),
    ]:
        assert guarded.client.request(method, path, headers=BOB).status_code == 404, path
    assert sent["id"] in {job["id"] for job in guarded.client.get("/v1/jobs", headers=ALICE).json()["items"]}
    assert guarded.client.get("/v1/jobs", headers=BOB).json()["items"] == []
    refused = guarded.client.post("/v1/trainings", json={"from_checkpoint": {"job": sent["id"]}}, headers=BOB)
    assert refused.status_code == 422 and "no such training" in refused.json()["detail"]


def test_a_caller_may_have_only_so_many_unfinished_jobs(guarded: Stack, photo: bytes) -> None:
    plan = {**SMALL_TRAINING, "config": {**SMALL_TRAINING["config"], "epochs": 5000}}
    key = {"Idempotency-Key": "once"}
    first = guarded.client.post("/v1/reconstructions", files={"image": photo}, headers=BOB | key | {"Prefer": "wait=30"})
    made = [guarded.client.post("/v1/trainings", json=plan, headers=BOB) for _ in range(3)]
    again = guarded.client.post("/v1/reconstructions", files={"image": photo}, headers=BOB | key)
    assert again.json()["id"] == first.json()["id"], "what was asked before is answered all the same"
    assert [answer.status_code for answer in made] == [202, 202, 429]
    assert int(made[2].headers["retry-after"]) > 0
    picture = guarded.client.post("/v1/reconstructions", files={"image": b"no picture"}, headers=BOB)
    archive = guarded.client.post("/v1/datasets", content=b"no zip", headers=BOB | {"Content-Type": "application/zip"})
    assert picture.status_code == archive.status_code == 429, "before anything is read or decoded"
    assert guarded.client.post("/v1/trainings", json=plan, headers=ALICE).status_code == 202, "another's jobs do not count"
    for headers in (ALICE, BOB):
        for job in guarded.client.get("/v1/jobs?type=training", headers=headers).json()["items"]:
            guarded.client.delete(f"/v1/jobs/{job['id']}", headers=headers)
    last = guarded.client.post("/v1/trainings", json=plan, headers=BOB)
    assert last.status_code == 202
    guarded.client.delete(f"/v1/jobs/{last.json()['id']}", headers=BOB)


def test_a_webhook_is_signed_and_sent_again_until_heard(guarded: Stack, receiver: Receiver, photo: bytes) -> None:
    sent = guarded.client.post(
        "/v1/reconstructions",
        files={"image": photo},
        data={"size": "32", "webhook_url": receiver.url},
        headers={**ALICE, "Prefer": "wait=30"},
    )
    assert sent.status_code == 200, sent.text
    deadline = time.monotonic() + 20
    while len(receiver.told) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(receiver.told) == 2, "refused once, told again"
    for headers, body in receiver.told:
        with pytest.raises(WebhookVerificationError):
            Webhook(BOBS_SECRET).verify(body, headers)
        content = Webhook(SECRET).verify(body, headers)
        assert content["type"] == "job.succeeded" and content["data"]["id"] == sent.json()["id"]
    time.sleep(2)
    assert len(receiver.told) == 2, "and not once more"


@pytest.mark.parametrize(
    "url",
    ["http://evil.example/x", "ftp://127.0.0.1/x", "http://user@127.0.0.1/x", "not a url", "http://[::1", "http://127.0.0.1/a\nb"],
)
def test_webhooks_go_to_known_hosts_only(guarded: Stack, url: str) -> None:
    answer = guarded.client.post("/v1/trainings", json={"webhook_url": url}, headers=ALICE)
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "webhook_url"


def test_a_key_without_a_secret_of_its_own_has_no_webhooks(guarded: Stack, receiver: Receiver) -> None:
    headers = {"Authorization": "Bearer carol-0123456789abcdef"}
    answer = guarded.client.post("/v1/trainings", json={"webhook_url": receiver.url}, headers=headers)
    assert answer.status_code == 422 and "SDFSRN_WEBHOOK_SECRETS" in answer.json()["detail"], answer.text
    assert "carol" in answer.json()["detail"]


@pytest.mark.parametrize(
    "value", ["alice", "alice:whsec_short", f":{SECRET}", f"a:{SECRET},b:{SECRET}", f"a:{SECRET},a:{BOBS_SECRET}"]
)
def test_secrets_that_cannot_be_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="webhook_secrets"):
        Settings(webhook_secrets=value)  # type: ignore[arg-type]


PRIVATE = (
    "127.0.0.1 10.1.2.3 169.254.169.254 192.168.1.1 0.0.0.0 224.0.0.1 "
    "::1 fe80::1 fc00::1 ::ffff:10.0.0.1 2002:7f00:1:: 64:ff9b::7f00:1"
)


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_that_are_not_public_are_not_told(address: str) -> None:
    with pytest.raises(NotSent, match="not public"):
        public_addresses(address, 80, private=False)


def test_webhooks_are_off_until_somebody_turns_them_on() -> None:
    with pytest.raises(Problem, match="422"):
        check_url("http://127.0.0.1/x", "", Settings())


def test_log_lines_carry_job_and_trace_across_the_queue(guarded: Stack, photo: bytes) -> None:
    trace = secrets.token_hex(16)
    answer = guarded.client.post(
        "/v1/reconstructions",
        files={"image": photo},
        data={"size": "32"},
        headers={**ALICE, "Prefer": "wait=30", "traceparent": f"00-{trace}-{'1' * 16}-01"},
    )
    assert answer.headers["x-trace-id"] == trace
    job_id = answer.json()["id"]
    lines: list[dict[str, Any]] = [json.loads(line) for line in guarded.log().splitlines() if line.startswith("{")]
    own = [line for line in lines if line.get("job_id") == job_id]
    assert own and {line["trace_id"] for line in own} == {trace}
    assert {line["process"] for line in own} == {"reconstruction worker"}


def test_keys_are_asked_for_before_others_may_reach_the_service(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="SDFSRN_KEYS"):
        serve.listen(Settings(data=tmp_path, host="0.0.0.0", port=0))
    serve.listen(Settings(data=tmp_path, host="0.0.0.0", port=0, keys={"a": "k" * 16})).close()


@pytest.mark.parametrize("value", ["short:key", "noname", "a b:0123456789abcdef", "a:0123456789abcdef,a:fedcba9876543210"])
def test_keys_that_cannot_be_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="keys"):
        Settings(keys=value)  # type: ignore[arg-type]
