"""What strangers send is decoded in child processes, under limits of memory and time: never in the API's own.

A child that is killed at its work, by us or by the kernel, is replaced, and the request that did it refused; a pool that breaks is
replaced as a whole.
"""

import asyncio
import logging
import multiprocessing
import resource
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import TimeoutError as DecodingTimeout
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager
from typing import Any

import psutil
from pebble import ProcessExpired, ProcessPool

from sdfsrn.checkpoint_header import FileFacts, read_facts
from sdfsrn.config import Background
from sdfsrn.images import ImageError, read_picture
from service import lifeline
from service.errors import Problem, problem_of_image

CHILDREN = 2
MEMORY = 1_500_000_000  # bytes of address space beyond what an idle child has; 40 megapixels take 0.5 GB
SECONDS = 20.0
WAITING_PER_CALLER, WAITING = 64, 256  # files that wait for a child, or are with one

_log = logging.getLogger(__name__)


class Decoders:
    """A pool of children, warm after the first use."""

    def __init__(self) -> None:
        self._pool = _new_pool()
        self._waiting: Counter[str] = Counter()
        self._callers_children: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(CHILDREN))
        self._children = asyncio.Semaphore(CHILDREN)

    def warm(self) -> None:
        """Start the children before the first picture comes."""
        for _ in range(CHILDREN):
            self._pool.schedule(_nothing)

    @asynccontextmanager
    async def turn(self, caller: str) -> AsyncIterator[None]:
        """The time in which a caller's file may be in memory and decoded: as many at once as there are children.

        Of one caller no more than that stand in the line of all, so who sends many keeps nobody else waiting for long.
        """
        if self._waiting[caller] >= WAITING_PER_CALLER:
            detail = f"{WAITING_PER_CALLER} of your files wait to be decoded, as many as may; send this one again later"
            raise Problem(429, detail, headers={"Retry-After": "5"})
        if self._waiting.total() >= WAITING:
            raise Problem(503, "too many files wait to be decoded; send this one again later", headers={"Retry-After": "5"})
        self._waiting[caller] += 1
        try:
            async with self._callers_children[caller], self._children:
                yield
        finally:
            self._waiting[caller] -= 1

    async def picture(self, image: bytes, mask: bytes | None, background: Background = "auto") -> bytes:
        """The picture as `Picture.to_png` stores it; a Problem that says what is wrong with it."""
        try:
            return bytes(await self._run(_to_png, image, mask, background, field="image"))
        except ImageError as error:
            raise problem_of_image(error) from None

    async def checkpoint(self, data: bytes) -> FileFacts:
        """What a checkpoint says of itself; a Problem that says why it is none."""
        try:
            facts: FileFacts = await self._run(read_facts, data, field="body")
        except ValueError as error:
            raise Problem(422, str(error), field="body") from None
        return facts

    def stop(self) -> None:
        """End the children."""
        self._pool.stop()
        self._pool.join()

    def _schedule(self, work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        try:
            return self._pool.schedule(work, args=args, timeout=SECONDS)
        except RuntimeError:  # a child died while it was idle: pebble gives up the whole pool
            _log.warning("the decoding processes are replaced")
            self._pool.stop()
            self._pool = _new_pool()
            return self._pool.schedule(work, args=args, timeout=SECONDS)

    async def _run(self, work: Callable[..., Any], *args: Any, field: str) -> Any:
        try:
            return await asyncio.wrap_future(self._schedule(work, args))
        except DecodingTimeout:
            raise Problem(422, f"the file takes more than {SECONDS:.0f} s to decode; send a simpler one", field=field) from None
        except BrokenProcessPool:
            raise Problem(
                503, "the decoding processes had to be replaced; send the file again", headers={"Retry-After": "1"}
            ) from None
        except (ProcessExpired, MemoryError):
            raise Problem(422, "the file takes too much memory to decode; send a smaller one", field=field) from None


def _new_pool() -> Any:
    return ProcessPool(CHILDREN, initializer=_prepare, context=multiprocessing.get_context("spawn"))


def _prepare() -> None:
    lifeline.end_with_parent()
    import cv2  # here, before the limit counts; the API itself has no use for it

    cv2.setNumThreads(1)
    # numpy's and scipy's thread pools reserve address space by the core: what is there already does not count
    limit = psutil.Process().memory_info().vms + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _nothing() -> None:
    """A child that has done this has imported all that decoding needs."""


def _to_png(image: bytes, mask: bytes | None, background: Background) -> bytes:
    return read_picture(image, mask, background=background).to_png()
