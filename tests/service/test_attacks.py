"""What somebody sends who means harm: none of it costs more than its own request, and none of it is a 500."""

import hmac
import http.server
import io
import os
import re
import resource
import socket
import stat
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from service import callers, webhooks
from service.errors import Problem
from service.jobs import Job
from service.settings import Settings
from service.webhooks import NotSent, send
from tests.conftest import Stack

WAIT = {"Prefer": "wait=60"}
ZIP = {"Content-Type": "application/zip"}
SECRET_PLACE = "taken at 48.8584 N, 2.2945 E"


def _picture(side: int = 64) -> Image.Image:
    picture = Image.new("RGBA", (side, side))
    picture.paste((200, 90, 60, 255), (side // 4, side // 4, 3 * side // 4, 3 * side // 4))
    return picture


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _reconstruct(client: httpx.Client, image: bytes, **fields: str) -> httpx.Response:
    return client.post("/v1/reconstructions", files={"image": image}, data={"size": "32", **fields}, headers=WAIT)


@pytest.mark.parametrize(
    ("kind", "side", "options"),
    [
        ("PNG", 16_000, {}),
        ("WEBP", 8_000, {"lossless": True, "method": 0}),
        pytest.param("WEBP", 16_000, {"lossless": True, "method": 0}, marks=pytest.mark.slow),
    ],
)
def test_a_picture_of_a_few_bytes_and_very_many_pixels(client: httpx.Client, kind: str, side: int, options: dict[str, Any]) -> None:
    """Refused by its header, or, where a decoder takes memory before it tells the size, by the limit of its process."""
    bomb = _encoded(Image.new("L", (side, side)), kind, **options)
    assert len(bomb) < 1_000_000
    started = time.monotonic()
    answer = _reconstruct(client, bomb)
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "image"
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_a_hundred_frames_one_is_looked_at(client: httpx.Client, kind: str) -> None:
    frames = [Image.effect_noise((64, 64), 20 + i).convert("RGBA") for i in range(99)]
    answer = _reconstruct(
        client, _encoded(_picture(), kind, save_all=True, append_images=frames, **({"lossless": True} if kind == "WEBP" else {}))
    )
    assert answer.status_code == 200 and answer.json()["status"] == "succeeded", answer.text
    alone = _reconstruct(client, _encoded(_picture(), "PNG"))
    assert answer.json()["input_digest"] == alone.json()["input_digest"]


def test_no_artifact_says_where_a_picture_was_taken(stack: Stack) -> None:
    exif = Image.Exif()
    exif[0x010E] = SECRET_PLACE  # ImageDescription
    sent = _encoded(_picture(256).convert("RGB"), "JPEG", exif=exif, quality=95)
    assert SECRET_PLACE.encode() in sent
    everything = '["silhouettes", "depth", "normals", "mesh", "turntable", "sdf_grid"]'
    job = _reconstruct(stack.client, sent, outputs=everything).json()
    assert job["status"] == "succeeded", job
    files = [path for path in (stack.data / "artifacts" / "jobs" / job["id"]).rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert b"48.8584" not in path.read_bytes() and b"Exif" not in path.read_bytes(), path


BAD_NAMES = [
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "%2fetc%2fpasswd",
    "%00",
    "a%00b",
    "%0d%0aX-Evil:1",
    "%e2%80%ae",
    "a" * 3000,
    "%ff",
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/{}",
        "/v1/jobs/{}/events",
        "/v1/jobs/{}/artifacts",
        "/v1/jobs/{}/archive",
        "/v1/jobs/JOB/artifacts/{}",
        "/v1/datasets/{}",
        "/v1/models/{}",
        "/v1/models/{}/versions/1",
        "/v1/models/default/versions/{}",
        "/static/{}",
    ],
)
def test_no_path_leads_elsewhere(client: httpx.Client, done: str, path: str, name: str) -> None:
    answer = client.get(httpx.URL(client.base_url).copy_with(raw_path=path.replace("JOB", done).format(name).encode()))
    assert answer.status_code in (404, 422), answer.text
    assert b"root:" not in answer.content and "x-evil" not in answer.headers


@pytest.fixture(scope="module")
def done(stack: Stack) -> str:
    """A job that made something."""
    return str(_reconstruct(stack.client, _encoded(_picture(), "PNG")).json()["id"])


def test_a_hundred_ranges_are_answered_with_the_whole_or_refused(client: httpx.Client, done: str) -> None:
    file = client.get(f"/v1/jobs/{done}/artifacts").json()[0]
    ranges = ",".join(f"{i}-{i + 1}" for i in range(0, 200, 2))
    answer = client.get(file["href"], headers={"Range": f"bytes={ranges}"})
    assert answer.status_code in (200, 416) and len(answer.content) <= max(file["bytes"], 1000)


@pytest.mark.parametrize("field", ["metadata", "views", "model", "webhook_url"])
def test_a_field_of_megabytes_is_refused(client: httpx.Client, field: str) -> None:
    answer = _reconstruct(client, _encoded(_picture(), "PNG"), **{field: "a" * 2_000_000})
    assert answer.status_code in (400, 413), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/v1/reconstructions", "/v1/datasets"])
@pytest.mark.parametrize("charset", ["punycode", "undefined", ""])
def test_a_form_in_another_charset_is_refused_at_once(client: httpx.Client, path: str, charset: str) -> None:
    """A megabyte of Punycode would keep the event loop busy for minutes, `undefined` decodes nothing."""
    text = b"a" * 100_000 + b"-" + b"b" * 100_000
    body = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + text + b"\r\n--x--\r\n"
    kind = f'multipart/form-data; boundary=x; charset="{charset}"'
    answer = client.post(path, content=body, headers={"Content-Type": kind}, timeout=30)
    assert answer.status_code == 415 and answer.json()["errors"][0]["field"] == "content-type", answer.text


def test_a_form_may_say_that_it_is_in_utf_8(client: httpx.Client) -> None:
    body = '--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n\u00e4\r\n--x--\r\n'.encode()
    answer = client.post(
        "/v1/reconstructions", content=body, headers={"Content-Type": "multipart/form-data; boundary=x; charset=UTF-8"}
    )
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "image"


@pytest.mark.parametrize("limit", [psutil.RLIMIT_NOFILE, psutil.RLIMIT_FSIZE])
def test_without_handles_or_room_for_what_is_sent_the_answer_is_503(stack: Stack, limit: int) -> None:
    api = next(process for process in psutil.Process(stack.process.pid).children() if "service.serve" in process.cmdline())
    archive = b"PK" + bytes(3_000_000)
    with httpx.Client(base_url=stack.client.base_url, trust_env=False) as client:
        assert client.get("/readyz").status_code == 200  # over the one connection that all that follows uses
        soft, hard = api.rlimit(limit)
        api.rlimit(limit, (3 if limit == psutil.RLIMIT_NOFILE else 4096, hard))
        try:
            answers = [client.post("/v1/datasets", content=archive, headers=ZIP), client.post("/v1/datasets", files={"a": archive})]
        finally:
            api.rlimit(limit, (soft, hard))
        assert [answer.status_code for answer in answers] == [503, 503], answers[0].text + answers[1].text
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
        assert client.get("/readyz").status_code == 200


def test_thousands_of_fields_are_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/reconstructions", files=[(f"f{i}", (None, "x")) for i in range(5000)])
    assert answer.status_code in (400, 413, 422), answer.text


@pytest.mark.parametrize(
    "name", ["\u202e gnp.exe", "a\x00b", "a\r\nX: 1", "𝔞" * 90, "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")]
)
def test_names_in_any_script_come_back_as_they_were_or_are_refused(client: httpx.Client, name: str) -> None:
    answer = client.post("/v1/trainings", json={"metadata": {name: name}, "config": {"epochs": 1}, "dataset": {"n_shapes": 1}})
    assert answer.status_code in (202, 422), answer.text
    if answer.status_code == 202:
        assert answer.json()["metadata"] == {name: name}
        client.delete(f"/v1/jobs/{answer.json()['id']}")


def _archive(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data in entries:
            archive.writestr(info, data)
    return buffer.getvalue()


def _named(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename, info.external_attr, info.compress_type = name, mode << 16, zipfile.ZIP_DEFLATED
    return info


@pytest.mark.parametrize(
    ("name", "entries", "status", "reason"),
    [
        ("../../evil.png", [(_named("../../evil.png"), b"x")], 422, "leads out"),
        ("/tmp/evil.png", [(_named("/tmp/evil.png"), b"x")], 422, "leads out"),
        ("a\\..\\..\\evil.png", [(_named("a\\..\\..\\evil.png"), b"x")], 422, "leads out"),
        ("link.png", [(_named("link.png", stat.S_IFLNK | 0o777), b"/etc/passwd")], 422, "link"),
        ("bomb.png", [(_named("bomb.png"), bytes(50_000_000))], 413, "at most"),
    ],
)
def test_archives_that_mean_harm_are_refused_and_leave_nothing(
    stack: Stack, name: str, entries: list[tuple[zipfile.ZipInfo, bytes]], status: int, reason: str
) -> None:
    answer = stack.client.post("/v1/datasets", content=_archive(entries), headers=ZIP)
    assert answer.status_code == status and reason in answer.json()["detail"], answer.text
    assert answer.json()["errors"][0]["field"] in (name, ascii(name))
    kept = {file for _, _, files in os.walk(stack.data) for file in files}  # bears folders of other jobs that go meanwhile
    assert kept and "evil.png" not in kept and not Path("/tmp/evil.png").exists()


def test_keys_are_compared_in_constant_time_and_all_of_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each with compare_digest, on digests of one length, whether or not an earlier one was right."""
    compared: list[tuple[int, int]] = []

    def counting(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return hmac_compare(a, b)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(callers.hmac, "compare_digest", counting)
    known = callers.Callers(Settings(data=tmp_path, keys={name: f"{name}-0123456789abcdef" for name in ("a", "b", "c")}))
    assert known.name("Bearer a-0123456789abcdef") == "a" and len(compared) == 3
    with pytest.raises(Problem, match="401"):
        known.name("Bearer x")
    assert compared == [(32, 32)] * 6


@contextmanager
def _redirecting(to: str) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(307)
            self.send_header("Location", to)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


def test_a_webhook_follows_no_redirection(tmp_path: Path) -> None:
    with _redirecting("http://127.0.0.1:1/") as (target, reached), _redirecting(f"{target}/secret") as (url, asked):
        secret = "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
        settings = Settings(data=tmp_path, webhook_secret=secret, webhook_hosts=("127.0.0.1",), webhook_private=True)
        job = Job("0" * 26, "training", "training", "2026-01-01T00:00:00.000Z", webhook=f"{url}/told", status="succeeded")
        with pytest.raises(NotSent):
            send(job, settings)
        assert asked == ["/told"] and reached == []


def test_a_receiver_that_drips_its_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as receiver:

        def drip() -> None:
            connection, _ = receiver.accept()
            with connection, suppress(OSError):
                for byte in b"HTTP/1.1 204 No Content\r\n" + b"x: y\r\n" * 100:
                    connection.send(bytes([byte]))
                    time.sleep(0.2)

        threading.Thread(target=drip, daemon=True).start()
        url = f"http://127.0.0.1:{receiver.getsockname()[1]}/"
        secret = "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
        settings = Settings(data=tmp_path, webhook_secret=secret, webhook_hosts=("127.0.0.1",), webhook_private=True)
        job = Job("0" * 26, "training", "training", "2026-01-01T00:00:00.000Z", webhook=url, status="succeeded")
        started = time.monotonic()
        with pytest.raises(NotSent, match="within"):
            send(job, settings)
        assert time.monotonic() - started < 15, "all of the answer would take two minutes"


def test_a_thousand_connections_that_say_nothing(stack: Stack) -> None:
    """They cost their sockets: others are served as before, meanwhile and after."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    address = (str(stack.client.base_url.host), int(stack.client.base_url.port or 80))
    silent = [socket.create_connection(address, 10) for _ in range(1000)]
    try:
        for _ in range(5):
            started = time.monotonic()
            assert httpx.get(f"{stack.client.base_url}/healthz", trust_env=False).status_code == 200
            assert time.monotonic() - started < 10, "a connection that says nothing is closed after 20 seconds"
    finally:
        for each in silent:
            each.close()
    assert stack.client.get("/healthz").status_code == 200


def _talk(address: tuple[str, int], sent: bytes, within_s: float = 30) -> bytes:
    """What a server says to these bytes until it closes the connection."""
    with socket.create_connection(address, within_s) as connection:
        with suppress(OSError):  # it may close before it has read everything
            connection.sendall(sent)
        heard = b""
        with suppress(ConnectionResetError):
            while some := connection.recv(65536):
                heard += some
        return heard


def _address(stack: Stack) -> tuple[str, int]:
    return str(stack.client.base_url.host), int(stack.client.base_url.port or 80)


@pytest.mark.parametrize(
    "headers",
    [b"X: " + b"a" * 20_000_000, b"".join(b"X-%d: %s\r\n" % (i, b"a" * 100) for i in range(100_000)), b"X:a\r\n" * 2_000_000],
    ids=["one of 20 MB", "100,000 of them", "2,000,000 small ones"],
)
def test_headers_without_end_are_refused(stack: Stack, headers: bytes) -> None:
    api = next(process for process in psutil.Process(stack.process.pid).children() if "service.serve" in process.cmdline())
    before = api.memory_info().rss
    heard = _talk(_address(stack), b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + headers)
    assert heard.startswith(b"HTTP/1.1 431 ") and b"application/problem+json" in heard, heard[:200]
    assert api.memory_info().rss - before < 10_000_000
    assert stack.client.get("/healthz").status_code == 200


def test_what_is_not_http_is_answered_with_a_problem(stack: Stack) -> None:
    heard = _talk(_address(stack), b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 400 ") and b"Send HTTP/1.1" in heard


@pytest.mark.slow
def test_headers_and_bodies_that_drip_are_given_up(stack: Stack) -> None:
    """A header a second for ever; nothing at all; a body that stops: all at once."""

    def drip() -> bytes:
        with socket.create_connection(_address(stack), 60) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
            with suppress(OSError):
                while True:
                    connection.sendall(b"X: y\r\n")
                    time.sleep(1)
            return connection.recv(65536)

    head = b"POST /v1/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/zip\r\nContent-Length: 1000\r\n\r\nPK"
    started = time.monotonic()
    with ThreadPoolExecutor() as senders:
        dripped, silent = senders.submit(drip), senders.submit(_talk, _address(stack), b"", 60)
        stopped = senders.submit(_talk, _address(stack), head, 90)
        assert dripped.result().startswith(b"HTTP/1.1 408 ") and silent.result() == b""
        assert time.monotonic() - started < 40
        assert stopped.result() == b""
        assert time.monotonic() - started < 80


@pytest.mark.parametrize("path", ["/v1/jobs/", "/v1/models/", "/docs/", "/static"])
def test_no_redirection_repeats_the_host(client: httpx.Client, path: str) -> None:
    """Another Host passes where there are keys; here it is one of those that are served, in other letters."""
    answer = client.get(path, headers={"Host": "LOCALHOST:81"})
    assert answer.status_code == 404 and "location" not in answer.headers


def test_the_pages_run_no_inline_script(client: httpx.Client) -> None:
    for path in ("/", "/docs"):
        answer = client.get(path)
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'self'" and "script-src" not in policy and policy["frame-ancestors"] == "'none'"
        scripts = re.findall(r"<script([^>]*)>(.*?)</script>", answer.text, re.DOTALL)
        assert scripts and all("src=" in attributes and not text for attributes, text in scripts)
        for address in re.findall(r'(?:src|href)="(/[^"]*)"', answer.text):
            assert client.get(address).status_code == 200, address


def test_an_upload_that_breaks_off_is_no_error_of_the_service(stack: Stack) -> None:
    def counted() -> dict[str, float]:
        families = text_string_to_metric_families(stack.client.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples if sample.name == "sdfsrn_http_requests_total"]
        found = {sample.labels["route"] + sample.labels["status"]: sample.value for sample in samples}
        return {name: count for name, count in found.items() if name.endswith(("499", "500"))}

    before = counted()
    for path, kind in (("/v1/datasets", "application/zip"), ("/v1/reconstructions", "multipart/form-data; boundary=x")):
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 1000000\r\n\r\n--x\r\n"
        with socket.create_connection(_address(stack)) as connection:
            connection.sendall(head.encode())
            time.sleep(0.3)
        deadline = time.monotonic() + 10
        while counted().get(f"{path}499", 0) <= before.get(f"{path}499", 0):
            assert time.monotonic() < deadline, counted()
            time.sleep(0.1)
    assert {name for name in counted() if name.endswith("500")} == {name for name in before if name.endswith("500")}
