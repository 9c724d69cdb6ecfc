"""A worker's hold on one job: the heartbeat, the progress, and every write under the job's fence."""

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import redis

from sdfsrn.training import Interrupted
from service.artifacts import StorageError
from service.jobs import Job, Jobs, Status, Verdict, connect
from service.settings import Settings

HEARTBEAT_S = 2.0
UNHEEDED_S = 10.0
PROGRESS_EVERY_S = 0.5
STORE_AWAY_S = 600.0  # for which a job waits: longer than most outages, and not for ever, as it may be this file that is refused
STORE_AGAIN_S = 2.0

_log = logging.getLogger(__name__)
Outcome = TypeVar("Outcome")


class Stopped(Exception):
    """The job must not go on: it was cancelled, or the claim is lost. Raised out of the progress callback."""


class TookTooLong(RuntimeError):
    """The job has had its worker for as long as one may."""


class StoreAway(RuntimeError):
    """The artifact store was away for as long as a job waits for it."""


# What a stopped worker must heed, however little it likes to; a pause or an orderly end may wait for the next step.
_URGENT = ("cancel", "lost")


class Claim:
    """A context in which a job is worked on. Its thread renews the claim over a connection of its own."""

    def __init__(self, settings: Settings, jobs: Jobs, job: Job) -> None:
        self.job = job
        self._jobs = jobs
        self._max_attempts = settings.max_attempts
        # a connection that died in silence must not cost the whole lease
        self._pulse = Jobs(connect(settings, timeout_s=settings.lease_s / 4))
        self._limit_s = settings.max_training_s if job.type == "training" else math.inf
        self._until = time.monotonic() + self._limit_s
        self._verdict: Verdict = "ok"
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {job.id}", daemon=True)
        self._eta = Eta()
        self._reported = ("", 0.0)
        self._metrics: dict[str, float] = {}

    def __enter__(self) -> "Claim":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def progress(self, phase: str, step: int, total: int, metrics: dict[str, float] | None = None) -> None:
        """Report progress, at most twice a second; raises as `check` does, and TookTooLong."""
        self.check()
        if time.monotonic() > self._until:
            raise TookTooLong(
                f"the training did not end within {self._limit_s} s of its start or last resumption, the most that this service "
                "allows (SDFSRN_MAX_TRAINING_S); train for fewer epochs, or on less"
            )
        phase_before, at = self._reported
        if phase == phase_before and step < total and time.monotonic() - at < PROGRESS_EVERY_S:
            return
        self._reported = (phase, time.monotonic())
        self._metrics = metrics or self._metrics
        report = {
            "phase": phase,
            "step": step,
            "total": total,
            "fraction": min(1.0, step / total) if total else 0.0,
            "eta_s": self._eta.left_s(phase, step, total),
        }
        try:
            self._jobs.progress(self.job, report, self._metrics)
        except redis.RedisError as error:
            _log.warning("progress of job %s was not heard: %s", self.job.id, error)

    def log(self, message: str, level: str) -> None:
        """Say something to those who follow the job."""
        self._insist(lambda: self._jobs.log(self.job, message, level))

    def checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name a stored checkpoint in the record; a job that goes on elsewhere goes on from there."""
        if not self._insist(lambda: self._jobs.checkpoint(self.job, checkpoint)):
            raise Stopped

    def finish(self, status: Status, **values: Any) -> bool:
        """End the job and publish its results; False if somebody else owns it by now."""
        self._done.set()
        return self._insist(lambda: self._jobs.finish(self.job, status, **values))

    def settle(self) -> str:
        """Let go of a job that was interrupted; its status then."""
        self._done.set()
        return self._insist(lambda: self._jobs.settle(self.job))

    def lose(self, why: str) -> str:
        """Let go of a job that cannot go on at present: a loss, of which a job has only so many; its status then."""
        self._done.set()
        self._thread.join()  # a later beat would say that somebody is at it
        return self._insist(lambda: self._jobs.lose(self.job.id, self._last_beat(), self._max_attempts, why))

    def outwait(self, ask: Callable[[], Outcome]) -> Outcome:
        """What the store answers, asked again while it is away: raises as `check` does, and StoreAway in the end.

        A store that is full is so until somebody makes room: its StorageError is raised at once.
        """
        until = time.monotonic() + STORE_AWAY_S
        while True:
            try:
                return ask()
            except StorageError as error:
                if error.full:
                    raise
                if time.monotonic() > until:
                    raise StoreAway(f"the artifact store did not work for {STORE_AWAY_S:.0f} s: {error}") from error
                _log.warning("the store does not work, job %s waits: %s", self.job.id, error)
            time.sleep(STORE_AGAIN_S)
            self.check()

    def check(self) -> None:
        """Raise Stopped when the job must end, Interrupted when it is to go on later or elsewhere."""
        if self._verdict in _URGENT:
            raise Stopped(self._verdict)
        if self._verdict != "ok":
            raise Interrupted(self._verdict)

    def _insist(self, write: Callable[[], Outcome]) -> Outcome:
        """Hours of work are not thrown away because the broker restarts: ask until it answers."""
        while True:
            try:
                return write()
            except redis.RedisError as error:
                _log.warning("the broker does not answer, job %s waits: %s", self.job.id, error)
                time.sleep(1)

    def _last_beat(self) -> tuple[str, str]:
        return str(self.job.fence), self._jobs.beats().get(self.job.id, ("", ""))[1]

    def _beat(self) -> None:
        heard_at = 0.0
        while not self._done.wait(HEARTBEAT_S):
            try:
                verdict = self._pulse.heartbeat(self.job)
            except redis.RedisError as error:
                _log.warning("no heartbeat for job %s: %s", self.job.id, error)
                verdict = self._verdict
            if verdict not in ("ok", self._verdict) and self._verdict not in _URGENT:
                _log.info("job %s is to stop: %s", self.job.id, verdict)
                self._verdict, heard_at = verdict, time.monotonic()
            if self._verdict in _URGENT and time.monotonic() - heard_at > UNHEEDED_S and not self._done.is_set():
                self._give_up()

    def _give_up(self) -> None:
        """The library did not come back to its progress callback: end the process, the pool starts a new one."""
        _log.error("job %s did not stop within %s s, ending the process", self.job.id, UNHEEDED_S)
        try:
            self._pulse.finish(self.job, "cancelled")
        finally:
            os._exit(1)


class Eta:
    """What is left of a phase, from what it took so far in this process."""

    def __init__(self) -> None:
        self._phase = ""
        self._since, self._first_step = 0.0, 0

    def left_s(self, phase: str, step: int, total: int) -> float | None:
        """Seconds left in this phase; None while nothing is known."""
        if phase != self._phase:
            self._phase, self._since, self._first_step = phase, time.monotonic(), step
        done = step - self._first_step
        if done <= 0:
            return None
        return round((time.monotonic() - self._since) / done * max(0, total - step), 1)
