"""What strangers send is decoded in child processes, under limits of memory and time: never in the API's own.

A child that is killed, by us or by the kernel, is replaced; the request that did it is refused.
"""

import asyncio
import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import TimeoutError as DecodingTimeout
from typing import Any

from pebble import ProcessExpired, ProcessPool

from sdfsrn.checkpoint_header import FileFacts, read_facts
from sdfsrn.images import ImageError, read_picture
from service import lifeline
from service.errors import Problem, problem_of_image

CHILDREN = 2
MEMORY = 1_500_000_000  # bytes of address space; 40 megapixels take 0.5 GB
SECONDS = 20.0


class Decoders:
    """A pool of children, warm after the first use."""

    def __init__(self) -> None:
        self._pool: Any = ProcessPool(CHILDREN, initializer=_prepare, context=multiprocessing.get_context("spawn"))

    def warm(self) -> None:
        """Start the children before the first picture comes."""
        for _ in range(CHILDREN):
            self._pool.schedule(_nothing)

    async def picture(self, image: bytes, mask: bytes | None) -> bytes:
        """The picture as one PNG whose alpha is the mask; a Problem that says what is wrong with it."""
        try:
            return bytes(await self._run(_to_png, image, mask, field="image"))
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

    async def _run(self, work: Callable[..., Any], *args: Any, field: str) -> Any:
        future = self._pool.schedule(work, args=args, timeout=SECONDS)
        try:
            return await asyncio.wrap_future(future)
        except DecodingTimeout:
            raise Problem(422, f"the file takes more than {SECONDS:.0f} s to decode; send a simpler one", field=field) from None
        except (ProcessExpired, MemoryError):
            raise Problem(422, "the file takes too much memory to decode; send a smaller one", field=field) from None


def _prepare() -> None:
    lifeline.end_with_parent()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _nothing() -> None:
    """A child that has done this has imported all that decoding needs."""


def _to_png(image: bytes, mask: bytes | None) -> bytes:
    return read_picture(image, mask).to_png()
