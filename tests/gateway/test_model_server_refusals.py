"""What becomes of the model server's refusals: it is played by a server that only refuses."""

import gc
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gateway.errors import Problem
from gateway.upstream import ModelServer


class _Refusing(BaseHTTPRequestHandler):
    status = 503

    def do_GET(self) -> None:
        self._answer(200, {"state": "waiting"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(self.server.status, {"error": "no"})  # type: ignore[attr-defined]

    def _answer(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    server.status = 503  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def model(settle: Callable, refusing: ThreadingHTTPServer) -> ModelServer:
    return ModelServer(settle(model_url=f"http://127.0.0.1:{refusing.server_port}"))


def _refusal(ask: Callable[[], object]) -> Problem:
    with pytest.raises(Problem) as caught:
        ask()
    return caught.value


class _Rows(list):
    """A list that can be watched."""


def test_refusal_does_not_keep_the_texts_alive(model: ModelServer) -> None:
    def ask() -> weakref.ref:
        rows = _Rows([["a CV"]])
        try:
            model.score(["cv_pt"], rows, {})
        except Problem as problem:
            assert problem.kind == "no-production-model"
        return weakref.ref(rows)

    watched = ask()
    gc.collect()
    assert watched() is None


def test_each_refusal_is_one_of_its_own(model: ModelServer) -> None:
    first, second = (_refusal(lambda: model.score(["cv_pt"], [[""]], {})) for _ in range(2))
    assert first is not second
