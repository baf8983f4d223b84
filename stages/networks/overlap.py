"""Work that overlaps: items made ahead in a thread, and a function of each item in several threads, in order.

The decision that is not obvious: every thread made here computes with one intra-op thread of torch. A network's maps
differ in their last bits with the number of intra-op threads (float32 logits by 1e-5, measured), and a store's bytes
must not depend on the machine; whole windows side by side use all cores as well, without waiting for one another in
every layer. torch releases Python's lock in its operations, so threads are enough.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
_lock = Lock()
_held = 0
"""Contexts of `one_thread` that are open."""
_before = 0
"""Threads of torch before the first of them."""


def ahead(items: Iterator[Item], depth: int) -> Generator[Item]:
    """The same items, made in a thread that runs at most `depth` of them ahead; what it raises is raised here."""
    end: Any = object()
    with _pool(1) as thread:
        coming = deque(thread.submit(next, items, end) for _ in range(depth))
        while (item := coming.popleft().result()) is not end:
            coming.append(thread.submit(next, items, end))
            yield item


def in_parallel(function: Callable[[Item], Result], items: Iterator[Item], threads: int) -> Generator[Result]:
    """`function` of every item, in order, computed in `threads` threads; what it raises is raised here, in its turn.

    At most twice as many items as threads are under way, so that none waits while the caller works on a result.
    """
    with _pool(threads) as pool:
        running: deque[Future[Result]] = deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) == 2 * threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


@contextmanager
def one_thread() -> Iterator[None]:
    """What is computed in the context, by any thread, is computed by that thread alone, and so has the same bits on
    any machine.

    Contexts may overlap: torch has one setting for its matrix products in all threads, so the last one to be left puts
    it back, and none before. (Two of them that each put back what they had found made products in the threads of the
    other one run in two threads, once in a while.)
    """
    global _held, _before
    with _lock:
        if not _held:
            _before = torch.get_num_threads()
            torch.set_num_threads(1)
        _held += 1
    try:
        yield
    finally:
        with _lock:
            _held -= 1
            if not _held:
                torch.set_num_threads(_before)


def cores() -> int:
    """How many threads torch may use, outside of `one_thread`."""
    with _lock:
        return _before if _held else torch.get_num_threads()


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that leave with the context: what has begun ends, what waits is dropped."""
    with one_thread():
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
