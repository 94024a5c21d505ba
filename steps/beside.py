"""Threads that nobody waits for when what they work beside fails or is stopped."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def beside(threads: int) -> Iterator[ThreadPoolExecutor]:
    """So many threads. Whoever leaves the context early does not wait for them: what has not begun
    is not begun any more, and the process ends when what has begun is through."""
    executor = ThreadPoolExecutor(threads)
    try:
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
