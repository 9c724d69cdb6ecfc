"""One subscription per process wakes all who wait for the end of a job."""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterator

import redis
import redis.asyncio

from service.jobs import ENDED_CHANNEL
from service.settings import Settings

_log = logging.getLogger(__name__)


class Endings:
    """Wait for jobs to end. Whoever waits looks at the record afterwards: a message may be missed, a record not."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Listen no more."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @contextlib.contextmanager
    def of(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the job ends, or when it is worth another look."""
        event = asyncio.Event()
        self._waiting[job_id].add(event)
        try:
            yield event
        finally:
            self._waiting[job_id].discard(event)
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
            await channel.subscribe(ENDED_CHANNEL)
            # What ended while nobody listened was not heard.
            for job_id in list(self._waiting):
                self._wake(job_id)
            while True:
                message = await channel.get_message(ignore_subscribe_messages=True, timeout=30)
                if message is not None:
                    self._wake(message["data"])

    def _wake(self, job_id: str) -> None:
        for event in self._waiting.get(job_id, ()):
            event.set()
