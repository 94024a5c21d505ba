"""Doubles of what MLflow's Kubernetes backend talks to: the Jobs API and the Docker engine."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

IMAGE = "registry.example.com/jobmatch:1"
DIGEST = "sha256:" + "0" * 64


class _Answering(BaseHTTPRequestHandler):
    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int, body: object) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


class Cluster(ThreadingHTTPServer):
    """The three calls of the Jobs API that MLflow makes. No pod runs: a test plays it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Jobs)
        self.jobs: dict[str, Any] = {}
        self.condition: str | None = "Complete"
        """What becomes of each job, `Complete` or `Failed`; None as long as its pod runs."""


class _Jobs(_Answering):
    server: Cluster

    def do_POST(self) -> None:
        job = json.loads(self.body())
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
        self.server.jobs[job["metadata"]["name"]] = job
        self.answer(201, job)

    def do_GET(self) -> None:
        status: dict[str, Any] = {"startTime": "2026-01-01T00:00:00Z"}
        if condition := self.server.condition:
            status["conditions"] = [{"type": condition, "status": "True", "message": "done"}]
        self.answer(200, self.server.jobs[self._name(-2)] | {"status": status})

    def do_DELETE(self) -> None:
        self.body()
        del self.server.jobs[self._name(-1)]
        self.answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _name(self, place: int) -> str:
        return self.path.partition("?")[0].split("/")[place]


class _Engine(_Answering):
    """Docker's API, as far as MLflow asks it: the image is there, and every push goes well."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.endswith("/version"):
            self.answer(200, {"ApiVersion": "1.44"})
        elif path.endswith("/images/json"):
            self.answer(200, [{"Id": DIGEST}])
        elif "/distribution/" in path:
            self.answer(200, {"Descriptor": {"digest": DIGEST}})
        else:
            self.answer(200, {"Id": DIGEST, "RepoTags": [IMAGE]})

    def do_POST(self) -> None:
        self.body()
        self.answer(200, {"status": "pushed"})


@contextmanager
def cluster(kubeconfig: Path) -> Iterator[Cluster]:
    """The Jobs API, to which the context `my-cluster` of the file `kubeconfig` leads."""
    with Cluster() as server, _answering(server):
        kubeconfig.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "my-cluster", "users": [],
            "clusters": [{"name": "c", "cluster": {
                "server": f"http://127.0.0.1:{server.server_port}"}}],
            "contexts": [{"name": "my-cluster", "context": {"cluster": "c", "user": ""}}],
        }))  # fmt: skip
        yield server


@contextmanager
def engine(command: Path) -> Iterator[str]:
    """A Docker engine's DOCKER_HOST; `command` becomes a `docker` whose `docker info` works."""
    command.write_text("#!/bin/sh\nexit 0\n")
    command.chmod(0o755)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Engine) as server, _answering(server):
        yield f"tcp://127.0.0.1:{server.server_port}"


@contextmanager
def _answering(server: ThreadingHTTPServer) -> Iterator[None]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield
    server.shutdown()
