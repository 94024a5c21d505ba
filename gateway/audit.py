"""The audit log: one JSON line for each login, training, promotion and prediction.

It says which version said what, when, to whom: digests of the texts and the scores, never the
texts. Without it nothing is answered: who cannot be held to account does not get a score.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

FILE = "audit.jsonl"


class AuditError(Exception):
    """The audit log cannot be written."""


class Audit:
    """Appends to `audit.jsonl` in the state directory; every worker may do so at once."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    def record(self, event: str, *, user: str | None, request_id: str, **facts: object) -> None:
        """Append one line.

        Raises AuditError when it cannot be written completely.
        """
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event,
            "user": user,
            "request_id": request_id,
            **facts,
        }
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        # opened anew for each line, so that the file can be rotated by moving it; one write under
        # a lock, so that the lines of several workers do not mix
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # let go of with the descriptor
                if _ends_in_half_a_line(descriptor):
                    data = b"\n" + data
                written = os.write(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise AuditError(f"{self._path.name} cannot be written: {error.strerror}") from error
        if written != len(data):
            raise AuditError(f"{self._path.name} cannot be written: the disk is full")


def _ends_in_half_a_line(descriptor: int) -> bool:
    """Whether the last write did not get through: the disk was full, or the machine stopped."""
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def digest(texts: Mapping[str, str]) -> str:
    """SHA-256 of the texts as JSON with sorted keys and no spaces, in UTF-8."""
    canonical = json.dumps(dict(texts), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
