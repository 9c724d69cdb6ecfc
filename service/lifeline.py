"""A child ends when its parent ends, however that ends."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time

PARENT_VARIABLE = "SDFSRN_PARENT_PID"
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Tie this process to its parent: by a signal of the kernel on Linux, and by looking once a second anywhere."""
    parent = int(os.environ.pop(PARENT_VARIABLE, 0)) or os.getppid()
    kernel_signal_on_parent_death()
    threading.Thread(target=_watch, args=(parent,), name="lifeline", daemon=True).start()


def kernel_signal_on_parent_death() -> None:
    """Ask the kernel for SIGKILL when the parent dies; Linux only. Safe between fork and exec."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def child_environment(**extra: str) -> dict[str, str]:
    """The environment for a child that calls `end_with_parent`: the parent may be gone before the child looks."""
    return {**os.environ, PARENT_VARIABLE: str(os.getpid()), **extra}


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
