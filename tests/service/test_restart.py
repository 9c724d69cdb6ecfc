"""The API is told to end while clients wait, follow a job and keep asking: none of them loses an answer."""

import http.client
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import lifeline
from service.serve import listen
from service.settings import Settings
from tests.conftest import ROOT, SMALL_TRAINING, Broker


class Api:
    """The HTTP server by itself on a listening socket that outlives it, as `python -m service` keeps it; there are no workers."""

    def __init__(self, data: Path, **environment: str) -> None:
        self.listener = listen(Settings(data=data, port=0))
        self.address = self.listener.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.environment = lifeline.child_environment(
            SDFSRN_DATA=str(data), **{f"SDFSRN_{name.upper()}": value for name, value in environment.items()}
        )
        self.log = data.parent / "api.log"
        self.start()

    def start(self) -> None:
        """Start it; whoever connects before it accepts waits in the socket's queue."""
        number = self.listener.fileno()
        command = [sys.executable, "-m", "service.serve", "--fd", str(number)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, pass_fds=(number,), stderr=log)

    def end(self, number: int = signal.SIGTERM) -> str:
        """Send it a signal and wait for its end; what it wrote to standard error."""
        self.process.send_signal(number)
        self.process.wait(60)  # seconds of them are for a busy machine
        return self.log.read_text()

    def close(self) -> None:
        """End it, if it runs, and free the port."""
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
        self.listener.close()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Broker(Settings(data=tmp_path / "data")):
        running = Api(tmp_path / "data")
        yield running
        running.close()


def connected(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=150, trust_env=False)  # on a busy machine the service starts in a minute


def test_who_waits_for_a_job_is_answered_202_when_the_service_ends(api: Api, photo: bytes) -> None:
    def wait(_: int) -> tuple[httpx.Response, float]:
        with connected(api.url) as client:
            answer = client.post(
                "/v1/reconstructions", files={"image": photo}, data={"size": "32"}, headers={"Prefer": "wait=60"}
            )
            return answer, time.monotonic()

    with connected(api.url) as client, ThreadPoolExecutor(5) as pool:
        waiting = list(map(pool.submit, [wait] * 5, range(5)))
        while len(client.get("/v1/jobs").json()["items"]) < 5:
            time.sleep(0.1)
        told = time.monotonic()
        log = api.end()
        answers = [each.result() for each in waiting]
        api.start()
        for answer, at in answers:
            assert answer.status_code == 202, answer.text
            assert answer.json()["status"] == "queued" and answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
            assert at - told < 30, "they would have waited for a minute"
            assert client.get(answer.headers["location"]).status_code == 200
    assert "Traceback" not in log and "ERROR" not in log, log


def follow(client: httpx.Client, job: str, after: str | None = None) -> list[tuple[str, str]]:
    """The ids and kinds of a job's events until the stream ends."""
    found, parts = [], {}
    headers = {"Last-Event-ID": after} if after else {}
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            parts[name] = value
            if name == "" and "event" in parts:
                found.append((parts["id"], parts["event"]))
                parts = {}
    return found


def test_a_stream_of_events_ends_cleanly_and_goes_on_at_the_next_process(api: Api) -> None:
    with connected(api.url) as client, ThreadPoolExecutor(1) as pool:
        job = client.post("/v1/trainings", json=SMALL_TRAINING).json()["id"]
        reading = pool.submit(follow, client, job)
        time.sleep(1)
        api.end()
        before = reading.result(30)  # httpx raises if a stream is cut off
        assert before and before[-1][1] != "end"
        api.start()
        client.post(f"/v1/jobs/{job}/cancel")
        after = follow(client, job, before[-1][0])
        assert after[-1][1] == "end"
        assert before + after == follow(client, job)


def test_restarts_under_load_lose_no_answer(api: Api) -> None:
    over = threading.Event()

    def ask(number: int) -> list[int]:
        found = []
        with connected(api.url) as client:
            while not over.is_set():
                fresh = {"Connection": "close"} if number % 2 else {}
                found.append(client.get("/v1/jobs", headers=fresh).status_code)
                body: dict[str, Any] = {**SMALL_TRAINING, "metadata": {"number": number}}
                found.append(client.post("/v1/trainings", json=body, headers=fresh).status_code)
        return found

    with ThreadPoolExecutor(6) as pool:
        asking = list(map(pool.submit, [ask] * 6, range(6)))
        try:
            for _ in range(2):
                with connected(api.url) as client:
                    client.get("/healthz")  # it has started
                time.sleep(1)
                api.end()
                api.start()
            with connected(api.url) as client:
                client.get("/healthz")
        finally:
            over.set()
        answers = [status for each in asking for status in each.result()]
    assert len(answers) > 20 and set(answers) == {200, 202}


def test_an_idle_connection_may_bring_a_last_request_while_the_service_ends(api: Api) -> None:
    """A request that was sent before its sender could know of the end is answered, and the answer says that it is the last."""
    with closing(http.client.HTTPConnection(*api.address)) as connection:
        for way in ("keep-alive", "close"):
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            assert answer.status == 200 and answer.headers.get("connection", "keep-alive") == way
            answer.read()
            if way == "keep-alive":
                api.process.send_signal(signal.SIGTERM)
                time.sleep(0.4)
        assert api.process.wait(60) == -signal.SIGTERM
