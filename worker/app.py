"""The Celery application as the worker's processes see it: its tasks, and what happens as a process starts and ends."""

import logging
import os
import threading
import time
from typing import Any

import redis
from celery.signals import worker_process_init, worker_shutting_down

from service import lifeline, logs
from service.jobs import Jobs, connect
from service.queue import QUEUES, celery_app, task_name
from service.settings import Settings

QUEUE_VARIABLE = "SDFSRN_WORKER_QUEUE"
NAME_VARIABLE = "SDFSRN_WORKER_NAME"
TIDY_EVERY_S = 10.0

_log = logging.getLogger(__name__)
settings = Settings()
app = celery_app(settings)


def _work(job_id: str) -> None:
    # Imported here: the worker's main process needs neither the tasks nor torch.
    from worker.tasks import work_off

    _log.info("woken for job %s", job_id)
    work_off(os.environ[QUEUE_VARIABLE], os.environ[NAME_VARIABLE])


for _queue in QUEUES:
    app.task(_work, name=task_name(_queue), ignore_result=True)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _start_child(**_: Any) -> None:
    """Load what every job needs before the first one comes, then say that this worker is ready."""
    from worker import tasks

    lifeline.end_with_parent()
    queue = os.environ[QUEUE_VARIABLE]
    logs.configure(f"{queue} worker", settings.log)
    try:
        tasks.prepare(queue)
    finally:  # whatever could not be prepared, jobs are claimed from now on
        threading.Thread(target=_show_life, args=(queue,), name="life", daemon=True).start()


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _leave(**_: Any) -> None:
    """An orderly end is no loss: this worker claims nothing more, and is asked to release what it holds at its next heartbeat."""
    try:
        Jobs(connect(settings)).leave(os.environ[NAME_VARIABLE])
    except redis.RedisError as error:
        _log.warning("could not say that this worker ends, the keeper will see it: %s", error)


def _show_life(queue: str) -> None:
    """Show that this worker lives, and tidy up after those that do not."""
    from worker import tasks

    jobs, tidied = Jobs(connect(settings)), 0.0
    while True:
        try:
            jobs.show_life(queue)
            if time.monotonic() - tidied > TIDY_EVERY_S:
                tasks.remove_leftovers()
                tidied = time.monotonic()
        except redis.RedisError as error:
            _log.warning("the broker does not answer: %s", error)
        time.sleep(2)
