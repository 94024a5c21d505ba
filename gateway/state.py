"""The state directory: what the gateway keeps between starts, readable by its own user only."""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.settings import SettingsError


def prepare(directory: Path, *, private: Iterable[str] = ()) -> None:
    """Make the state directory (mode 700), and files in it that only their owner can read.

    Raises SettingsError when it cannot be written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = directory / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
        for name in private:
            keep_private(directory / name)
    except OSError as error:
        raise SettingsError(
            f"GATEWAY_STATE_DIR: {directory} cannot be written ({error.strerror})"
        ) from error


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; waits for another process that holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def keep_private(path: Path) -> None:
    """Make the file if it is missing, and see that only its owner can read it.

    SQLite gives the files that it puts beside a database the mode of the database.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def write_private(path: Path, text: str) -> None:
    """Replace `path` at once by a file of mode 600 with this text."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
