"""Requests that cannot be read, bodies that do not come: under gunicorn, with default settings."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
import requests

from tests.gateway import servers
from tests.gateway.servers import KEY, PASSWORD

CHUNKED = b"Host: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def url(directory: Path) -> Iterator[str]:
    with servers.gateway(directory, GATEWAY_ADMIN_PASSWORD=PASSWORD, GATEWAY_JWT_KEYS=KEY,
                         GATEWAY_LOGIN_LIMIT="1000/minute") as url:  # fmt: skip
        yield url


def connect(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10)


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    received = b""
    while part := sock.recv(65536):
        received += part
    return received


def ask(url: str, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer, after which the connection has to end."""
    with connect(url) as sock:
        sock.sendall(request)
        answer = read_all(sock)
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    return int(first.split()[1]), {k.lower(): v for k, v in (h.split(": ", 1) for h in rest)}, body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nX A: b\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nX-A: a\r\n secret\r\n\r\n", 400),
        (b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n"
         b"\r\n0\r\n\r\n", 400),
        (b"GET /health HTTP/9.9\r\nHost: a\r\n\r\n", 400),
        (b"nonsense secret\r\n\r\n", 400),
        (b"POST /login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: secret\r\n\r\n", 400),
    ],
    ids=["long-line", "long-header", "bad-header", "folded", "smuggled", "version", "nonsense",
         "coding"],
)  # fmt: skip
def test_request_that_cannot_be_read_gets_a_problem_and_a_line(
    url: str, directory: Path, request_: bytes, status: int
) -> None:
    got, headers, body = ask(url, request_)
    assert got == status
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    problem = json.loads(body)
    assert problem["status"] == status
    assert problem["request_id"] == headers["x-request-id"]
    assert "secret" not in body.decode()
    log = (directory / "gateway.log").read_text()
    (line,) = [line for line in log.splitlines() if headers["x-request-id"] in line]
    assert json.loads(line)["status"] == status
    assert "secret" not in log


@pytest.mark.parametrize("path", [b"/login", b"/predict"])
@pytest.mark.parametrize(
    "body",
    [b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}\r\n", b"2\r\n{}XX0\r\n\r\n", b"2;a\rb\r\n{}\r\n0\r\n\r\n",
     b"2\r\n{}\r\n0\r\nbad trailer\r\n\r\n", b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n"],
    ids=["size", "negative", "terminator", "extension", "trailer", "forbidden-trailer"],
)
def test_malformed_chunks_are_a_400_and_end_the_connection(
    url: str, directory: Path, path: bytes, body: bytes
) -> None:
    second = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"  # must not be taken for a request
    head = b"POST " + path + b" HTTP/1.1\r\n" + CHUNKED
    status, headers, content = ask(url, head + body + second)
    # a stranger is told so before the body is looked at
    assert status == (401 if path == b"/predict" else 400)
    assert headers["connection"] == "close"
    assert content.count(b"urn:jobmatch:problem") == 1
    assert b"alive" not in content
    assert "Traceback" not in (directory / "gateway.log").read_text()


def test_body_that_stops_halfway_is_408(url: str) -> None:
    with connect(url) as sock:
        sock.sendall(b"POST /login HTTP/1.1\r\n" + CHUNKED + b"5\r\n{}")
        sock.shutdown(socket.SHUT_WR)
        assert b" 408 " in read_all(sock).split(b"\r\n")[0]


@pytest.mark.parametrize(("path", "status"), [(b"/login", 408), (b"/predict", 401)])
def test_body_that_is_cut_short_ends_the_connection(url: str, path: bytes, status: int) -> None:
    with connect(url) as sock:
        sock.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                     b"Content-Length: 100\r\n\r\n{")
        sock.shutdown(socket.SHUT_WR)
        head = read_all(sock).partition(b"\r\n\r\n")[0]
    assert f" {status} ".encode() in head.split(b"\r\n")[0]
    assert b"Connection: close" in head


def test_strangers_that_send_one_byte_keep_nobody_waiting(url: str) -> None:
    slow = [connect(url) for _ in range(40)]  # more than 2 workers have threads
    for sock in slow:
        sock.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n"
                     b"Content-Type: application/json\r\n\r\n{")
    for _ in range(8):  # so that both workers are asked
        started = time.monotonic()
        assert requests.get(url + "/health", timeout=30).status_code == 200
        assert time.monotonic() - started < 2
    for sock in slow:
        answer = read_all(sock)
        assert b" 401 " in answer.split(b"\r\n")[0]
        assert b"Connection: close" in answer
        sock.close()


def test_stranger_that_drips_is_answered_at_once(url: str) -> None:
    started = time.monotonic()
    with connect(url) as sock:
        sock.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n")
        sock.settimeout(0.05)
        answer = b""
        while not answer:
            sock.sendall(b" ")
            try:
                answer = sock.recv(65536)
            except TimeoutError:
                assert time.monotonic() - started < 2
    assert b" 401 " in answer.split(b"\r\n")[0]


def test_refused_request_whose_body_is_there_keeps_its_connection(url: str) -> None:
    port = int(url.rpartition(":")[2])
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        for _ in range(3):
            connection.request("POST", "/predict", body=b"{}")
            answer = connection.getresponse()
            assert (answer.status, answer.will_close) == (401, False)
            answer.read()


def test_refused_upload_gets_its_answer_although_it_goes_on(url: str) -> None:
    with connect(url) as sock:
        sock.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n")
        for _ in range(80):
            sock.sendall(b" " * 100_000)
        assert b" 401 " in read_all(sock).split(b"\r\n")[0]
