"""The queue: it wakes workers, nothing more. What is to be done, and by whom, stands in the job record."""

import logging
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from service.settings import Settings

RECONSTRUCTION = "reconstruction"
TRAINING = "training"
DATASET = "dataset"
QUEUES = (RECONSTRUCTION, TRAINING, DATASET)

_log = logging.getLogger(__name__)


def task_name(queue: str) -> str:
    """The name of the task that works on a queue's jobs."""
    return f"sdfsrn.{queue}"


def celery_app(settings: Settings) -> Celery:
    """The Celery application, the same for those who send and those who receive."""
    app = Celery("sdfsrn", broker=settings.celery_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_create_missing_queues=True,
        task_routes={task_name(queue): {"queue": queue} for queue in QUEUES},
        worker_disable_prefetch=True,
        worker_concurrency=1,
        # CUDA does not survive a fork; importing torch takes longer than the four seconds a child has by default.
        worker_pool_start_method="spawn",
        worker_proc_alive_timeout=120,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"socket_connect_timeout": 5, "socket_timeout": 20, "health_check_interval": 10},
    )
    return app


class Queue:
    """The sending side. One message is one job id as JSON; a lost one costs seconds, because the keeper looks too."""

    def __init__(self, settings: Settings) -> None:
        self._app: Any = celery_app(settings)

    def wake(self, queue: str, job_id: str) -> None:
        """Tell a worker of the queue that there is something to claim."""
        try:
            self._app.send_task(task_name(queue), args=[job_id], queue=queue, retry=False)
        except (OperationalError, redis.RedisError, OSError) as error:
            _log.warning("could not wake the %s worker, the keeper will: %s", queue, error)

    def close(self) -> None:
        """Give the connections back."""
        self._app.close()
