"""What becomes of the model server's refusals: it is played by a server that only refuses."""

import gc
import json
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from flask import Flask

from gateway.errors import Problem
from gateway.upstream import MAXIMUM_UPSTREAM_BYTES, ModelServer, _Rows
from tests.gateway.conftest import bearer, problem


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


class _Watched(list):
    """A list that can be watched."""


def test_refusal_does_not_keep_the_texts_alive(model: ModelServer) -> None:
    def ask() -> weakref.ref:
        rows = _Watched([["a CV"]])
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


def test_body_that_is_too_large_for_the_model_server_is_413(
    model: ModelServer, refusing: ThreadingHTTPServer
) -> None:
    refusing.status = 413  # type: ignore[attr-defined]
    assert _refusal(lambda: model.score(["cv_pt"], [[""]], {})).status == 413


def test_rows_are_sent_as_they_are_up_to_a_limit_in_bytes() -> None:
    rows = [["ação\u0000", "a" * 1000]] * 8000
    body = _Rows(["titulo_vaga", "cv_pt"], rows, {"reasons": 5})
    sent = b"".join(body)
    assert sent == b"".join(body)  # for a retry
    assert len(body) == len(sent)
    assert len(rows) * 1000 < len(sent) <= MAXIMUM_UPSTREAM_BYTES
    assert json.loads(sent) == {
        "dataframe_split": {"columns": ["titulo_vaga", "cv_pt"], "data": rows},
        "params": {"reasons": 5},
    }
    assert "ação".encode() in sent
    refused = _refusal(lambda: _Rows(["a"], [["\u0000" * 50_000]] * 1000, {}))
    assert refused.kind == "too-large"


def test_vacancy_that_grows_with_each_candidate_is_413_before_it_is_built(app: Flask) -> None:
    """205 kB that were 100 MB for the model server."""
    body = {
        "principais_atividades": "\u0000" * 30_000, "competencia_tecnicas_e_comportamentais": "",
        "candidates": [{"codigo": str(n), "cv_pt": ""} for n in range(1000)],
    }  # fmt: skip
    tracemalloc.start()
    answer = app.test_client().post("/rank", json=body, headers=bearer(app, "recruiter"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "fewer at a time" in problem(answer, 413, "too-large")["detail"]
    assert peak < 10_000_000
