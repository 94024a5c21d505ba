"""A request's body as it comes from gunicorn, with an end to waiting for it and its faults named.

gunicorn raises what its parser finds wrong in a body as it goes, some of it as if the client had
hung up, and would read the next request from what follows.
"""

import math
import time
from typing import Any

from gunicorn.http.body import Body
from gunicorn.http.errors import (
    ChunkMissingTerminator,
    InvalidChunkExtension,
    InvalidChunkSize,
    ParseException,
)
from gunicorn.http.unreader import SocketUnreader
from werkzeug.exceptions import BadRequest

FINISH_SECONDS = 0.25
_MALFORMED = (ParseException, InvalidChunkSize, InvalidChunkExtension, ChunkMissingTerminator)


class DeadlineUnreader(SocketUnreader):
    """Reads from a socket, and not beyond `deadline` (on the monotonic clock)."""

    deadline = math.inf
    ended = False
    """Whether nothing more comes: the client has shut its side, or the gateway has."""

    def chunk(self) -> bytes:
        """What comes next. Raises TimeoutError or BlockingIOError when nothing does in time."""
        data = self._chunk()
        self.ended = self.ended or not data
        return data

    def _chunk(self) -> bytes:
        if self.deadline == math.inf:
            return super().chunk()
        self.sock.settimeout(max(0.0, self.deadline - time.monotonic()))
        try:
            return super().chunk()
        finally:
            self.sock.settimeout(None)


class Incoming(Body):
    """The `wsgi.input` of a request: what cannot be read of it ends its connection."""

    def __init__(self, req: Any, unreader: Any) -> None:
        super().__init__(_Reader(req))
        self._req = req
        self._unreader = unreader

    def finish(self, most: int) -> None:
        """Take in what is left of the body if it is there already and not more than `most`.

        Else the connection ends with the answer: nobody waits for what will not be looked at, and
        a next request could not be told from it. So it does where none can come any more.
        """
        self._unreader.deadline = time.monotonic() + FINISH_SECONDS
        try:
            while most > 0:
                piece = self.read(min(most, 65536))
                if not piece:
                    break
                most -= len(piece)
        except (OSError, BadRequest):
            return  # whose reader has seen to the connection
        finally:
            self._unreader.deadline = math.inf
        # gunicorn's own unreader, which there is under TLS, does not tell
        if most <= 0 or getattr(self._unreader, "ended", False):
            self._req.force_close()


class _Reader:
    """gunicorn's reader of a body, of which nothing is expected any more after a fault."""

    def __init__(self, req: Any) -> None:
        self._req = req
        self._reader = req.body.reader

    def read(self, size: int) -> bytes:
        """The next bytes; none at the end.

        Raises BadRequest for a malformed body, OSError when the client is gone or too slow.
        """
        try:
            return self._reader.read(size)
        except _MALFORMED as error:
            self._req.force_close()
            if getattr(error, "term", None) == b"":  # gunicorn's word for a client that is gone
                raise
            raise BadRequest from None
        except OSError:
            self._req.force_close()
            raise
