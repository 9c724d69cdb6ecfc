"""Children that decode: what kills one hurts nobody else."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from service.decoding import Decoders
from service.errors import Problem


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    made = Decoders()
    made.warm()
    yield made
    made.stop()


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]


def test_a_child_that_dies_while_idle_is_replaced(decoders: Decoders, photo: bytes) -> None:
    png = asyncio.run(decoders.picture(photo, None))
    victims = children()
    assert victims
    for victim in victims:
        victim.kill()
    deadline = time.monotonic() + 30
    while True:  # the pool notices within a moment
        time.sleep(0.3)
        try:
            assert asyncio.run(decoders.picture(photo, None)) == png
            break
        except Problem:
            assert time.monotonic() < deadline


def test_a_file_that_kills_its_child_is_refused(decoders: Decoders, photo: bytes) -> None:
    with pytest.raises(Problem, match="422"):
        asyncio.run(decoders._run(_die, field="image"))
    assert asyncio.run(decoders.picture(photo, None))


def test_memory_is_limited(decoders: Decoders) -> None:
    with pytest.raises(Problem) as refused:
        asyncio.run(decoders._run(_greedy, field="image"))
    assert "memory" in refused.value.detail


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _greedy() -> int:
    return len(bytearray(3 << 30))
