"""Processes killed, the registry away, the disk full: what is done really happens."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from serving.settings import Settings, SettingsError, without_credentials
from serving.state import StateDirectory, Version
from serving.supervisor import Supervisor
from tests.conftest import PROJECT, Store
from tests.processes import alive, children
from tests.serving.conftest import (
    ROW,
    Registry,
    Served,
    answers_nan,
    fails_on_some_texts,
    free_port,
    load,
    serve,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def _version_1(registry: Registry) -> None:
    registry.promote(1)


def test_a_killed_worker_is_replaced_without_a_failed_request(served: Served) -> None:
    before = wait_for(lambda: len(w := served.processes()["workers"]) == 2 and w)
    loaded = served.log.parent / "state" / "workers"
    # what the worker had in hand when it was killed can only be asked again
    with load(served.url, clients=4, all_retry=True) as clients:
        wait_for(lambda: clients.answered > 20)
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: {int(r.name) for r in loaded.iterdir()} - set(before))
        after = clients.answered
        wait_for(lambda: clients.answered > after + 20)
    assert clients.failed == []
    assert len(served.processes()["workers"]) == 2


def test_a_killed_server_comes_back_and_leaves_no_worker_behind(served: Served) -> None:
    before = served.processes()
    os.kill(before["server"][0], signal.SIGKILL)
    wait_for(lambda: not any(alive(w) for w in before["workers"]), 10)
    assert served.version() == 1  # the connection waits for the new server
    assert served.processes()["server"] != before["server"]


def test_a_killed_supervisor_leaves_nothing_behind_and_starts_again(served: Served) -> None:
    every = [p for found in served.processes().values() for p in found]
    helpers = [p for server in served.processes()["server"] for p in children(server, "python")]
    served.process.kill()
    served.process.wait()
    wait_for(lambda: not any(alive(p) for p in every + helpers), 10)
    served.start()
    served.answers_with(1)


@pytest.mark.slow
def test_sigterm_finishes_requests_under_way_and_ends_everything_within_ten_seconds(
    registry: Registry, tmp_path: Path
) -> None:
    with serve(registry.store.uri, tmp_path / "state") as served:
        served.answers_with(1)
        every = [p for found in served.processes().values() for p in found]
        answers: list[int] = []
        rows = [ROW | {"cv_pt": f"java {i} " * 50} for i in range(3000)]
        asking = threading.Thread(target=lambda: answers.append(
            served.post({"dataframe_records": rows}).status_code))
        asking.start()
        time.sleep(0.3)
        assert served.stop() < 10
        asking.join()
        assert answers == [200]
        assert served.process.returncode == 0
        assert not any(alive(p) for p in every)


@pytest.mark.slow
def test_sigterm_in_the_middle_of_a_swap_ends_everything_within_ten_seconds(
    registry: Registry, tmp_path: Path
) -> None:
    with serve(registry.store.uri, tmp_path / "state") as served:
        served.answers_with(1)
        registry.promote(registry.add())
        wait_for(lambda: len(served.processes()["workers"]) == 3)
        every = [p for found in served.processes().values() for p in found]
        assert served.stop() < 10
        wait_for(lambda: not any(alive(p) for p in every), 1)


@pytest.mark.slow
def test_without_a_version_it_waits_alive_and_begins_with_the_first(
    registry: Registry, tmp_path: Path
) -> None:
    registry.forget_alias()
    with serve(registry.store.uri, tmp_path / "state", MODEL_WORKERS="1") as served:
        wait_for(lambda: served.status() == {
            "state": "waiting", "model_version": None, "next_version": None})
        assert requests.get(f"{served.url}/health", timeout=5).status_code == 200
        assert requests.get(f"{served.url}/ready", timeout=5).status_code == 503
        answer = served.post({"dataframe_records": [ROW]})
        assert answer.status_code == 503
        assert answer.json() == {
            "error": "no production model yet: train and promote one first"}
        registry.promote(1)
        served.answers_with(1)
        assert requests.get(f"{served.url}/ready", timeout=5).status_code == 200


@contextmanager
def registry_server(store: Store, port: int) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    environment = store.environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
         "--backend-store-uri", store.uri, "--serve-artifacts"],
        cwd=store.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def answers() -> bool:
        try:
            return requests.get(f"{url}/health", timeout=2).ok
        except requests.RequestException:
            return False

    try:
        wait_for(answers)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


@contextmanager
def refusing_everybody(port: int) -> Iterator[str]:
    """What a registry answers to a wrong password."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_refused_login_is_told_as_that_and_once_it_fits_the_model_comes(
    registry: Registry, tmp_path: Path
) -> None:
    port = free_port()
    with refusing_everybody(port) as url, serve(url, tmp_path / "state") as served:
        wait_for(lambda: "the registry refuses the login" in served.log.read_text())
        time.sleep(5)
        assert served.log.read_text().count("the registry refuses the login") == 1
        assert "cannot be reached" not in served.log.read_text()
        assert requests.get(f"{served.url}/ready", timeout=5).status_code == 503
    with registry_server(registry.store, port) as url, serve(url, tmp_path / "state") as served:
        served.answers_with(1)


