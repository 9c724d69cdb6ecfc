"""A worker's claim on one job: the heartbeat, the progress, and every write under the job's fence."""

import faulthandler
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
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
# The watchdog: a job that reports no progress for so many seconds, by its type, hangs. Each limit is several times what the
# longest step of such a job takes on a slow and busy machine; SDFSRN_PROGRESS_TIMEOUT_SCALE multiplies them all.
PROGRESS_TIMEOUT_S = {"reconstruction": 300.0, "dataset": 600.0, "training": 1800.0}
BACKSTOP_S = 30.0  # after the watchdog's time, if what hangs keeps even the watchdog's thread from running

STORING = "storing"

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


@dataclass(frozen=True)
class Report:
    """What is said of a job's progress, and when it was said, on the monotonic clock."""

    progress: dict[str, Any]
    metrics: dict[str, float]
    at: float


class Claim:
    """A context in which a job is worked on. Its thread renews the claim over a connection of its own."""

    def __init__(self, settings: Settings, jobs: Jobs, job: Job) -> None:
        self.job = job
        self._jobs = jobs
        self._max_attempts = settings.max_attempts
        # a connection that died in silence must not cost the whole lease
        self._heartbeats = Jobs(connect(settings, timeout_s=settings.lease_s / 4))
        self._limit_s = settings.max_training_s if job.type == "training" else math.inf
        self._until = time.monotonic() + self._limit_s
        self._verdict: Verdict = "ok"
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {job.id}", daemon=True)
        self._watchdog = Watchdog(PROGRESS_TIMEOUT_S[job.type] * settings.progress_timeout_scale)
        self._eta = Eta()
        self._said: Report | None = None
        self._unsaid: Report | None = None
        self._metrics: dict[str, float] = {}

    def __enter__(self) -> "Claim":
        self._watchdog.pulse()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self._watchdog.stop()

    def progress(self, phase: str, step: int, total: int, metrics: dict[str, float] | None = None) -> None:
        """Report progress, at most twice a second and at the end of each phase; raises as `check` does, and TookTooLong.

        What is done when the phase STORING begins is kept, however late it is.
        """
        self._watchdog.pulse()
        self.check()
        if time.monotonic() > self._until and phase != STORING:
            raise TookTooLong(
                f"the training did not end within {self._limit_s} s of its start or last resumption, the most that this service "
                "allows (SDFSRN_MAX_TRAINING_S); train for fewer epochs, or on less"
            )
        self._metrics = metrics or self._metrics
        report = {
            "phase": phase,
            "step": step,
            "total": total,
            "fraction": min(1.0, step / total) if total else 0.0,
            "eta_s": self._eta.left_s(phase, step, total),
        }
        latest, before = Report(report, self._metrics, time.monotonic()), self._said
        if before and before.progress["phase"] == phase and step < total and latest.at - before.at < PROGRESS_EVERY_S:
            self._unsaid = latest
            return
        if before and before.progress["phase"] != phase:
            self._say_rest()
        self._say(latest)

    def going_on(self) -> None:
        """The work goes on, though there is no progress to report; raises as `check` does."""
        self._watchdog.pulse()
        self.check()

    def log(self, message: str, level: str) -> None:
        """Say something to those who follow the job."""
        self._insist(lambda: self._jobs.log(self.job, message, level))

    def checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name a stored checkpoint in the record; a job that goes on elsewhere goes on from there."""
        if not self._insist(lambda: self._jobs.checkpoint(self.job, checkpoint)):
            raise Stopped

    def finish(self, status: Status, **values: Any) -> bool:
        """End the job and publish its results; False if somebody else owns it by now."""
        self._say_rest()
        self._done.set()
        return self._insist(lambda: self._jobs.finish(self.job, status, **values))

    def release(self) -> str:
        """Give back a job that was interrupted; its status then."""
        self._say_rest()
        self._done.set()
        return self._insist(lambda: self._jobs.release(self.job))

    def lose(self, why: str) -> str:
        """Give up a job that cannot go on at present: a loss, of which a job has only so many; its status then."""
        self._say_rest()
        self._done.set()
        self._thread.join()  # a later beat would say that somebody is at it
        return self._insist(lambda: self._lose(self._jobs, why))

    def retry(self, ask: Callable[[], Outcome]) -> Outcome:
        """What the store answers, asked again while it is away: raises as `check` does, and StoreAway in the end.

        A store that is full is so until somebody makes room: its StorageError is raised at once.
        """
        until = time.monotonic() + STORE_AWAY_S
        while True:
            self._watchdog.pulse()
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

    def _say(self, report: Report) -> None:
        self._said, self._unsaid = report, None
        try:
            self._jobs.progress(self.job, report.progress, report.metrics)
        except redis.RedisError as error:
            _log.warning("progress of job %s was not heard: %s", self.job.id, error)

    def _say_rest(self) -> None:
        """What was held back because it came too soon: a phase's last word is never lost."""
        if self._unsaid:
            self._say(self._unsaid)

    def _insist(self, write: Callable[[], Outcome]) -> Outcome:
        """Hours of work are not thrown away because the broker restarts: ask until it answers."""
        while True:
            self._watchdog.pulse()
            try:
                return write()
            except redis.RedisError as error:
                _log.warning("the broker does not answer, job %s waits: %s", self.job.id, error)
                time.sleep(1)

    def _lose(self, jobs: Jobs, why: str) -> str:
        seen = str(self.job.fence), jobs.beats().get(self.job.id, ("", ""))[1]
        return jobs.lose(self.job.id, seen, self._max_attempts, why)

    def _beat(self) -> None:
        heard_at = 0.0
        while not self._done.wait(HEARTBEAT_S):
            try:
                verdict = self._heartbeats.heartbeat(self.job)
            except redis.RedisError as error:
                _log.warning("no heartbeat for job %s: %s", self.job.id, error)
                verdict = self._verdict
            if verdict not in ("ok", self._verdict) and self._verdict not in _URGENT:
                _log.info("job %s is to stop: %s", self.job.id, verdict)
                self._verdict, heard_at = verdict, time.monotonic()
            if self._done.is_set():
                return
            if self._verdict in _URGENT and time.monotonic() - heard_at > UNHEEDED_S:
                self._end_process(f"it did not stop within {UNHEEDED_S} s")
            if self._watchdog.hangs:
                self._end_process(f"its work made no progress for {self._watchdog.timeout_s:g} s")

    def _end_process(self, why: str) -> None:
        """The library does not come back to its progress callback: end the process, the pool starts a new one."""
        _log.error("ending the process of job %s: %s", self.job.id, why)
        try:
            faulthandler.dump_traceback(sys.__stderr__ or 2)  # where it hangs
            if self._verdict in _URGENT:
                self._heartbeats.finish(self.job, "cancelled")
            else:
                self._heartbeats.log(self.job, f"the job's process is ended: {why}", "warning")
                self._lose(self._heartbeats, why)
        finally:
            os._exit(1)


class Watchdog:
    """How long it is since the work itself, not the heartbeat's thread, showed that it goes on.

    A step that keeps Python's lock keeps every thread from running. The interpreter's own timer then ends the process, and
    the keeper finds the job lost.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._pulse = self._armed = -math.inf

    def pulse(self) -> None:
        """The work goes on."""
        self._pulse = time.monotonic()
        if self._pulse - self._armed > 1:  # arming it starts a thread
            self._armed = self._pulse
            faulthandler.dump_traceback_later(self.timeout_s + BACKSTOP_S, exit=True, file=sys.__stderr__ or 2)

    @property
    def hangs(self) -> bool:
        """Whether there was no pulse for too long."""
        return time.monotonic() - self._pulse > self.timeout_s

    def stop(self) -> None:
        """The work is over."""
        faulthandler.cancel_dump_traceback_later()


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
