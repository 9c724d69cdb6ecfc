"""`python -m worker --queue reconstruction|training`: one worker, one job at a time."""

import argparse
import os
import secrets
import socket
import sys

from service import lifeline, logs
from service.queue import QUEUES
from service.settings import read_settings


def main() -> None:
    """Run a Celery worker with one spawned child, which ends with the process that started it."""
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("--queue", required=True, choices=QUEUES)
    parser.add_argument("--nice", type=int, default=0, help="lower this process's priority by so much")
    arguments = parser.parse_args()
    lifeline.end_with_parent()
    os.nice(arguments.nice)
    _set_threads()
    os.environ["SDFSRN_WORKER_QUEUE"] = arguments.queue
    # who holds a claim: process ids come again, in a container even the same one
    os.environ["SDFSRN_WORKER_NAME"] = f"{socket.gethostname()}:{secrets.token_hex(4)}"
    logs.configure(f"{arguments.queue} worker", read_settings().log)

    from worker.app import app

    app.worker_main(
        [
            "--quiet",
            "worker",
            "--queues",
            arguments.queue,
            "--pool",
            "prefork",
            "--concurrency",
            "1",
            "--loglevel",
            "INFO",
            "--hostname",
            f"{arguments.queue}@%h",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )


def _set_threads() -> None:
    """How this machine's cores are shared, as docs/cores.md says: each worker may use all of them, its niceness decides.

    It must stand in the environment before the child is spawned that loads torch. A thread that waits for another of the same
    operation spins for a moment, as sleeping at once is slow, and then sleeps, as spinning keeps others from the core.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(_cores()))
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("KMP_BLOCKTIME", "0")


def _cores() -> int:
    """Those that this process may run on: a container or `taskset` may allow fewer than the machine has."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    main()