@pytest.mark.slow
def test_it_goes_on_without_the_registry_also_after_a_restart_and_catches_up(
    registry: Registry, tmp_path: Path
) -> None:
    port = free_port()
    with registry_server(registry.store, port) as url, serve(url, tmp_path / "state") as served:
        served.answers_with(1)
        version = registry.add()
    # both are stopped: now the registry is away while the supervisor starts
    with serve(url, tmp_path / "state") as served, load_when_ready(served) as clients:
        wait_for(lambda: "the registry cannot be reached" in served.log.read_text())
        time.sleep(20)
        assert served.version() == 1
        registry.promote(version)
        with registry_server(registry.store, port):
            served.answers_with(version)
            registry.tag_arrives(version, "serving_since")
        assert served.version() == version
    assert clients.failed == []
    assert served.log.read_text().count("the registry cannot be reached") <= 3


@contextmanager
def serving_alone(registry: Registry, state: Path) -> Iterator[tuple[Served, Path]]:
    """A supervisor with one worker that answers with version 1, and its one copy on disk."""
    with serve(registry.store.uri, state, MODEL_WORKERS="1") as served:
        served.answers_with(1)
        (on_disk,) = (state / "versions").iterdir()
        yield served, on_disk


@pytest.mark.slow
def test_a_broken_version_on_disk_makes_way_for_a_good_one(
    registry: Registry, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with serving_alone(registry, state) as (_, on_disk):
        pass
    answers_nan(on_disk)
    version = registry.add()
    registry.promote(version)
    with serve(registry.store.uri, state, MODEL_WORKERS="1", MODEL_SWAP_SECONDS="15") as served:
        served.answers_with(version)
        assert "version 1 does not serve from disk" in served.log.read_text()


@pytest.mark.slow
def test_a_broken_copy_on_disk_is_downloaded_anew(registry: Registry, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with serving_alone(registry, state) as (_, on_disk):
        pass
    answers_nan(on_disk)
    with serve(registry.store.uri, state, MODEL_WORKERS="1", MODEL_SWAP_SECONDS="15") as served:
        served.answers_with(1)


@pytest.mark.slow
def test_a_copy_that_breaks_while_it_serves_is_downloaded_anew(
    registry: Registry, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with serving_alone(registry, state) as (served, on_disk):
        (on_disk / "MLmodel").write_text("", encoding="ascii")
        os.kill(served.processes()["server"][0], signal.SIGKILL)
        wait_for(lambda: "does not load from disk; discarded" in served.log.read_text())
        wait_for(lambda: served.post({"dataframe_records": [ROW]}).status_code == 200)
        served.answers_with(1)


def test_a_discarded_version_is_off_the_disk_before_nothing_points_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, version = StateDirectory(tmp_path), Version(1, 1)
    state.take()
    state.path(version).mkdir()
    state.point(version)
    supervisor = Supervisor(Settings("127.0.0.1", 5002, 1, tmp_path, 5, 120))
    there: list[bool] = []
    point = StateDirectory.point
    monkeypatch.setattr(StateDirectory, "point", lambda self, to: (
        there.append(self.has(version)), point(self, to)))
    while state.current():
        supervisor._fall_back()
    assert there == [False]


@pytest.mark.slow
def test_the_registry_stopped_for_a_minute_loses_nothing(
    registry: Registry, tmp_path: Path
) -> None:
    port, version = free_port(), registry.add()
    with ExitStack() as stack:
        with registry_server(registry.store, port) as url:
            served = stack.enter_context(serve(url, tmp_path / "state"))
            served.answers_with(1)
            clients = stack.enter_context(load(served.url))
        wait_for(lambda: "the registry cannot be reached" in served.log.read_text())
        registry.promote(version)  # nobody can see it yet
        before = clients.answered
        time.sleep(60)
        assert clients.answered > before + 1000
        assert clients.versions == {1}
        with registry_server(registry.store, port):
            served.answers_with(version, seconds=60)
    assert clients.failed == []


@contextmanager
def load_when_ready(served: Served) -> Iterator:
    served.answers_with(1)
    with load(served.url) as clients:
        yield clients


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one version and a half."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(disk)],
                             capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a file system is not possible here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_refuses_a_version_cleanly_and_is_tried_again(
    registry: Registry, small_disk: Path
) -> None:
    with serve(registry.store.uri, small_disk / "state") as served:
        served.answers_with(1)
        filler = small_disk / "filler"
        free = os.statvfs(small_disk)
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize - 200_000))
        version = registry.add()
        registry.promote(version)
        reason = registry.tag_arrives(version, "refused_because")
        assert reason.startswith("the disk is full; tried again every")
        served.answers_with(1)
        assert not (small_disk / "state" / "incoming").exists()
        filler.unlink()
        served.answers_with(version)
        wait_for(lambda: "refused_because" not in registry.tags(version))
        assert "Traceback" not in served.log.read_text()


def start(**settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serving"], cwd=PROJECT, env={**os.environ, **settings},
        capture_output=True, text=True, check=False, timeout=60)


def test_a_model_that_fails_on_a_request_says_so_and_answers_the_next(
    registry: Registry, served: Served
) -> None:
    version = registry.add(fails_on_some_texts)
    registry.promote(version)
    served.answers_with(version)
    broken = ROW | {"cv_pt": "Java quebra segredo"}
    for rows in ([broken], [ROW, broken] * 200):  # in the event loop, and in a thread
        answer = served.post({"dataframe_records": rows})
        assert answer.status_code == 500
        assert answer.json() == {"error": "the model failed on this request"}
        assert served.version() == version
    log = served.log.read_text()
    assert "answering failed: RuntimeError" in log
    for private in ("secret", "segredo", "Traceback"):
        assert private not in log


def test_a_body_that_does_not_arrive_is_given_up_after_a_minute(served: Served) -> None:
    served.answers_with(1)  # a swap would wait for the request
    host, port = served.url.removeprefix("http://").split(":")
    began = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=90) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        answer = connection.makefile("rb").read()  # until the server closes the connection
    assert 50 < time.monotonic() - began < 80
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b'{"error":"the body did not arrive in time"}')
    assert served.version() == 1


