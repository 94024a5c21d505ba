"""The memory of a process and of all that it starts, looked at while they run."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread

import psutil

INTERVAL = 0.1
"""Seconds between two looks, each of some milliseconds."""


@dataclass
class Peak:
    """The most that was seen."""

    mb: float = 0
    """What processes share counts in each of them."""


@contextmanager
def peak_of_all(pid: int) -> Iterator[Peak]:
    """The resident memory of this process and its descendants, together, while the context lasts.
    What comes and goes between two looks is missed."""
    peak, ended = Peak(), Event()

    def look() -> None:
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            while not ended.wait(INTERVAL):
                peak.mb = max(peak.mb, sum(map(_resident, [root, *root.children(True)])) / 2**20)

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return int(process.memory_info().rss)
    return 0
