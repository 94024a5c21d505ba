"""gunicorn's threaded worker, with an end to how long a client may keep a thread waiting.

gunicorn bounds the wait for a request's first byte and nothing after it: a client that sends its
headers or body a byte at a time would hold a thread for as long as it likes. And it says goodbye on
the main thread, where one client that does not hang up keeps all others waiting.
"""

import selectors
import socket
import time
import uuid
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn import util
from gunicorn.http.errors import (
    ConfigurationProblem,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from gunicorn.http.parser import RequestParser
from gunicorn.workers.gthread import TConn, ThreadWorker

from gateway import logs
from gateway.errors import MEDIA_TYPE, Problem, render, unexpected
from gateway.incoming import DeadlineUnreader, Incoming
from gateway.settings import Settings
from gateway.training import REGISTERING_SECONDS, STOP_SECONDS

LINGER_SECONDS, LINGER_BYTES = 5.0, 16 * 1024 * 1024


@dataclass
class _Lingering:
    """A connection that is answered: until when, and for how much more, its client may send."""

    until: float
    room: int = LINGER_BYTES


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
        self._lingering: dict[TConn, _Lingering] = {}

    def handle(self, conn: TConn) -> Any:
        """Serve what comes on a connection, on a thread of the pool."""
        self._serving[conn] = time.monotonic()
        if conn.parser is None and not self.cfg.is_ssl:
            conn.parser = RequestParser(self.cfg, conn.sock, conn.client)
            conn.parser.unreader = DeadlineUnreader(conn.sock)
        try:
            return super().handle(conn)
        finally:
            self._serving.pop(conn, None)

    def handle_request(self, req: Any, conn: TConn) -> bool:
        """Answer a request whose headers are read."""
        req.body = Incoming(req, conn.parser.unreader)
        return bool(super().handle_request(req, conn))

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer what did not get as far as the application, in the one shape of errors."""
        request_id = uuid.uuid4().hex
        problem = _unreadable(exc) or unexpected(exc, request_id)
        logs.unreadable(request_id, problem.status, type(exc).__name__)
        body = render(problem, request_id).encode()
        head = (
            f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
            f"Content-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
            f"X-Request-ID: {request_id}\r\nCache-Control: no-store\r\n"
            "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        )
        with suppress(OSError):  # it may be gone
            util.write_nonblock(client, head.encode() + body)

    def finish_request(self, conn: TConn, fs: Future) -> None:
        """On the main thread: wait for the connection's next request, or let go of it."""
        if self.alive and not fs.cancelled() and not fs.exception() and fs.result():
            super().finish_request(conn, fs)
        else:
            self._linger(conn)

    def _linger(self, conn: TConn) -> None:
        """Say that nothing more will come, and take in what the client still sends.

        Hanging up on a client that sends would destroy the answer before it is read. It happens
        beside everything else, and costs neither a thread nor a wait.
        """
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._discard, conn))
        except (OSError, ValueError, KeyError):  # the client is gone
            self._close(conn)
        else:
            self._lingering[conn] = _Lingering(time.monotonic() + LINGER_SECONDS)

    def _discard(self, conn: TConn, sock: socket.socket) -> None:
        try:
            data = sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._lingering[conn].room -= len(data)
        if not data or self._lingering[conn].room < 0:
            self._end(conn)

    def _end(self, conn: TConn) -> None:
        del self._lingering[conn]
        self.poller.unregister(conn.sock)
        self._close(conn)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """A turn of the main loop, also while the worker is ending."""
        super().wait_for_and_dispatch_events(min(timeout, 1.0))
        now = time.monotonic()
        for conn in [c for c, lingering in self._lingering.items() if now > lingering.until]:
            self._end(conn)

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
                self._close(conn)

    def notify(self) -> None:
        """Called about once a second: also the time to look at the clock."""
        super().notify()
        now = time.monotonic()
        for conn, began in list(self._serving.items()):
            if now - began > self.answer_seconds:
                _shut(conn, socket.SHUT_RDWR)
            elif now - began > self.read_seconds:
                if isinstance(conn.parser, RequestParser):  # not so under TLS before its handshake
                    conn.parser.unreader.ended = True
                _shut(conn, socket.SHUT_RD)


def _unreadable(error: BaseException) -> Problem | None:
    """What is wrong with a request that gunicorn cannot read; None when it is not the request."""
    if isinstance(error, LimitRequestLine):
        return Problem("address-too-long", "the request line is too long")
    if isinstance(error, LimitRequestHeaders):
        return Problem("headers-too-large", "a header is too long, or there are too many")
    if isinstance(error, ParseException | OSError) and not isinstance(error, ConfigurationProblem):
        return Problem("bad-request", "the request line or a header is malformed")
    return None


def _shut(conn: TConn, side: int) -> None:
    with suppress(OSError):  # it may be closed by now
        conn.sock.shutdown(side)


def _longest(settings: Settings) -> float:
    """How many seconds a view may take: none is cut off that would still answer."""
    # every retry of the model server may use up its time-out
    scoring = 5 * settings.model_timeout_seconds
    # MLflow is asked a dozen times around the wait for a training that is stopped; fewer times by
    # one that is handed over, and by a promotion
    stopping = STOP_SECONDS + REGISTERING_SECONDS + 12 * settings.tracking_timeout_seconds
    return max(scoring, stopping)


def worker_for(settings: Settings) -> type[DeadlineWorker]:
    """The worker class for these settings."""

    class Worker(DeadlineWorker):
        read_seconds = settings.read_seconds
        answer_seconds = settings.read_seconds + _longest(settings)

    return Worker
