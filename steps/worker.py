"""The process that takes half of a grid search, and draws the plots.

It imports scikit-learn for more than a second before it can help, so it is started before the one
that it helps has imported its own libraries: this module stays apart from what takes long.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

import joblib
from joblib.externals.loky import ProcessPoolExecutor, process_executor
from joblib.externals.loky.backend import resource_tracker

from steps.memory import give_back, keep_freed
from steps.parent import end_with
from steps.records import FILES

WORTH_STARTING = 10_000_000
"""Bytes of records from which it pays."""
LAST = 3
"""While no more functions than these wait, the worker gets one only when it is free: what it holds
and has not begun cannot be taken back."""
LARGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
"""For the worker: a quarter off each fit, which begins by copying all features
(docs/performance.md). Other processes that are started later have it too; what the environment
says already is left as it is."""

KILLED = ("note: the process that takes half of a grid search was killed, as happens where memory "
          "runs out; this one goes on alone")

R = TypeVar("R")

_executor: ProcessPoolExecutor | None = None
_folders: set[TemporaryDirectory] = set()
"""What it reads from."""


def start_where_worth(arguments: Sequence[str]) -> None:
    """Start it where there is a core for it, and the records in `--data_dir` of a step's arguments
    are many enough.

    The arguments are read properly, and refused, only when everything has been imported; where it
    cannot be started, a training does without it.
    """
    data_dir = dict(pairwise(arguments)).get("--data_dir")
    if data_dir is None or joblib.cpu_count() < 2:
        return
    files = [Path(data_dir) / name for name in FILES]
    with suppress(OSError, NotImplementedError):
        if sum(path.stat().st_size for path in files if path.is_file()) >= WORTH_STARTING:
            start()


def start() -> None:
    """Start it; it imports while others work."""
    global _executor
    os.environ.setdefault(*LARGE_PAGES)  # glibc reads it where a process starts
    executor = ProcessPoolExecutor(1, initializer=_begin, initargs=(os.getpid(),))
    executor.submit(os.getpid)  # the first call starts it
    _executor = executor


def forget() -> None:
    """Let the worker, where there is one, give back the memory that it keeps for the next calls."""
    if _executor is not None:
        with suppress(RuntimeError, OSError):  # it was killed: who needs it next says so
            _executor.submit(_forget)


def end() -> None:
    """End it, whatever it does, where it has been started: it keeps memory for the next calls."""
    global _executor
    executor, _executor = _executor, None
    if executor:
        # waiting takes 40 ms; where this process ends first, loky tells of semaphores left over
        executor.shutdown(wait=True, kill_workers=True)
    for folder in list(_folders):
        _drop(folder)


def _begin(parent: int) -> None:
    keep_freed()
    end_with(parent)
    # where psutil is there, loky ends a worker whose memory grows, as that of this one must
    process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize
    from matplotlib import pyplot  # noqa: F401  scikit-learn's displays need it

    from steps import grid_search  # noqa: F401  scikit-learn with it, which takes so long
    from steps.convergence import silence_unconverged

    silence_unconverged()


class Calls(Generic[R]):
    """Functions that are called on one value, shared by this process and the worker."""

    def __init__(self, functions: Sequence[Callable[[Any], R]], value: Any) -> None:
        """Each function must say the same wherever it is called; the longest should come first."""
        self._functions, self._value = functions, value
        self._waiting = deque(range(len(functions)))
        self._elsewhere: dict[int, Future[R]] = {}
        self._moving = threading.Lock()
        self._folder: TemporaryDirectory | None = None
        self._killed = False

    def begin(self) -> None:
        """Let the worker, where there is one, begin with the first ones, while this process does
        something else. `value` is written to a file that goes with the results; where there is no
        room for it, this process does all of them."""
        if _executor is None:
            return
        with suppress(OSError):
            self._folder = _temporary_folder()
            path = Path(self._folder.name) / "value"
            joblib.dump(self._value, path)
            for _ in range(2):  # one that it does and, of many, the next
                self._hand_over(_executor, path)

    def _hand_over(self, executor: ProcessPoolExecutor, path: Path) -> None:
        with self._moving:
            busy = any(not future.done() for future in self._elsewhere.values())
            if not self._waiting or (busy and len(self._waiting) <= LAST):
                return
            number = self._waiting.popleft()
            try:
                future = executor.submit(_call, self._functions[number], path)
            except (RuntimeError, OSError) as error:  # it was killed, or has been ended
                self._killed |= isinstance(error, BrokenExecutor)
                self._waiting.appendleft(number)
                return
            self._elsewhere[number] = future
        future.add_done_callback(lambda _: self._hand_over(executor, path))

    def results(self, report: Callable[[float], None] = lambda _: None) -> list[R]:
        """What they return, in their order. To be asked for once.

        This process calls those that still wait, from the last on, and those that the worker was
        killed over, as happens where memory runs out. `report` is told the share done (0..1).
        """
        results: dict[int, R] = {}
        while (number := self._taken()) is not None:
            results[number] = self._functions[number](self._value)
            with self._moving:
                done = len(results) + sum(future.done() for future in self._elsewhere.values())
            report(done / len(self._functions))
        for number, future in self._elsewhere.items():
            try:
                results[number] = future.result()
            except BrokenExecutor:
                self._killed = True
                results[number] = self._functions[number](self._value)
        report(1)
        if self._folder:
            _drop(self._folder)
        if self._killed:
            _say_once(KILLED)
            end()  # or the next value would be written for nobody
        return [results[number] for number in range(len(self._functions))]

    def _taken(self) -> int | None:
        with self._moving:
            return self._waiting.pop() if self._waiting else None


def _temporary_folder() -> TemporaryDirectory:
    """A folder that goes with this process, also where that is killed."""
    folder = TemporaryDirectory()
    resource_tracker.register(folder.name, "folder")
    _folders.add(folder)
    return folder


def _drop(folder: TemporaryDirectory) -> None:
    _folders.discard(folder)
    folder.cleanup()
    resource_tracker.unregister(folder.name, "folder")


@cache
def _say_once(text: str) -> None:
    print(text, file=sys.stderr)


def _call(function: Callable[[Any], R], path: Path) -> R:
    return function(_read(path))


def _forget() -> None:
    _read.cache_clear()
    give_back()


@lru_cache(1)
def _read(path: Path) -> Any:
    """A value that the other process has written; its arrays are mapped."""
    return joblib.load(path, mmap_mode="r")
