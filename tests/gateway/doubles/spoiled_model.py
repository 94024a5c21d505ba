"""The real model server with its answers spoiled on the way, by a proxy in front of it.

For what `python -m serving` cannot be made to do at will: it never answers NaN, leaves out rows or
tells of its files. All that a test does not spoil is the real answer, so nothing here can drift
from the real contract.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import requests

Spoil = Callable[[requests.Response], tuple[int, bytes, dict[str, str]]]


class SpoiledModel:
    """Its `url` answers what the model server at `model_url` does, until a test says otherwise."""

    def __init__(self, model_url: str, url: str) -> None:
        self.model_url = model_url
        self.url = url
        self.asked: list[str] = []
        """The paths that were asked for."""
        self._spoils: dict[str, Spoil] = {}

    def predict(self, change: Callable[[list[dict[str, Any]]], Any]) -> None:
        """Answer to /invocations what `change` makes of the real predictions."""

        def spoil(real: requests.Response) -> tuple[int, bytes, dict[str, str]]:
            answer = {**real.json(), "predictions": change(real.json()["predictions"])}
            return real.status_code, json.dumps(answer).encode(), {}

        self._spoils["/invocations"] = spoil

    def answer(self, path: str, status: int, body: bytes, **headers: str) -> None:
        """Answer this to requests for `path`."""
        self._spoils[path] = lambda real: (status, body, headers)

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        self.asked.append(path)
        real = requests.request(
            method, self.model_url + path, data=body or None, timeout=60,
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        if path in self._spoils:
            return self._spoils[path](real)
        return real.status_code, real.content, {}


@contextmanager
def spoiled_model(model_url: str) -> Iterator[SpoiledModel]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            given = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body, headers = spoiled._answer(self.command, self.path, given)
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        spoiled = SpoiledModel(model_url, f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield spoiled
        finally:
            server.shutdown()
            thread.join()
