"""The client against the real service: the same things waiting and awaiting, and what happens when things go wrong."""

import asyncio
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdfsrn.cli import app
from sdfsrn.client import AsyncClient, Client, Event, ServiceError
from tests.conftest import SMALL_TRAINING, Stack


@pytest.fixture
def url(stack: Stack) -> str:
    return str(stack.client.base_url)


@pytest.fixture
def picture(photo: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(photo)
    return path


def test_submit_wait_and_fetch(url: str, picture: Path, tmp_path: Path) -> None:
    with Client(url) as client:
        seen: list[Event] = []
        sent = client.reconstruct(picture, size=32, views={"count": 1}, outputs=["silhouettes"], idempotency_key="c1")
        job = client.wait(sent.id, seen.append)
        assert job.status == "succeeded" and job.ended and 0 <= job.metrics["input_iou"] <= 1
        assert seen[-1].kind == "end" and {"status", "progress"} <= {event.kind for event in seen}
        assert client.reconstruct(picture, size=32, views={"count": 1}, outputs=["silhouettes"], idempotency_key="c1").id == job.id
        names = {path.name for path in client.fetch(job.id, tmp_path / "out")}
        made = {"contact_sheet.png", "mask.png", "result.json", "silhouette_000.png"}
        assert names == made == {p.name for p in (tmp_path / "out").iterdir()}
        assert job.id in {each.id for each in client.jobs(type="reconstruction", limit=2)}
        client.delete(job.id)
        with pytest.raises(ServiceError, match="no such job") as refused:
            client.job(job.id)
        assert refused.value.status == 404


def test_the_same_awaited(url: str, picture: Path, tmp_path: Path) -> None:
    async def use() -> set[str]:
        async with AsyncClient(url) as client:
            jobs = await asyncio.gather(*(client.reconstruct(picture, size=32, views={"count": 1}) for _ in range(3)))
            ended = await asyncio.gather(*(client.wait(job.id) for job in jobs))
            assert {job.status for job in ended} == {"succeeded"}
            assert {job.id async for job in client.jobs(type="reconstruction")} >= {job.id for job in jobs}
            return {path.name for path in await client.fetch(jobs[0].id, tmp_path / "out")}

    assert "result.json" in asyncio.run(use())


def test_pausing_a_training(url: str) -> None:
    with Client(url) as client:
        job = client.train(**{**SMALL_TRAINING, "config": {**SMALL_TRAINING["config"], "epochs": 400}})
        assert client.pause(job.id).status in ("pausing", "paused")
        for event in client.events(job.id):
            if event.data.get("status") == "paused":
                break
        assert client.resume(job.id).status in ("queued", "running")
        assert client.cancel(job.id).status in ("cancelling", "cancelled")
        assert client.wait(job.id).status == "cancelled"


def test_refusals_say_what_was_wrong(url: str, picture: Path) -> None:
    with Client(url) as client, pytest.raises(ServiceError, match="size") as refused:
        client.reconstruct(picture, size=3)
    assert refused.value.status == 422 and "size" in refused.value.fields
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServiceError, match="no service answers"):
        client.jobs().__next__()


def test_a_damaged_download_is_not_left_behind(url: str, picture: Path, tmp_path: Path, stack: Stack) -> None:
    with Client(url) as client:
        job = client.wait(client.reconstruct(picture, size=32, views={"count": 1}).id)
        file = next((stack.data / "artifacts" / "jobs" / job.id).rglob("silhouette_000.png"))
        file.write_bytes(bytes(len(file.read_bytes())))
        with pytest.raises(ServiceError, match="damaged"):
            client.fetch(job.id, tmp_path / "out")
        assert not [path for path in (tmp_path / "out").iterdir() if "silhouette" in path.name]