@pytest.mark.slow
def test_a_second_supervisor_on_the_same_state_refuses(served: Served) -> None:
    second = start(MODEL_STATE=str(served.log.parent / "state"), MODEL_PORT=str(free_port()))
    assert second.returncode == 1
    assert second.stderr.startswith("error: another model server uses ")
    assert len(second.stderr.splitlines()) == 1


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        second = start(MODEL_STATE=str(tmp_path / "state"), MODEL_PORT=port)
    assert second.returncode == 1
    assert second.stderr == (f"error: cannot listen on 127.0.0.1:{port} (Address already in use); "
                             "stop what uses it, or set MODEL_PORT\n")


def test_a_setting_out_of_range_ends_it_with_one_line() -> None:
    ended = start(MODEL_PORT="0")
    assert ended.returncode == 1
    assert ended.stderr == "error: MODEL_PORT must be a whole number from 1 to 65535\n"


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("MODEL_WORKERS", "two", "MODEL_WORKERS must be a whole number from 1 to 64"),
    ("MODEL_WORKERS", "1.5", "MODEL_WORKERS must be a whole number from 1 to 64"),
    ("MODEL_POLL_SECONDS", "nan", "MODEL_POLL_SECONDS must be a number from 0.1 to 3600"),
    ("MODEL_SWAP_SECONDS", "-1", "MODEL_SWAP_SECONDS must be a number from 5 to 3600"),
])
def test_a_setting_out_of_range_is_named(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=f"^{re.escape(expected)}$"):
        Settings.from_environment({name: value})


def test_what_runs_a_versions_code_gets_no_login_of_the_registry() -> None:
    login = {"MLFLOW_TRACKING_USERNAME": "a", "MLFLOW_TRACKING_PASSWORD": "b",
             "MLFLOW_TRACKING_TOKEN": "c", "MLFLOW_TRACKING_URI": "http://a:b@mlflow:5001"}
    assert without_credentials({"PATH": "/bin", **login}) == {"PATH": "/bin"}
    uri = {"MLFLOW_TRACKING_URI": "http://mlflow:5001"}
    assert without_credentials(uri) == uri
