"""The processes of a stack: found by a mark in their environment, ended without leaving any.

A process of a service may start others, in sessions of their own (trainings), and may be killed
before them. All inherit the mark. Linux only: elsewhere nothing is found.

    python -m stack.processes MARK

ends what carries the mark as soon as its standard input closes, that is when the launcher that
holds the other end is gone, however it went.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stack.services import MLFLOW

MARK, SERVICE = "JOBMATCH_STACK", "JOBMATCH_SERVICE"
TRAINING = "JOBMATCH_TRAINING"
"""The gateway marks its trainings with it (gateway/training.py)."""
SECONDS_TO_END, SECONDS_FOR_MLFLOW = 6.0, 3.0


@dataclass(frozen=True)
class Process:
    """A living process of a stack."""

    pid: int
    parent: int
    service: str
    is_training: bool
    """Or one of a training's processes."""


def members(mark: str) -> list[Process]:
    """Every living process that carries the mark."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):  # gone meanwhile, or another user's
            variables = dict(
                part.split("=", 1) for part in (entry / "environ").read_bytes().decode(
                    errors="replace").split("\0") if "=" in part)
            if variables.get(MARK) == mark:
                after_name = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if after_name[0] != "Z":
                    found.append(Process(int(entry.name), int(after_name[1]),
                                         variables.get(SERVICE, ""), TRAINING in variables))
    return found


def end_all(mark: str) -> None:
    """End a stack within ten seconds. MLflow's server goes last: trainings still tell it."""
    _end(mark, lambda process: process.service != MLFLOW, SECONDS_TO_END)
    _end(mark, lambda process: True, SECONDS_FOR_MLFLOW)


def end_remains(mark: str, service: str) -> None:
    """End what a service that has died leaves behind; its trainings go on."""
    _end(mark, lambda process: process.service == service and not process.is_training, 3.0)


def _end(mark: str, chosen: Callable[[Process], bool], seconds: float) -> None:
    """Ask the topmost processes to end, then the ones that they leave; kill what stays."""
    asked: set[int] = set()
    deadline = time.monotonic() + seconds
    while left := [process for process in members(mark) if chosen(process)]:
        late = time.monotonic() > deadline
        if time.monotonic() > deadline + 2:  # killed and still there: nobody can do more
            return
        pids = {process.pid for process in left}
        for process in left:
            if late or (process.parent not in pids and process.pid not in asked):
                asked.add(process.pid)
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL if late else signal.SIGTERM)
        time.sleep(0.1)


def main() -> None:
    """Wait for the end of the launcher, then end what it started."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    end_all(sys.argv[1])


if __name__ == "__main__":
    main()
