"""What every request meets before a route does: keys, HEAD, Allow; and what is said while the broker is away."""

import signal
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from tests.conftest import Broker
from tests.service.test_restart import Api, connected

KEY = {"Authorization": "Bearer alice-0123456789abcdef"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(Settings(data=tmp_path_factory.mktemp("door") / "data")) as running:
        yield running


@pytest.fixture(scope="module")
def api(broker: Broker) -> Iterator[Api]:
    """The API with a key, and no workers."""
    running = Api(broker.settings.data, keys="alice:alice-0123456789abcdef")
    yield running
    running.close()


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[httpx.Client]:
    with connected(api.url) as opened:
        yield opened


JSON = {"Content-Type": "application/json"}
OPEN = ["/", "/docs", "/openapi.json", "/healthz", "/readyz", "/static/page.js"]


@pytest.mark.parametrize(
    ("method", "path", "content", "headers"),
    [
        ("POST", "/v1/trainings", b"{", JSON),
        ("POST", "/v1/trainings", b'{"dataset": 7}', JSON),
        ("POST", "/v1/trainings", b"x", {"Content-Type": "text/plain"}),
        ("POST", "/v1/reconstructions", b"x", {"Content-Type": "image/png"}),
        ("POST", "/v1/jobs/x/cancel", b"", {}),
        ("PUT", "/v1/models/default/aliases/a", b"{", JSON),
        ("PATCH", "/v1/jobs", b"", {}),
        ("GET", "/v1/nothing", b"", {}),
        ("GET", "/v1/jobs?limit=x", b"", {}),
        ("HEAD", "/v1/jobs", b"", {}),
        ("GET", "/nothing", b"", {}),
        ("GET", "/metrics", b"", {}),
    ],
)
def test_a_key_is_judged_before_everything_else(
    client: httpx.Client, method: str, path: str, content: bytes, headers: dict[str, str]
) -> None:
    answer = client.request(method, path, content=content, headers=headers)
    assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
    with_key = client.request(method, path, content=content, headers=headers | KEY)
    assert with_key.status_code != 401


@pytest.mark.parametrize("path", OPEN)
def test_pages_and_what_a_load_balancer_asks_need_no_key(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == client.head(path).status_code == 200


def test_an_upload_without_a_key_is_refused_before_its_body(api: Api) -> None:
    """The answer comes though nothing of the body was sent; then the connection does not wait for two gigabytes."""
    head = "POST /v1/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/zip\r\nContent-Length: 1900000000\r\n\r\n"
    with socket.create_connection(api.address, 30) as connection:
        started = time.monotonic()
        connection.sendall(head.encode())
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 401 ")
        while connection.recv(65536):
            pass
        assert time.monotonic() - started < 20, "a body that is silent has 60 seconds"


def test_who_sends_everything_before_reading_still_reads_the_refusal(client: httpx.Client) -> None:
    for size in (5_000_000, 60_000_000):
        answer = client.post("/v1/datasets", content=bytes(size), headers={"Content-Type": "application/zip"})
        assert answer.status_code == 401
    answer = client.post("/v1/reconstructions", content=bytes(60_000_000), headers=KEY)
    assert answer.status_code == 413 and "longer than" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/jobs", "GET, HEAD"),
        ("/v1/jobs/x", "DELETE, GET, HEAD"),
        ("/v1/jobs/x/cancel", "POST"),
        ("/v1/jobs/x/artifacts/y", "GET, HEAD"),
        ("/v1/reconstructions", "POST"),
        ("/v1/datasets", "GET, HEAD, POST"),
        ("/v1/models/default/aliases/a", "DELETE, PUT"),
        ("/v1/models/default/versions/1", "DELETE, GET, HEAD"),
        ("/", "GET, HEAD"),
        ("/docs", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/static/page.js", "GET, HEAD"),
        ("/healthz", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
    ],
)
def test_a_405_names_what_is_allowed(client: httpx.Client, path: str, allowed: str) -> None:
    for method in ("PATCH", "OPTIONS", "BREW"):
        answer = client.request(method, path, headers=KEY)
        assert answer.status_code == 405 and answer.headers["allow"] == allowed
        assert allowed in answer.json()["detail"] and answer.headers["content-type"] == "application/problem+json"


VOLATILE = ("date", "x-trace-id", "etag", "last-modified")


@pytest.mark.parametrize("path", [*OPEN, "/v1/jobs", "/v1/jobs/x", "/v1/models", "/v1/models/default"])
def test_head_answers_as_get_does_without_a_body(client: httpx.Client, path: str) -> None:
    get, head = (client.request(method, path, headers=KEY) for method in ("GET", "HEAD"))
    told = [{name: value for name, value in answer.headers.items() if name not in VOLATILE} for answer in (get, head)]
    assert head.status_code == get.status_code and told[0] == told[1] and head.content == b""
    assert client.head("/v1/trainings", headers=KEY).headers["allow"] == "POST"


def test_head_of_a_running_job_s_events_does_not_follow_them(client: httpx.Client) -> None:
    job = client.post("/v1/trainings", json={}, headers=KEY).json()
    started = time.monotonic()
    head = client.head(f"/v1/jobs/{job['id']}/events", headers=KEY)
    assert head.status_code == 200 and head.headers["content-type"].startswith("text/event-stream")
    assert time.monotonic() - started < 30, "no worker is there: the job stays as it is"


def test_the_archive_of_a_job_that_made_nothing_says_why(client: httpx.Client) -> None:
    job = client.post("/v1/trainings", json={}, headers=KEY).json()["links"]
    waiting = client.get(job["archive"], headers=KEY)
    assert waiting.status_code == 409 and "queued" in waiting.json()["detail"] and int(waiting.headers["retry-after"]) > 0
    assert "queued" in client.get(f"{job['artifacts']}/mesh.glb", headers=KEY).json()["detail"]
    assert client.get(job["artifacts"], headers=KEY).json() == []
    client.post(job["cancel"], headers=KEY)
    cancelled = client.get(job["archive"], headers=KEY)
    assert cancelled.status_code == 409 and "cancelled" in cancelled.json()["detail"] and "retry-after" not in cancelled.headers


@pytest.mark.parametrize("moment", ["2026-01-31T12:00:00Z", "2026-01-31t12:00:00.5z", "2026-01-31T12:00:00+02:00"])
def test_a_plus_that_was_not_encoded_is_understood(client: httpx.Client, moment: str) -> None:
    assert client.get(f"/v1/jobs?created_after={moment}", headers=KEY).status_code == 200


@pytest.mark.parametrize("moment", ["2026-01-31", "1764115200", "2026-01-31T12:00:00", "2026-13-31T12:00:00Z", "T"])
def test_other_times_are_refused(client: httpx.Client, moment: str) -> None:
    answer = client.get(f"/v1/jobs?created_after={moment}", headers=KEY)
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "created_after"


def test_broker_and_storage_decide_whether_it_may_be_sent_traffic(client: httpx.Client) -> None:
    """No worker runs here, and no keeper: they are named, and traffic is taken, which waits for them."""
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"broker": "ok", "storage": "ok"} | dict.fromkeys(
        ("keeper", "reconstruction_worker", "training_worker", "dataset_worker"), "none is ready"
    )


def _gauges(client: httpx.Client) -> dict[str, float]:
    answer = client.get("/metrics", headers=KEY)
    assert answer.status_code == 200
    return {sample.name: sample.value for family in text_string_to_metric_families(answer.text) for sample in family.samples}


def test_figures_are_told_while_the_broker_is_away(client: httpx.Client, broker: Broker) -> None:
    assert _gauges(client)["sdfsrn_broker_up"] == 1
    broker.kill()
    try:
        found = _gauges(client)
        assert found["sdfsrn_broker_up"] == 0 and "sdfsrn_http_requests_total" in found and "sdfsrn_jobs_running" not in found
        ready = client.get("/readyz")
        assert ready.status_code == 503 and ready.json()["broker"] == "cannot be reached" and ready.json()["storage"] == "ok"
        assert client.get("/healthz").status_code == 200 and client.get("/v1/jobs", headers=KEY).status_code == 503
    finally:
        broker.start()
    broker.process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        assert _gauges(client)["sdfsrn_broker_up"] == 0
        assert time.monotonic() - started < 9, "Prometheus waits for ten seconds"
    finally:
        broker.process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + 10
    while _gauges(client)["sdfsrn_broker_up"] == 0:
        assert time.monotonic() < deadline
