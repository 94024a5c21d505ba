"""Rate limits shared by the workers of one machine: a storage of the `limits` library in SQLite.

The library's own memory storage counts in each worker apart; its Redis storage is used when
several machines share the limits (GATEWAY_LIMITS_URL).
"""

import sqlite3
import threading
import time
from pathlib import Path

from limits.storage import Storage

_PURGE_EVERY = 1000


class SqliteStorage(Storage):
    """Fixed windows in a table; `limits-sqlite:///path`. Losing it only forgets the counts."""

    STORAGE_SCHEME = ["limits-sqlite"]  # noqa: RUF012 - the library's own declaration

    def __init__(self, uri: str, wrap_exceptions: bool = False, **options: str) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions, **options)
        self._path = uri.partition("://")[2]
        self._local = threading.local()
        self._count = 0
        try:
            self._create()
        except sqlite3.OperationalError:  # locked, or no place for it
            raise
        except sqlite3.DatabaseError:  # damaged: a new one only forgets the counts
            for end in ("", "-wal", "-shm"):
                Path(self._path + end).unlink(missing_ok=True)
            self._local = threading.local()
            self._create()

    def _create(self) -> None:
        with self._connection() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS hits (key TEXT PRIMARY KEY, count INTEGER, "
                "expires REAL) WITHOUT ROWID"
            )

    def _connection(self) -> sqlite3.Connection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=5, isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")
            self._local.connection = connection
        return connection

    @property
    def base_exceptions(self) -> type[Exception]:
        """What the library wraps."""
        return sqlite3.Error

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count a hit and return the hits of the window, which begins with its first."""
        now = time.time()
        self._count += 1
        if self._count % _PURGE_EVERY == 0:
            self._connection().execute("DELETE FROM hits WHERE expires <= ?", (now,))
        row = self._connection().execute(
            "INSERT INTO hits VALUES (:key, :amount, :until) ON CONFLICT (key) DO UPDATE SET "
            "count = CASE WHEN expires <= :now THEN :amount ELSE count + :amount END, "
            "expires = CASE WHEN expires <= :now THEN :until ELSE expires END RETURNING count",
            {"key": key, "amount": amount, "now": now, "until": now + expiry},
        ).fetchone()
        return int(row[0])

    def get(self, key: str) -> int:
        """The hits of the current window."""
        row = self._connection().execute(
            "SELECT count FROM hits WHERE key = ? AND expires > ?", (key, time.time())
        ).fetchone()
        return int(row[0]) if row else 0

    def get_expiry(self, key: str) -> float:
        """When the current window ends, in seconds since 1970."""
        row = self._connection().execute(
            "SELECT expires FROM hits WHERE key = ?", (key,)
        ).fetchone()
        return float(row[0]) if row else time.time()

    def check(self) -> bool:
        """Whether the table can be read."""
        try:
            self.get("")
        except sqlite3.Error:
            return False
        return True

    def reset(self) -> int:
        """Forget all counts."""
        return self._connection().execute("DELETE FROM hits").rowcount

    def clear(self, key: str) -> None:
        """Forget one count."""
        self._connection().execute("DELETE FROM hits WHERE key = ?", (key,))
