"""Work shared out among threads: each takes a whole share through all of its operations.

torch shares out every single operation, and after each waits for all of its threads. Where other processes want the cores
too, such a wait lasts until the missing thread is given a core again, and a training step has hundreds of them.

Measured on two cores that others kept busy: a training step took 3.5 s with each operation split between two threads,
0.28 s on one thread, and shared out 0.7 times what it took on one thread. Two shares cost a tenth more computation than
one, as each has gradients of all weights of its own; four or five would cost half as much again.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Part = TypeVar("Part")
Found = TypeVar("Found")


@contextmanager
def undivided_operations() -> Iterator[int]:
    """While it lasts, each of torch's operations has one thread; yields how many it had, for `share_out`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def share_out(work: Callable[[Part], Found], parts: Sequence[Part], threads: int) -> list[Found]:
    """`work(part)` for each part, in order, on at most so many threads at once; to be called with `undivided_operations`.

    Gradient and autocast modes are each thread's own: `work` sets those it needs.
    """
    threads = min(threads, len(parts))
    if threads < 2:
        return [work(part) for part in parts]
    # the number of threads of an operation is a thread's own: a new one begins with the process's
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(work, parts))
