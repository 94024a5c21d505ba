"""gunicorn's threaded worker, with an end to how long a client may keep a thread waiting.

gunicorn bounds the wait for a request's first byte and nothing after it: a client that sends its
headers or body a byte at a time would hold a thread for as long as it likes.
"""

import socket
import time
from contextlib import suppress
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from gateway.settings import Settings

DISCARD_SECONDS, DISCARD_BYTES = 5.0, 16 * 1024 * 1024


class DeadlineWorker(ThreadWorker):
    """Shuts the reading side of a connection that has been served for too long.

    A request that has arrived by then is not touched: only its connection is not kept alive. One
    that has not ends as if the client had hung up. Later the writing side is shut too, for clients
    that do not read their answer.
    """

    read_seconds: float
    answer_seconds: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._serving: dict[TConn, float] = {}

    def handle(self, conn: TConn) -> Any:
        """Serve what comes on a connection, on a thread of the pool."""
        self._serving[conn] = time.monotonic()
        try:
            return super().handle(conn)
        finally:
            self._serving.pop(conn, None)

    def handle_request(self, req: Any, conn: TConn) -> bool:
        """Answer a request; take in what its client still sends when it was refused unread.

        Hanging up on a client that sends would destroy the answer before it is read.
        """
        keep_alive = super().handle_request(req, conn)
        if not req.body.read(1):
            return bool(keep_alive)
        deadline = time.monotonic() + DISCARD_SECONDS
        conn.parser.finish_body(deadline=deadline, max_bytes=DISCARD_BYTES)
        return False

    def set_accept_enabled(self, enabled: bool) -> None:
        """Called when the worker is to end, among others: connections without a request go first.

        gunicorn would wait for idle clients to hang up, for as long as its grace lasts.
        """
        super().set_accept_enabled(enabled)
        if self.alive:
            return
        for waiting in (self.keepalived_conns, self.pending_conns):
            while waiting:
                conn = waiting.popleft()
                with suppress(OSError, KeyError, ValueError):  # its client may be gone
                    self.poller.unregister(conn.sock)
                self.nr_conns -= 1
                conn.close()

    def notify(self) -> None:
        """Called about once a second: also the time to look at the clock."""
        super().notify()
        now = time.monotonic()
        for conn, began in list(self._serving.items()):
            if now - began > self.answer_seconds:
                _shut(conn, socket.SHUT_RDWR)
            elif now - began > self.read_seconds:
                _shut(conn, socket.SHUT_RD)


def _shut(conn: TConn, side: int) -> None:
    with suppress(OSError):  # it may be closed by now
        conn.sock.shutdown(side)


def worker_for(settings: Settings) -> type[DeadlineWorker]:
    """The worker class for these settings."""

    class Worker(DeadlineWorker):
        read_seconds = settings.read_seconds
        # every retry of the model server may use up its time-out
        answer_seconds = settings.read_seconds + 5 * settings.model_timeout_seconds

    return Worker
