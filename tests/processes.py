"""Processes that tests look for; those that are dead and wait to be collected do not count."""

import os
from contextlib import suppress
from pathlib import Path

import joblib
import psutil
import pytest

needs_worker = pytest.mark.skipif(
    not Path("/proc/self/task").exists() or joblib.cpu_count() < 2,
    reason="needs Linux' /proc and two cores")


def alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children(parent: int, command: str = "") -> list[int]:
    """Those whose command line holds `command`."""
    try:
        started = psutil.Process(parent).children()
    except psutil.NoSuchProcess:
        return []
    found = []
    for child in started:
        with suppress(psutil.NoSuchProcess):  # gone meanwhile
            if command in " ".join(child.cmdline()) and alive(child.pid):
                found.append(child.pid)
    return found


def group_members(group: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and alive(process.pid):
                found.append(process)
    return found
