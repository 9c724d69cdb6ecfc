"""Webhooks to several hosts: one that takes connections and never answers keeps no other one waiting."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service import deliveries, webhooks
from service.jobs import Job, Jobs, connect, new_id, now
from service.keeper import Keeper
from service.settings import Settings
from tests.conftest import Broker
from tests.service.test_guarded import SECRET


class Deaf:
    """Takes every connection and says nothing."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.taken: list[socket.socket] = []
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            self.taken.append(self._listener.accept()[0])


class Live:
    """Answers, and keeps the ids of what it was told."""

    def __init__(self, status: int = 204, name: str = "127.0.0.1") -> None:
        told: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(self.headers["webhook-id"])
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.told = told
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"{name}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with Broker(Settings(data=tmp_path / "data", webhook_secret=SECRET, webhook_private=True)) as running:
        yield running.settings


@pytest.fixture
def jobs(settings: Settings) -> Jobs:
    return Jobs(connect(settings))


@pytest.fixture
def other_name(monkeypatch: pytest.MonkeyPatch) -> str:
    """A second host's name, which means this machine."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **named: real("127.0.0.1" if host == "live.test" else host, *rest, **named)
    )
    return "live.test"


def ended(jobs: Jobs, host: str, owner: str = "") -> str:
    job = Job(new_id(), "training", "training", now(), owner=owner, webhook=f"http://{host}/")
    jobs.create(job)
    jobs.cancel(job.id)
    return job.id


def look_until(keeper: Keeper, holds: Callable[[], bool], seconds: float = 30) -> float:
    """Let the keeper look, as it does, until something holds; how long that took."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds
        keeper.send_webhooks()
        time.sleep(0.05)
    return time.monotonic() - start


def test_forty_webhooks_of_a_deaf_host_delay_nobody_else(jobs: Jobs, settings: Settings, other_name: str) -> None:
    deaf, live, keeper = Deaf(), Live(name=other_name), Keeper(settings)
    for _ in range(40):
        ended(jobs, deaf.host)
    expected = [ended(jobs, live.host) for _ in range(3)]
    took_s = look_until(keeper, lambda: len(live.told) == len(expected))
    assert sorted(live.told) == sorted(expected)
    assert took_s < webhooks.TIMEOUT_S / 2, "nobody waited for the deaf one to be given up"
    assert len(deaf.taken) <= deliveries.PER_HOST, "it is asked by few at once"


def test_a_host_that_answers_again_is_told_all_and_waiting_was_no_attempt(
    jobs: Jobs, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(webhooks, "RETRIES_S", (0.1,) * 6)
    monkeypatch.setattr(deliveries, "HOST_WAITS_S", (0.2, 0.4))
    deaf, keeper, broker = Deaf(), Keeper(settings), connect(settings)
    made = [ended(jobs, deaf.host) for _ in range(20)]
    look_until(keeper, lambda: len(deaf.taken) >= 4)
    tries = [int(text.split()[0]) for text in broker.hvals("sdfsrn:webhook_tries")]
    assert sum(tries) <= len(deaf.taken) + 1 and broker.zcard("sdfsrn:webhooks") == len(made), "the others were not tried"
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 10.0)
    live = Live()
    for job_id in made:
        broker.hset(f"sdfsrn:job:{job_id}", "webhook", f"http://{live.host}/")
    look_until(keeper, lambda: broker.zcard("sdfsrn:webhooks") == 0)
    assert sorted(live.told) == sorted(made), "each once"
    assert not broker.exists("sdfsrn:webhook_tries")


def test_a_refusal_is_an_answer_and_the_next_is_told_at_once(jobs: Jobs, settings: Settings) -> None:
    refusing, keeper = Live(status=500), Keeper(settings)
    made = [ended(jobs, refusing.host) for _ in range(5)]
    look_until(keeper, lambda: len(refusing.told) == 5, seconds=10)
    assert sorted(refusing.told) == sorted(made)


def test_two_keepers_tell_once(jobs: Jobs, settings: Settings) -> None:
    live, keepers = Live(), [Keeper(settings) for _ in range(2)]
    made = [ended(jobs, live.host) for _ in range(20)]
    threads = [threading.Thread(target=keeper.send_webhooks) for keeper in keepers for _ in range(3)]
    for thread in threads:
        thread.start()
    look_until(keepers[0], lambda: connect(settings).zcard("sdfsrn:webhooks") == 0)
    assert sorted(live.told) == sorted(made)


def test_what_cannot_be_signed_is_given_up(jobs: Jobs, settings: Settings) -> None:
    live, keeper = Live(), Keeper(settings)
    ended(jobs, live.host, owner="alice")
    look_until(keeper, lambda: connect(settings).zcard("sdfsrn:webhooks") == 0)
    assert live.told == []


def test_ports_of_a_host_share_its_line(jobs: Jobs, settings: Settings) -> None:
    deaf, keeper = [Deaf() for _ in range(4)], Keeper(settings)
    for each in deaf:
        ended(jobs, each.host)
    look_until(keeper, lambda: sum(len(each.taken) for each in deaf) >= deliveries.PER_HOST)
    time.sleep(0.5)
    assert sum(len(each.taken) for each in deaf) == deliveries.PER_HOST


def test_full_lines_hide_nobody(jobs: Jobs, settings: Settings, other_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "LOOKED_AT", 4)
    monkeypatch.setattr(deliveries, "LINE", 4)
    deaf, live, keeper = Deaf(), Live(name=other_name), Keeper(settings)
    for _ in range(12):
        ended(jobs, deaf.host)
    expected = [ended(jobs, live.host)]
    look_until(keeper, lambda: live.told == expected, seconds=webhooks.TIMEOUT_S / 2)


def test_what_waits_for_a_place_in_line_for_a_day_is_told_all_the_same(
    jobs: Jobs, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "LINE", 1)
    monkeypatch.setattr(deliveries, "LINE_FULL_S", 0.1)
    monkeypatch.setattr(deliveries, "GIVE_UP_AFTER_S", -1.0)
    live, keeper = Live(), Keeper(settings)
    made = [ended(jobs, live.host) for _ in range(6)]
    look_until(keeper, lambda: connect(settings).zcard("sdfsrn:webhooks") == 0)
    assert sorted(live.told) == sorted(made)
