"""The ASGI application of each worker: `POST /invocations`, `GET /health`, `/ready`, and
`/ping` and `/version` for those who know `mlflow models serve`.

It takes and answers what `mlflow models serve` does, with the same model, and adds the limits,
the errors in one sentence without an echo of the input, and the state of the supervisor. MLflow's
own FastAPI application is not used: it takes 1.7 times the CPU for a row (see docs/serving.md), and
its errors must not leave the machine.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec

from serving.errors import where
from serving.lifeline import end_with_parent
from serving.settings import Settings
from serving.state import NO_MODEL, WAITING, StateDirectory, Version

if TYPE_CHECKING:
    from serving.scoring import Scoring

LARGEST_BODY = 32 * 2**20
SMALL_BODY, FEW_BRACKETS = 32 * 2**10, 40
"""JSON of up to this size and with so few lists and objects, that is rows, takes about a
millisecond: less than handing it to a thread and back under load. A table by columns (`inputs`) may
hold thousands of rows in a few lists."""
MOST_AT_ONCE = 256
LARGEST_TOGETHER = 256 * 2**20
"""What a worker holds of bodies at a time before it refuses further ones over SMALL_BODY. One that
a thread works on counts twice: as bytes, and as what is read from them."""
SECONDS_TO_SEND, SECONDS_TO_ANSWER = 60, 60

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_log = logging.getLogger("serving")


class Refused(Exception):
    """A request that gets an error: its status, one sentence and further headers."""

    def __init__(self, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = list(headers)


class Disconnected(Exception):
    """The client went away before its request was complete."""


def create_app() -> "Application":
    """What uvicorn calls in each worker."""
    parent = multiprocessing.parent_process()
    if parent and parent.pid:  # while it loads there is nothing to finish gracefully
        end_with_parent(parent.pid, signal.SIGKILL)
    return Application(StateDirectory(Settings.from_environment(os.environ).state))


class Application:
    """Answers with the version that the state directory's link named when the worker started."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._scoring: Scoring | None = None
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="scoring")
        self._busy = 0
        self._held = 0

    def retire(self) -> None:
        """The worker is to end: it does not count as one that serves any more."""
        self._state.unregister_worker()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        current = self._state.current()
        try:
            self._load(current)
        except Exception as error:  # a model may raise anything
            _log.error("worker %d: the model does not load (%s)", os.getpid(), where(error))
            if current:
                self._state.report_failure(current)
            await send({"type": "lifespan.startup.failed", "message": ""})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._state.unregister_worker()
        await send({"type": "lifespan.shutdown.complete"})

    def _load(self, current: Version | None) -> None:
        if current:
            from serving.scoring import Scoring  # MLflow: seconds and 100 MB

            self._scoring = Scoring(self._state.path(current))
        parent = multiprocessing.parent_process()
        if parent and parent.pid:
            end_with_parent(parent.pid, signal.SIGTERM)  # requests under way are finished
        self._state.register_worker(current.number if current else NO_MODEL)

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        headers: list[tuple[bytes, bytes]] = []
        try:
            status, body = await self._answer(scope, receive)
        except Refused as error:
            status, headers = error.status, error.headers
            body = msgspec.json.encode({"error": str(error)})
        except Disconnected:
            return
        kind = b"text/plain" if scope["path"] == "/version" else b"application/json"
        headers += [(b"content-type", kind),
                    (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Message, receive: Receive) -> tuple[int, bytes]:
        path, method = scope["path"], scope["method"]
        if path == "/invocations":
            _allow(method, "POST")
            return 200, await self._invocations(dict(scope["headers"]), receive)
        if path in ("/health", "/ready", "/ping"):
            _allow(method, "GET")
            body = self._state.read_status()
            waiting = path != "/health" and msgspec.json.decode(body)["state"] == WAITING
            return (503 if waiting else 200), body
        if path == "/version":
            _allow(method, "GET")
            return 200, version("mlflow").encode()
        raise Refused(404, "there is /invocations, /health, /ready, /ping and /version")

    async def _invocations(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        if self._scoring is None:
            raise Refused(503, "no production model yet: train and promote one first",
                          (b"retry-after", b"10"))
        if self._busy >= MOST_AT_ONCE:
            raise Refused(503, "too many requests at once: try again", (b"retry-after", b"1"))
        self._busy += 1
        body = _Body(self._hold)
        try:
            content = await body.read(headers, receive)
            content_type = headers.get(b"content-type", b"").decode("latin-1")
            return await self._score(self._scoring, content, content_type)
        finally:
            self._busy -= 1
            self._hold(-body.size)

    def _hold(self, size: int) -> int:
        """Count bytes that have come (size > 0) or gone; how many there are now."""
        self._held += size
        return self._held

    async def _score(self, scoring: "Scoring", body: bytes, content_type: str) -> bytes:
        try:
            if _is_small(body, content_type):
                return scoring.answer(body, content_type)
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._threads, scoring.answer, body, content_type)
            # for as long as the thread works, also where nobody waits any more
            self._busy += 1
            self._hold(len(body))
            work.add_done_callback(partial(self._done, len(body)))
            return await asyncio.wait_for(asyncio.shield(work), SECONDS_TO_ANSWER)
        except scoring.refusals as error:
            raise Refused(error.status, str(error)) from error
        except TimeoutError as error:
            raise Refused(504, f"the answer took more than {SECONDS_TO_ANSWER} s: "
                               "send fewer rows") from error
        except Exception as error:
            # its message may hold the input: only its kind and place are logged
            _log.error("answering failed: %s", where(error))
            raise Refused(500, "the model failed on this request") from error

    def _done(self, size: int, work: asyncio.Future[bytes]) -> None:
        self._busy -= 1
        self._hold(-size)
        if not work.cancelled():
            work.exception()  # looked at, or asyncio would log it with its message


def _is_small(body: bytes, content_type: str) -> bool:
    return (len(body) <= SMALL_BODY and content_type.startswith("application/json")
            and body.count(b"{") + body.count(b"[") <= FEW_BRACKETS
            and not any(word in body for word in (b"top_k", b"reasons", b'"inputs"')))


def _allow(method: str, allowed: str) -> None:
    if method != allowed and not (method == "HEAD" and allowed == "GET"):
        raise Refused(405, f"the method must be {allowed}", (b"allow", allowed.encode()))


def _too_large() -> Refused:
    return Refused(413, f"the body may be at most {LARGEST_BODY // 2**20} MB",
                   (b"connection", b"close"))


class _Body:
    """The body of one request; `hold` counts the bytes of all requests."""

    def __init__(self, hold: Callable[[int], int]) -> None:
        self._hold = hold
        self.size = 0

    async def read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Refused(415, "the body must not be compressed")
        if int(headers.get(b"content-length", b"0")) > LARGEST_BODY:
            raise _too_large()
        parts = []
        try:
            async with asyncio.timeout(SECONDS_TO_SEND):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    part = message.get("body", b"")
                    parts.append(part)
                    self.size += len(part)
                    together = self._hold(len(part))
                    if self.size > LARGEST_BODY:
                        raise _too_large()
                    if self.size > SMALL_BODY and together > LARGEST_TOGETHER:
                        raise Refused(503, "too many large requests at once: try again",
                                      (b"retry-after", b"1"), (b"connection", b"close"))
                    if not message.get("more_body"):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError as error:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time",
                          (b"connection", b"close")) from error
