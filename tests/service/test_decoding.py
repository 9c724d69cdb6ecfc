"""Children that decode: what kills one hurts nobody else."""

import asyncio
import io
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import psutil
import pytest
from PIL import Image, ImageDraw

from sdfsrn.images import Picture
from service.decoding import CHILDREN, WAITING_PER_CALLER, Decoders
from service.errors import Problem


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    made = Decoders()
    made.warm()
    yield made
    made.stop()


def children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():  # not those of a service that other tests started
        with suppress(psutil.NoSuchProcess):  # it ended just now
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


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


def test_a_large_photograph_is_segmented_within_the_limits_of_a_child(decoders: Decoders) -> None:
    """16 megapixels before a background of many colours, a part of which nobody would call plain."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(40, 160, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((4000, 4000), Image.Resampling.BICUBIC)
    ImageDraw.Draw(image).ellipse((1000, 1200, 2800, 3000), fill=(250, 240, 90))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    found = Picture.from_png(asyncio.run(decoders.picture(buffer.getvalue(), None)))
    y, x = np.mgrid[:1024, :1024] * 4000 / 1024
    truth = np.hypot(x - 1900, y - 2100) < 900
    assert (found.mask & truth).sum() / (found.mask | truth).sum() > 0.97
    assert [warning.code for warning in found.warnings] == ["segmented"] and found.reduced == (4000 / 1024, 4000 / 1024)


def test_children_that_die_with_a_file_on_its_way_are_nobodys_fault(decoders: Decoders, photo: bytes) -> None:
    asyncio.run(decoders.picture(photo, None))
    for victim in children():
        victim.kill()
    try:
        asyncio.run(decoders.picture(photo, None))  # the pool may see it in time
    except Problem as problem:
        assert problem.status_code == 503
    assert asyncio.run(decoders.picture(photo, None))


def test_who_sends_many_files_waits_for_itself(decoders: Decoders, photo: bytes) -> None:
    """Another's one goes before the rest of them, and past a number they are refused."""
    ended: list[str] = []

    async def send(caller: str) -> None:
        async with decoders.turn(caller):
            await decoders.picture(photo, None)
        ended.append(caller)

    async def all_at_once() -> list[BaseException | None]:
        many = [asyncio.create_task(send("greedy")) for _ in range(WAITING_PER_CALLER + 1)]
        await asyncio.sleep(0)
        return await asyncio.gather(send("modest"), *many, return_exceptions=True)

    outcomes = [outcome for outcome in asyncio.run(all_at_once()) if outcome]
    assert [(each.status_code, "retry-after" in str(each.headers).lower()) for each in outcomes if isinstance(each, Problem)] == [
        (429, True)
    ]
    assert len(ended) == WAITING_PER_CALLER + 1 and ended.index("modest") <= 3 * CHILDREN


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _greedy() -> int:
    return len(bytearray(3 << 30))
