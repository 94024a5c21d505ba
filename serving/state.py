"""The state directory: downloaded versions, the one that serves, and what the workers say.

    lock                    held by the one supervisor
    incoming/               a version being downloaded and checked
    versions/3-1700000000   complete and checked versions: number, time of registration
    current                 link to the version that serves
    status.json             what /health and /ready answer
    workers/PID             the version that each worker has loaded
    workers/failed          the version that a worker could not load
"""

import fcntl
import json
import os
import shutil
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal

State = Literal["waiting", "ready", "swapping"]
WAITING: State = "waiting"
READY: State = "ready"
SWAPPING: State = "swapping"
NO_MODEL = 0
"""What a worker without a model says its version is."""


class StateError(Exception):
    """The state directory cannot be used; the message says why."""


@dataclass(frozen=True)
class Version:
    """A registered version. The time of its registration tells it from one of the same number in
    another registry."""

    number: int
    created: int
    """Milliseconds since 1970."""

    @property
    def folder(self) -> str:
        return f"{self.number}-{self.created}"

    @classmethod
    def of_folder(cls, name: str) -> "Version":
        number, created = name.split("-")
        return cls(int(number), int(created))


@dataclass(frozen=True)
class Status:
    """What /health and /ready answer."""

    state: State
    model_version: int | None = None
    next_version: int | None = None


class StateDirectory:
    """Reads and changes the state directory; every change is atomic."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self._versions = root / "versions"
        self._workers = root / "workers"
        self._link = root / "current"
        self._status = root / "status.json"
        self._lock: IO[bytes] | None = None

    def take(self) -> None:
        """Make the directory and hold it until this process ends.

        Raises StateError where another supervisor holds it or it cannot be written.
        """
        try:
            for folder in (self._versions, self._workers):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.root / "lock").open("wb")
        except OSError as error:
            raise StateError(f"MODEL_STATE {self.root} cannot be written: {error.strerror}"
                             ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(f"another model server uses {self.root}; stop it first, "
                             "or set MODEL_STATE to another directory") from error
        shutil.rmtree(self.incoming, ignore_errors=True)
        for record in self._workers.iterdir():
            record.unlink()

    # versions

    def current(self) -> Version | None:
        """The version that the workers are to load, if there is one on disk."""
        try:
            return Version.of_folder(self._link.readlink().name)
        except (FileNotFoundError, ValueError):
            return None

    def path(self, version: Version) -> Path:
        return self._versions / version.folder

    def has(self, version: Version) -> bool:
        """Whether the version is on disk, complete and checked."""
        return self.path(version).is_dir()

    def accept(self, version: Version) -> None:
        """Keep what is in `incoming` as this version, in the place of what is there."""
        self.discard(version)
        self.incoming.replace(self.path(version))

    def discard(self, version: Version) -> None:
        """Delete the version's files."""
        shutil.rmtree(self.path(version), ignore_errors=True)

    def point(self, version: Version | None) -> None:
        """Make the workers that start from now on load this version, or none."""
        if version is None:
            self._link.unlink(missing_ok=True)
            return
        new = self._link.with_suffix(f".{threading.get_ident()}")
        new.unlink(missing_ok=True)
        new.symlink_to(self.path(version).relative_to(self.root))
        new.replace(self._link)

    def others(self, than: Version) -> list[Version]:
        """The other versions on disk, the last one used first."""
        folders = [f for f in self._versions.glob("*-*") if f.name != than.folder]
        folders.sort(key=lambda f: f.stat().st_mtime, reverse=True)
        return [Version.of_folder(f.name) for f in folders]

    def keep_only(self, *versions: Version | None) -> None:
        """Delete every other version."""
        kept = {v.folder for v in versions if v}
        for folder in self._versions.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def mark_used(self, version: Version) -> None:
        """Note that the version has served, for `others`."""
        os.utime(self.path(version))

    # status

    def write_status(self, status: Status) -> None:
        """Raises OSError where the disk is full; the old status stays."""
        new = self._status.with_suffix(".new")
        new.write_text(json.dumps(asdict(status)), encoding="ascii")
        new.replace(self._status)

    def read_status(self) -> bytes:
        """The status as JSON."""
        try:
            return self._status.read_bytes()
        except FileNotFoundError:
            return json.dumps(asdict(Status(WAITING))).encode()

    # workers

    def register_worker(self, number: int) -> None:
        """Note that this process answers with the version `number`, or NO_MODEL."""
        record = self._workers / str(os.getpid())
        record.unlink(missing_ok=True)
        record.symlink_to(str(number))  # a link's text needs no free block on a full disk

    def report_failure(self, version: Version) -> None:
        """Note that this worker cannot load the version."""
        self.forget_failure()
        (self._workers / "failed").symlink_to(version.folder)

    def forget_failure(self) -> None:
        (self._workers / "failed").unlink(missing_ok=True)

    def failed(self, version: Version) -> bool:
        """Whether a worker could not load the version."""
        try:
            return (self._workers / "failed").readlink().name == version.folder
        except FileNotFoundError:
            return False

    def unregister_worker(self) -> None:
        (self._workers / str(os.getpid())).unlink(missing_ok=True)

    def worker_versions(self) -> dict[int, int]:
        """The version that each living worker has loaded, by process id."""
        found = {}
        for record in self._workers.glob("[0-9]*"):
            if not _alive(int(record.name)):
                record.unlink(missing_ok=True)
                continue
            with suppress(OSError, ValueError):  # it ends at this moment
                found[int(record.name)] = int(record.readlink().name)
        return found


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
