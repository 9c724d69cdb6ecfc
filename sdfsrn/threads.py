"""Work shared out among threads: each takes a whole share through all of its operations.

torch shares out every single operation, and after each waits for all of its threads. Where other processes want the cores
too, such a wait lasts until the missing thread is given a core again, and a training step has hundreds of them.

Measured on two cores that others kept busy: a training step took 3.5 s with each operation split between two threads,
0.28 s on one thread, and shared out 0.7 times what it took on one thread. Two shares cost a tenth more computation than
one, as each has gradients of all weights of its own; four or five would cost half as much again.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

Part = TypeVar("Part")
Found = TypeVar("Found")


_own = threading.local()


def free_threads() -> int:
    """Among how many threads this one may share out work: as many as torch may use, also with `undivided_operations`."""
    return getattr(_own, "free", None) or torch.get_num_threads()


@contextmanager
def undivided_operations() -> Iterator[None]:
    """While it lasts, each of torch's operations in this thread has one thread; `share_out` still has all that are free.

    Threads that start meanwhile have one too, as torch keeps the count of new threads for the whole process: so one thread of
    a process computes, and others wait, read or write.
    """
    before, threads = getattr(_own, "free", None), torch.get_num_threads()
    _own.free = free_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _own.free = before


def share_out(work: Callable[[Part], Found], parts: Sequence[Part]) -> list[Found]:
    """`work(part)` for each part, in order; at once on as many threads as are free, each with undivided operations.

    Gradient and autocast modes are each thread's own: `work` sets those it needs. What `work` shares out itself is not shared
    further.
    """
    threads = free_threads()
    if min(threads, len(parts)) < 2:
        return [work(part) for part in parts]
    pool = _single_threads(threads, os.getpid())
    futures = [pool.submit(work, part) for part in parts]
    wait(futures)  # also after an error: nothing goes on behind the caller's back
    return [future.result() for future in futures]


@functools.lru_cache(maxsize=1)  # an earlier pool ends its threads when it is dropped
def _single_threads(count: int, pid: int) -> ThreadPoolExecutor:  # noqa: ARG001  # a forked process has none of its parent's
    """Threads of which each computes alone."""
    own, started = torch.get_num_threads(), threading.Barrier(count)

    def alone() -> None:
        torch.get_num_threads()  # at its first such call a thread takes over the process's count, whatever was set for it
        torch.set_num_threads(1)
        _own.free = 1
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="alone", initializer=alone)
    list(pool.map(lambda _: None, range(count)))
    torch.set_num_threads(own)
    return pool
