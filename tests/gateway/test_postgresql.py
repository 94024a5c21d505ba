"""The users in a real PostgreSQL."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest

from gateway import create_app
from gateway.cli import first_start
from gateway.users import Users
from tests.gateway import servers
from tests.gateway.conftest import parts, problem
from tests.gateway.servers import PASSWORD


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a PostgreSQL without databases of ours."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("no PostgreSQL on this machine")
    programs = found[-1].parent
    root = os.getuid() == 0  # whom PostgreSQL refuses to run as
    directory = Path(tempfile.mkdtemp(prefix="jobmatch-pg-"))
    if root:
        shutil.chown(directory, "postgres")
    options = {"user": "postgres", "cwd": directory} if root else {"cwd": directory}
    data, port = str(directory / "data"), servers.free_port()
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "gateway", "-A", "trust", "--no-sync"],
        check=True, capture_output=True, **options,
    )  # fmt: skip
    process = subprocess.Popen(
        [programs / "postgres", "-D", data, "-p", str(port), "-k", str(directory), "-F"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options,
    )  # fmt: skip
    try:
        _wait(f"host=127.0.0.1 port={port} user=gateway dbname=postgres")
        yield f"gateway@127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)  # SIGTERM would wait for its clients
        process.wait(20)
        shutil.rmtree(directory, ignore_errors=True)


def _wait(address: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg2.connect(address).close()
            return
        except psycopg2.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture
def url(server: str) -> str:
    """A fresh database."""
    user, _, place = server.partition("@")
    host, _, port = place.partition(":")
    connection = psycopg2.connect(host=host, port=port, user=user, dbname="postgres")
    connection.autocommit = True
    name = f"users_{time.monotonic_ns()}"
    connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    return f"postgresql+psycopg2://{server}/{name}"


def test_name_that_no_database_takes_is_401_and_pays_for_the_hash(
    settle: Callable, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(settle(database_url=url))
    hashed: list[str] = []
    verify = parts(app).users._hasher.verify

    class Watched:
        hash = parts(app).users._hasher.hash

        def verify(self, wanted: str, password: str) -> bool:
            hashed.append(password)
            return verify(wanted, password)

    monkeypatch.setattr(parts(app).users, "_hasher", Watched())
    client = app.test_client()
    for name in ("admin\x00", "\x00", "admin\n", "ação"):
        answer = client.post("/login", json={"username": name, "password": PASSWORD})
        problem(answer, 401, "wrong-credentials")
    assert len(hashed) == 4
    answer = client.post("/login", json={"username": "admin", "password": PASSWORD})
    assert answer.status_code == 200


def test_first_start_of_two_machines_makes_one_administrator(settle: Callable, url: str) -> None:
    for n in range(5):
        database = url if n == 0 else f"{url}?options=-csearch_path%3Ds{n}"
        if n:
            _schema(url, f"s{n}")
        machines = [settle(database_url=database, state_dir=_made(settle().state_dir / str(m)))
                    for m in range(2)]  # fmt: skip
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(first_start, machines))
        users = Users(database)
        assert [user.username for user in users.all()] == ["admin"]
        users.close()


def _schema(url: str, name: str) -> None:
    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    connection.autocommit = True
    connection.cursor().execute(f"CREATE SCHEMA {name}")
    connection.close()


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory
