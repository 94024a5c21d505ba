"""The folder for a step's temporary files, which may hold texts of CVs.

It goes with the step; where that is killed, with the next step that runs on the machine. A step
holds a lock on its folder (flock(2)), which the kernel takes back from a process that is gone.
"""

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl

PREFIX = "jobmatch-step-"
NEW = 60.0
"""Seconds in which a folder without a lock is left alone: its step may be about to take it."""


@contextmanager
def own_folder() -> Iterator[None]:
    """All temporary files of this process, those of MLflow's downloads too, are in a folder that
    goes at the end."""
    usual = tempfile.tempdir
    remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        lock = _open(Path(folder))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tempfile.tempdir = folder
            yield
        finally:
            tempfile.tempdir = usual
            os.close(lock)


def write_table(table: pl.DataFrame, path: Path, **how: Any) -> None:
    """`write_parquet`, which says with an error of its own where there is no room; here it is an
    OSError like any other."""
    try:
        table.write_parquet(path, **how)
    except pl.exceptions.ComputeError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def remove_abandoned(where: Path) -> None:
    """Remove the folders there of steps of this user that were killed."""
    for folder in where.glob(f"{PREFIX}*"):
        with suppress(OSError):  # held by its step, of somebody else, or gone meanwhile
            lock = _open(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                state = os.fstat(lock)
                if state.st_uid == os.getuid() and time.time() - state.st_mtime > NEW:
                    shutil.rmtree(folder)
            finally:
                os.close(lock)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
