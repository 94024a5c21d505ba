"""The `mlflow run` that this process belongs to, found in /proc; on other systems there is none."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

RUN = "MLFLOW_RUN_ID"


@dataclass(frozen=True)
class Ancestor:
    """A process; its time of start tells it from a later one of the same number."""

    pid: int
    started: str

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        try:
            state, _, started = _stat(self.pid)
        except OSError:
            return False
        return started == self.started and state != "Z"  # ended, and nobody has asked how


def ancestors() -> list[Ancestor]:
    """From this process' parent to the `mlflow run` that started it, which is the last one.

    Empty when no `mlflow run` did. A SIGTERM to `mlflow run` ends that process and no other.
    """
    mark = f"{RUN}={os.environ.get(RUN)}".encode()
    found, pid = [], os.getppid()
    with suppress(OSError):
        while RUN in os.environ and pid > 1:
            _, parent, started = _stat(pid)
            found.append(Ancestor(pid, started))
            if mark not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return found  # it made the run, so it does not have it in its environment
            pid = int(parent)
    return []


def _stat(pid: int) -> tuple[str, str, str]:
    """State, parent and time of start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return fields[0], fields[1], fields[19]
