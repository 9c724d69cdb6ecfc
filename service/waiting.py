"""One subscription per process wakes all who wait for something to happen to a job."""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterator

import redis
import redis.asyncio

from service.jobs import EVENTS_CHANNEL
from service.settings import Settings

_log = logging.getLogger(__name__)

END = "end"


class JobSignals:
    """Wait for jobs' events. Whoever waits looks at the record afterwards: a message may be missed, a record not."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: dict[str, set[tuple[asyncio.Event, bool]]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self.ending = False

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Listen no more."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def end(self) -> None:
        """The service ends: wake all who wait, and let nobody wait any more."""
        self.ending = True
        for waiters in self._waiting.values():
            for event, _ in waiters:
                event.set()

    @contextlib.contextmanager
    def subscribe(self, job_id: str, *, only_end: bool = False) -> Iterator[asyncio.Event]:
        """An event that is set when something happens to the job, or the end does, or when it is worth another look."""
        waiter = (asyncio.Event(), only_end)
        if self.ending:
            waiter[0].set()
        self._waiting[job_id].add(waiter)
        try:
            yield waiter[0]
        finally:
            self._waiting[job_id].discard(waiter)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except (redis.RedisError, OSError) as error:
                _log.warning("lost the broker: %s", error)
                await asyncio.sleep(1)

    async def _listen_once(self) -> None:
        client = redis.asyncio.Redis.from_url(self._settings.broker_url, decode_responses=True)
        async with client, client.pubsub() as channel:
            await channel.subscribe(EVENTS_CHANNEL)
            # What happened while nobody listened was not heard.
            for job_id in list(self._waiting):
                self._wake(job_id, END)
            while True:
                message = await channel.get_message(ignore_subscribe_messages=True, timeout=30)
                if message is not None:
                    self._wake(*message["data"].split(" ", 1))

    def _wake(self, job_id: str, kind: str) -> None:
        for event, only_end in self._waiting.get(job_id, ()):
            if kind == END or not only_end:
                event.set()
