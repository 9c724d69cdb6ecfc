"""The keeper: it finds lost jobs, wakes queues whose messages went missing, and removes files that no record names."""

import logging
import time

import redis

from service import lifeline, logs, webhooks
from service.artifacts import Artifacts, StorageError, job_prefix
from service.deliveries import Deliveries
from service.jobs import Jobs, connect, is_id
from service.queue import QUEUES, Queue
from service.registry import model_source
from service.settings import Settings, read_settings

KEEPER = "keeper"
LOOK_EVERY_S = 1.0
WAKE_AFTER_S = 5.0
EXPIRED_AT_ONCE = 20
SWEEP_EVERY_S = 60.0
SWEEP_SHARE_S = 0.5  # lost jobs must not wait behind a large store
# A file may be written a while before the record that names it.
SWEEP_AGE_S = 600.0

_log = logging.getLogger(__name__)


class Watch:
    """Since when, on the monotonic clock, each thing has shown the same value."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[object, float]] = {}

    def standing_s(self, values: dict[str, object]) -> dict[str, float]:
        """How long each value has stood still; what is no longer named is forgotten."""
        moment = time.monotonic()
        self._seen = {
            name: seen if (seen := self._seen.get(name)) and seen[0] == value else (value, moment) for name, value in values.items()
        }
        return {name: moment - since for name, (_, since) in self._seen.items()}

    def restart(self, name: str) -> None:
        """Start the clock of one thing again."""
        self._seen.pop(name, None)

    def forget(self) -> None:
        """Start all clocks again."""
        self._seen = {}


class Keeper:
    """One sweep after another; everything it does is safe to do twice, and beside another keeper."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._jobs = Jobs(connect(settings))
        self._artifacts = Artifacts(settings.store_url)
        self._queue = Queue(settings)
        self._beats, self._heads = Watch(), Watch()
        self._last_look = time.monotonic()
        self._last_sweep = 0.0
        self._unswept: list[str] = []
        self._deliveries = Deliveries(settings, self._jobs)

    def run(self) -> None:
        """Look once a second, for ever."""
        while True:
            try:
                self.look()
            except redis.RedisError as error:
                # Nobody's heartbeat arrives while the broker is away: that says nothing about the workers.
                _log.warning("the broker does not answer: %s", error)
                self._forget()
            time.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """One look at jobs and queues, and now and then at the store."""
        # Was this process itself stopped? Then the clocks are no measure of the workers.
        if time.monotonic() - self._last_look > 5 * LOOK_EVERY_S:
            self._forget()
        duties = [self.find_lost, self.wake_idle, self.expire, self.forget, self.send_webhooks]
        if self._unswept or time.monotonic() - self._last_sweep > SWEEP_EVERY_S:
            duties.append(self.sweep)
        for duty in duties:
            try:
                duty()
            except redis.RedisError:
                raise
            except Exception:  # one that cannot be done must not stop the others
                _log.exception("the keeper could not %s", duty.__name__)
        self._jobs.show_life(KEEPER)
        self._last_look = time.monotonic()

    def find_lost(self) -> None:
        """Requeue or fail the jobs whose heartbeat stood still for the whole lease."""
        beats = self._jobs.beats()
        for job_id, still_s in self._beats.standing_s(dict(beats)).items():
            if still_s >= self._settings.lease_s:
                outcome = self._jobs.lose(job_id, beats[job_id], self._settings.max_attempts)
                _log.warning("job %s had no heartbeat for %.0f s: it is %s", job_id, still_s, outcome)
                self._wake_all()

    def wake_idle(self) -> None:
        """Wake each queue whose head has waited a while and for which no message is under way."""
        heads = {queue: self._jobs.head(queue) for queue in QUEUES}
        for queue, still_s in self._heads.standing_s(dict(heads)).items():
            head = heads[queue]
            if head and still_s >= WAKE_AFTER_S and not self._jobs.messages(queue):
                self._queue.wake(queue, head)
                self._heads.restart(queue)  # it may be a job that no worker here can run: others behind it can be

    def expire(self) -> None:
        """Free the space of jobs whose artifacts were kept long enough; the records stay, to say so."""
        for job_id in self._jobs.expired(EXPIRED_AT_ONCE):
            self._jobs.expire(job_id, self._settings.max_jobs)  # first said, then done: what cannot be removed now is swept later
            try:
                self._artifacts.remove_job(job_id)
            except StorageError as error:
                _log.warning("cannot remove the artifacts of %s: %s", job_id, error)
                return  # a store that is away takes its time to say so

    def forget(self) -> None:
        """Remove the records of jobs that expired long ago."""
        for job_id in self._jobs.forgettable(EXPIRED_AT_ONCE):
            self._jobs.delete(job_id)

    def send_webhooks(self) -> None:
        """Tell those who wait for a job's end."""
        self._deliveries.look()

    def sweep(self, age_s: float = SWEEP_AGE_S) -> None:
        """Remove files older than `age_s` that no record names: half a second's worth, the next call goes on from there."""
        self._last_sweep = time.monotonic()
        until = self._last_sweep + SWEEP_SHARE_S
        try:
            if not self._unswept:
                self._sweep_models(age_s)
            # what does not have the name of a job is not ours to remove
            self._unswept = self._unswept or [name for name in self._artifacts.job_ids() if is_id(name)]
            while self._unswept and time.monotonic() < until:
                self._sweep_job(self._unswept.pop(), age_s)
        except StorageError as error:
            self._unswept = []
            _log.warning("cannot sweep the artifact store: %s", error)

    def _sweep_models(self, age_s: float) -> None:
        found = self._artifacts.keys_under("models")
        named = self._jobs.model_files() if found else set()
        unnamed = [key for key in found if key not in named]
        loose = {key for key in unnamed if self._artifacts.age_s(key) >= age_s and not self._to_be_published(key)}
        # asked once more: a training that has ended since was to be published then, and named its file
        for key in loose - self._jobs.model_files() if loose else ():
            self._artifacts.remove(key)

    def _to_be_published(self, key: str) -> bool:
        """Whether the training that a model's file is named after may still end, however long the broker was away."""
        job_id = model_source(key)
        job = self._jobs.get(job_id) if is_id(job_id) else None
        return job is not None and not job.ended

    def _sweep_job(self, job_id: str, age_s: float) -> None:
        job = self._jobs.get(job_id)
        named = {file["key"] for file in job.files} if job and not job.expired else set()
        if job and not job.ended:
            named |= {job.checkpoint["key"]} if job.checkpoint else set()
        for key in self._artifacts.keys(job_id):
            fence = key.removeprefix(f"{job_prefix(job_id)}/").partition("/")[0]
            in_use = job is not None and not job.ended and fence in ("input", str(job.fence))
            if key not in named and not in_use and self._artifacts.age_s(key) >= age_s:
                self._artifacts.remove(key)
        if job is None and not self._artifacts.keys(job_id):
            self._artifacts.remove_job(job_id)

    def _wake_all(self) -> None:
        for queue in QUEUES:
            if head := self._jobs.head(queue):
                self._queue.wake(queue, head)

    def _forget(self) -> None:
        self._beats.forget()
        self._heads.forget()


def main() -> None:
    """Run the keeper until the process is ended."""
    lifeline.end_with_parent()
    settings = read_settings()
    logs.configure("keeper", settings.log)
    webhooks.warn_of(settings)
    Keeper(settings).run()


if __name__ == "__main__":
    main()