def test_the_command_line_submits_watches_and_fetches(url: str, picture: Path, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(app, [*words, "--url", url])
        assert result.exit_code == 0, result.output
        return result.output

    job_id = run("submit", str(picture), "--field", "size=32").strip()
    run("watch", job_id)
    assert "result.json" in run("fetch", job_id, "--out", str(tmp_path / "got"))
    assert (tmp_path / "got" / "result.json").is_file()
    training = run("submit", "--training", '{"dataset": {"n_shapes": 2}, "config": {"epochs": 1}}').strip()
    assert CliRunner().invoke(app, ["watch", training, "--url", url]).exit_code in (0, 1)
    assert CliRunner().invoke(app, ["submit", "--url", url]).exit_code == 1


def _said(*words: str) -> str:
    """What the command line says as it ends with code 1; never a traceback."""
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize("job_id", ["01m8dq5vertnvjke33qnk4sxwn", "nothing", "../models"])
def test_the_command_line_knows_that_there_is_no_such_job(url: str, job_id: str, tmp_path: Path) -> None:
    for said in (_said("watch", job_id, "--url", url), _said("fetch", job_id, "--url", url, "--out", str(tmp_path / "out"))):
        assert f"there is no job {job_id}" in said and "queued" not in said
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_why_there_is_nothing_to_fetch(url: str, tmp_path: Path) -> None:
    long = {**SMALL_TRAINING, "config": {**SMALL_TRAINING["config"], "epochs": 5000}}
    with Client(url) as client:
        job = client.train(**long)
        words = ("fetch", job.id, "--url", url, "--out", str(tmp_path / "out"))
        said = _said(*words)
        assert f"job {job.id} is " in said and "no artifacts yet" in said
        client.cancel(job.id)
        client.wait(job.id)
        assert f"job {job.id} was cancelled: it has no artifacts" in _said(*words)
        assert f"job {job.id} was cancelled" in _said("watch", job.id, "--url", url)
        with pytest.raises(ServiceError, match="was cancelled"):
            client.fetch(job.id, tmp_path / "out")
        failed = client.upload_dataset(_zip(tmp_path))
        assert client.wait(failed.id).status == "failed"
        for command in ("watch", "fetch"):
            said = _said(command, failed.id, "--url", url)
            assert f"job {failed.id} failed (" in said and client.job(failed.id).error["detail"][:30] in said  # type: ignore[index]


def _zip(folder: Path) -> Path:
    """An archive that has no cameras, which is seen when it is checked."""
    path = folder / "bare.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("read.me", "no cameras")
    return path


def test_the_command_line_says_what_is_wrong_with_an_address_a_key_or_a_field(url: str, picture: Path, tmp_path: Path) -> None:
    jobs = ("watch", "0" * 26)
    assert "no service answers at http://127.0.0.1:9" in _said(*jobs, "--url", "http://127.0.0.1:9")
    for address in ("localhost", "http://[::1", "ftp://127.0.0.1"):
        assert f"{address} is no address of a service" in _said(*jobs, "--url", address)
    assert "key has characters" in _said(*jobs, "--url", url, "--key", "\u00e4" * 20)
    submit = ("submit", str(picture), "--url", url)
    assert "there is no model 'nothing'" in _said(*submit, "--field", "model=nothing")
    assert "expected name=value" in _said(*submit, "--field", "size")
    assert "no field of the form" in _said(*submit, "--field", "image=x")
    assert "--training is no JSON" in _said("submit", "--training", "{", "--url", url)
    assert "must be a JSON object" in _said("submit", "--training", "[]", "--url", url)
    assert "--field is for pictures" in _said("submit", "--training", "{}", "--field", "size=32", "--url", url)
    (tmp_path / "file").touch()
    with Client(url) as client:
        done = client.wait(client.reconstruct(picture, size=32, views={"count": 1}).id)
    assert "File exists" in _said("fetch", done.id, "--url", url, "--out", str(tmp_path / "file"))


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def _answering(answer: Callable[[int], Answer | None]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server of somebody else's: its address, and the headers of every request; None closes the connection without an answer."""
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            asked.append({name.lower(): value for name, value in self.headers.items()})
            told = answer(len(asked))
            if told is not None:
                status, headers, body = told
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            self.close_connection = True

        do_GET = do_DELETE = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


ENVELOPE = {
    **{"id": "a", "type": "dataset", "status": "queued", "metrics": {}, "error": None},
    "progress": {"phase": "waiting", "fraction": 0.0},
}
TAKEN = (202, {"Content-Type": "application/json"}, json.dumps(ENVELOPE).encode())


def _later(status: int, seconds: str) -> Answer:
    problem = {"type": "about:blank", "title": "Later", "status": status, "detail": "not now"}
    return status, {"Content-Type": "application/problem+json", "Retry-After": seconds}, json.dumps(problem).encode()


def _upload(url: str, file: Path, awaited: bool) -> str:
    async def send() -> str:
        async with AsyncClient(url) as client:
            return (await client.upload_dataset(file)).id

    if awaited:
        return asyncio.run(send())
    with Client(url) as client:
        return client.upload_dataset(file).id


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("first", [_later(503, "2"), _later(429, "2"), None], ids=["503", "429", "no answer"])
def test_a_request_is_sent_again_whole_under_the_same_key(tmp_path: Path, first: Answer | None, awaited: bool) -> None:
    """After as long as Retry-After says, and so that a service that had taken it makes no second job."""
    file = tmp_path / "set.zip"
    file.write_bytes(b"PK" + bytes(100_000))
    with _answering(lambda number: first if number == 1 else TAKEN) as (url, asked):
        started = time.monotonic()
        assert _upload(url, file, awaited) == "a"
        assert time.monotonic() - started >= (2 if first else 1)
        assert _upload(url, file, awaited) == "a"
    keys = [each["idempotency-key"] for each in asked]
    assert len(keys) == 3 and keys[0] == keys[1] != keys[2] and len(keys[0]) >= 16


@pytest.mark.parametrize("awaited", [False, True])
def test_a_job_that_is_gone_when_a_removal_is_repeated_was_removed(awaited: bool) -> None:
    problem = json.dumps({"type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is no such job"}).encode()
    gone = (404, {"Content-Type": "application/problem+json"}, problem)

    async def delete(url: str) -> None:
        async with AsyncClient(url) as client:
            await client.delete("a")

    with _answering(lambda number: None if number == 1 else gone) as (url, asked):
        if awaited:
            asyncio.run(delete(url))
        else:
            with Client(url) as client:
                client.delete("a")
        assert len(asked) == 2
        with Client(url) as client, pytest.raises(ServiceError, match="no such job"):
            client.delete("a")


def test_a_wait_longer_than_the_patience_is_a_refusal() -> None:
    with _answering(lambda _: _later(429, "3600")) as (url, asked), Client(url) as client:
        with pytest.raises(ServiceError, match="not now; try again in 3600 s") as refused:
            client.train()
        assert refused.value.status == 429 and refused.value.retry_after_s == 3600 and len(asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"Content-Type": "text/html"}, b"<p>hello"),
        (404, {"Content-Type": "text/html"}, b"<p>nothing"),
        (200, {"Content-Type": "application/json"}, b'{"id": "a"}'),
        (302, {"Location": "/login"}, b""),
        (400, {"Content-Type": "application/json"}, b"[]"),
    ],
)
def test_another_kind_of_service_is_told_from_ours(answer: Answer) -> None:
    with _answering(lambda _: answer) as (url, _), Client(url) as client:
        calls: list[Callable[[], object]] = [
            lambda: client.job("a"),
            lambda: client.artifacts("a"),
            lambda: next(client.jobs()),
            lambda: next(client.events("a")),
        ]
        for call in calls:
            with pytest.raises(ServiceError, match="is no sdfsrn service, or one of another version"):
                call()
        assert "is no sdfsrn service" in _said("submit", "--training", "{}", "--url", url)
