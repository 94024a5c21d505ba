"""The gateway as its users run it: under gunicorn, with several workers."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import requests

from gateway.training import TRAINING
from tests.gateway import servers
from tests.gateway.conftest import PAIR, agrees
from tests.gateway.servers import KEY, PASSWORD, PROJECT, ServedModel
from tests.processes import alive, children
from tests.serving.conftest import wait_for

USUAL = {
    "GATEWAY_ADMIN_PASSWORD": PASSWORD, "GATEWAY_JWT_KEYS": KEY, "GATEWAY_READ_SECONDS": "2",
    "GATEWAY_LOGIN_LIMIT": "1000/minute", "GATEWAY_MODEL_TIMEOUT_SECONDS": "10",
}  # fmt: skip


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def url(
    directory: Path, tracking_url: str, model: ServedModel, project: Path
) -> Iterator[str]:
    with servers.gateway(
        directory, MLFLOW_TRACKING_URI=tracking_url, GATEWAY_MODEL_URL=model.url,
        GATEWAY_PROJECT_DIR=str(project), **USUAL,
    ) as url:  # fmt: skip
        yield url


def log_in(url: str, username: str = "admin", password: str = PASSWORD) -> dict[str, str]:
    answer = requests.post(
        url + "/login", json={"username": username, "password": password}, timeout=10
    )
    assert answer.status_code == 200, answer.text
    return {"Authorization": "Bearer " + answer.json()["access_token"]}


def connect(url: str) -> socket.socket:
    port = int(url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=15)


def workers(url: str) -> list[int]:
    port = url.rpartition(":")[2]
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # gone meanwhile, or another user's
            ours = process.environ().get("GATEWAY_BIND") == f"127.0.0.1:{port}"
            if ours and (found := children(process.pid)):
                return found
    raise AssertionError("the gateway's workers were not found")


def both_workers(url: str) -> list[int]:
    """The gateway answers as soon as the first is there."""
    wait_for(lambda: len(workers(url)) == 2, 30)
    return workers(url)


def test_prediction_end_to_end(url: str, loaded: Callable) -> None:
    answer = requests.post(url + "/predict", json=PAIR, headers=log_in(url), timeout=10)
    assert answer.status_code == 200, answer.text
    agrees([answer.json()], loaded([PAIR]))


@pytest.mark.parametrize(
    ("threshold", "prediction"), [(0, "Contratado"), (1, "Não contratado")], ids=["yes", "no"]
)
def test_figures_of_all_workers_are_one(
    url: str, model: ServedModel, threshold: float, prediction: str
) -> None:
    headers = log_in(url)
    labels = f'{{model_version="{model.version}",prediction="{prediction}"}}'
    before = _figure(url, "gateway_predictions_total" + labels)
    for _ in range(12):  # a new connection each time, so that both workers get some
        requests.post(f"{url}/predict?threshold={threshold}", json=PAIR, headers=headers,
                      timeout=10)  # fmt: skip
    after = _figure(url, "gateway_predictions_total" + labels)
    assert after - before == 12
    text = requests.get(url + "/metrics", timeout=10).text
    for name in ("gateway_requests_total", "gateway_request_seconds_bucket",
                 'gateway_score_bucket{le="0.5",score="match"}',
                 'gateway_trainings_total{outcome="started"}',
                 'gateway_failed_logins_total{reason="credentials"}'):
        assert name in text
    assert "admin" not in text


def _figure(url: str, name: str) -> float:
    text = requests.get(url + "/metrics", timeout=10).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def test_workers_stay_under_100_mb(url: str) -> None:
    headers = log_in(url)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: log_in(url), range(60)))
        list(pool.map(lambda _: requests.post(
            url + "/predict", json=[PAIR] * 50, headers=headers, timeout=20), range(100)))
    for pid in workers(url):
        resident = psutil.Process(pid).memory_info().rss / 1_000_000
        assert resident < 100, f"{resident} MB"


def test_worker_starts_in_under_a_second(url: str) -> None:
    before = both_workers(url)
    os.kill(before[0], signal.SIGKILL)
    started = time.monotonic()
    while len(set(workers(url)) - set(before)) < 1:
        assert time.monotonic() - started < 10
        time.sleep(0.05)
    appeared = time.monotonic()
    (fresh,) = set(workers(url)) - set(before)
    while psutil.Process(fresh).num_threads() < 2:  # it has made its application and threads
        assert time.monotonic() - appeared < 1
        os.kill(before[1], signal.SIGSTOP)  # so that the new one gets the requests
        try:
            requests.get(url + "/health", timeout=1)
        finally:
            os.kill(before[1], signal.SIGCONT)
    assert time.monotonic() - appeared < 1


def test_training_survives_the_gateway_and_both_workers_know_of_it(
    tmp_path: Path, tracking_url: str, project: Path, model: ServedModel
) -> None:
    variables = USUAL | {
        "MLFLOW_TRACKING_URI": tracking_url, "GATEWAY_MODEL_URL": model.url,
        "GATEWAY_PROJECT_DIR": str(project),
    }  # fmt: skip
    with servers.gateway(tmp_path, **variables) as url:
        headers = log_in(url)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: requests.post(
                url + "/train", json={"random_state": 1}, headers=headers, timeout=20), range(8)))
        assert sorted(a.status_code for a in answers) == [202] + [409] * 7
        run_id = next(a.json()["run_id"] for a in answers if a.status_code == 202)
        assert {a.json()["run_id"] for a in answers} == {run_id}
    group = json.loads((tmp_path / "state" / "training.json").read_text())["pid"]
    assert alive(group)
    # the mark by which the launcher tells a training from what a dead gateway leaves behind
    assert psutil.Process(group).environ()[TRAINING] == "1"

    with servers.gateway(tmp_path, **variables) as url:
        headers = log_in(url)
        look = requests.get(f"{url}/train/{run_id}", headers=headers, timeout=10).json()
        assert look["state"] == "running"
        again = requests.post(url + "/train", headers=headers, timeout=10)
        assert (again.status_code, again.json()["run_id"]) == (409, run_id)

    os.killpg(group, signal.SIGKILL)
    with servers.gateway(tmp_path, **variables):
        # nobody looks: the gateway's start alone ends it
        deadline = time.monotonic() + 15
        while _status(tracking_url, run_id) == "RUNNING":
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert _status(tracking_url, run_id) == "KILLED"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["reloaded", "killed"])
def test_training_that_outlives_its_worker_is_counted(
    tmp_path: Path, tracking_url: str, project: Path, how: str
) -> None:
    variables = USUAL | {"MLFLOW_TRACKING_URI": tracking_url, "GATEWAY_PROJECT_DIR": str(project)}
    with servers.gateway(tmp_path, **variables) as url:
        before = both_workers(url)
        begun = requests.post(url + "/train", json={"random_state": 4}, headers=log_in(url),
                              timeout=20)  # fmt: skip
        assert begun.status_code == 202, begun.text
        if how == "reloaded":
            os.kill(psutil.Process(before[0]).ppid(), signal.SIGHUP)
        else:
            for worker in before:
                os.kill(worker, signal.SIGKILL)
                wait_for(lambda gone=worker: gone not in (now := workers(url))
                         and len(now) == 2, 30)
        wait_for(lambda: not set(before) & set(now := workers(url)) and len(now) == 2, 30)
        name = 'gateway_trainings_total{outcome="%s"}'
        assert _figure(url, name % "finished") == 0
        wait_for(lambda: _figure(url, name % "finished"), 60)  # nobody looks at it
        time.sleep(6)  # both workers have seen that it is over
        outcomes = ("started", "finished", "failed", "stopped", "lost")
        assert [_figure(url, name % outcome) for outcome in outcomes] == [1, 1, 0, 0, 0]


def _status(tracking_url: str, run_id: str) -> str:
    answer = requests.get(
        tracking_url + "/api/2.0/mlflow/runs/get", params={"run_id": run_id}, timeout=10
    )
    return answer.json()["run"]["info"]["status"]


# --- clients that do not behave


def test_body_that_drips_in_is_ended(url: str) -> None:
    with connect(url) as sock:
        token = log_in(url)["Authorization"]
        sock.sendall(
            f"POST /predict HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{".encode()
        )
        answer = _drip(sock, b" ")
    assert b"408" in answer.split(b"\r\n")[0]
    assert b"urn:jobmatch:problem:slow-body" in answer


def test_headers_that_drip_in_are_ended(url: str) -> None:
    with connect(url) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nX-A: ")
        _drip(sock, b"a")


def test_slow_clients_do_not_keep_others_out(url: str) -> None:
    slow = [connect(url) for _ in range(40)]  # more than 2 workers have threads
    for sock in slow:
        sock.sendall(b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n"
                     b"Content-Type: application/json\r\n\r\n{")
    started = time.monotonic()
    assert requests.get(url + "/health", timeout=30).status_code == 200
    assert time.monotonic() - started < 20
    for sock in slow:
        sock.close()


def _drip(sock: socket.socket, piece: bytes) -> bytes:
    """Send a byte now and then until the other side has had enough; its answer."""
    started = time.monotonic()
    sock.settimeout(0.2)
    received = b""
    while time.monotonic() - started < 12:
        try:
            sock.sendall(piece)
            if part := sock.recv(4096):
                received += part
                continue
            return received
        except TimeoutError:
            continue
        except OSError:
            return received
    raise AssertionError("the connection was kept open")


def test_oversized_body_is_413_and_the_gateway_goes_on(url: str) -> None:
    headers = log_in(url)
    with connect(url) as sock:
        sock.sendall(
            f"POST /predict HTTP/1.1\r\nHost: a\r\nAuthorization: {headers['Authorization']}\r\n"
            "Content-Type: application/json\r\nContent-Length: 50000000\r\n\r\n".encode()
        )
        answer = sock.recv(65536)
    assert b"413" in answer.split(b"\r\n")[0]
    assert requests.get(url + "/health", timeout=5).status_code == 200


def test_chunked_body_without_end_is_413(url: str) -> None:
    headers = log_in(url) | {"Content-Type": "application/json"}

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 100_000

    try:
        answer = requests.post(url + "/predict", data=pieces(), headers=headers, timeout=10)
        assert answer.status_code == 413
    except requests.ConnectionError:
        pass  # the gateway hung up on the rest of it
    assert requests.get(url + "/health", timeout=5).status_code == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /health HTTP/1.1\r\nHost: a\r\nX-Request-ID: a\r\n b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX-Request-ID: a\rSet-Cookie: b=c\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX-Request-ID: a\nSet-Cookie: b=c\r\n\r\n",
        b"GET /health%0d%0aSet-Cookie:b=c HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n"
        b"\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["folded", "bare-cr", "bare-lf", "encoded", "smuggled", "long-header", "long-line", "tls"],
)
def test_header_injection_gets_nothing_through(url: str, request_: bytes) -> None:
    with connect(url) as sock:
        sock.sendall(request_)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while part := sock.recv(65536):
            answer += part
    head = answer.partition(b"\r\n\r\n")[0]
    assert b"Set-Cookie" not in head
    assert b"Traceback" not in answer
    assert requests.get(url + "/health", timeout=5).status_code == 200


# --- settings and secrets at the start


def start(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess:
    usual = {"GATEWAY_BIND": f"127.0.0.1:{servers.free_port()}",
             "GATEWAY_STATE_DIR": str(tmp_path / "state")}  # fmt: skip
    env = servers.environment(**usual | variables)
    return subprocess.run(
        servers.gunicorn(), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"GATEWAY_SECRETS": "environment"}, "GATEWAY_JWT_KEYS"),
        ({"GATEWAY_SECRETS": "environment", "GATEWAY_JWT_KEYS": KEY}, "GATEWAY_ADMIN_PASSWORD"),
        ({"GATEWAY_JWT_KEYS": "k1:tooshort"}, "GATEWAY_JWT_KEYS"),
        ({"GATEWAY_JWT_KEYS": "no-colon"}, "GATEWAY_JWT_KEYS"),
        ({"GATEWAY_ADMIN_PASSWORD": "short"}, "GATEWAY_ADMIN_PASSWORD"),
        ({"GATEWAY_ADMIN_PASSWORD": "admin12345678"}, "GATEWAY_ADMIN_PASSWORD"),
        ({"GATEWAY_METRICS_TOKEN": "short"}, "GATEWAY_METRICS_TOKEN"),
        ({"GATEWAY_JWT_ALGORITHM": "none"}, "GATEWAY_JWT_ALGORITHM"),
        ({"GATEWAY_JWT_ALGORITHM": "RS256", "GATEWAY_JWT_KEYS": "k:/nowhere"}, "GATEWAY_JWT_KEYS"),
        ({"GATEWAY_LOGIN_LIMIT": "often"}, "GATEWAY_LOGIN_LIMIT"),
        ({"GATEWAY_LOGIN_LIMTI": "1/minute"}, "GATEWAY_LOGIN_LIMTI"),
        ({"GATEWAY_WORKERS": "many"}, "GATEWAY_WORKERS"),
        ({"MLFLOW_TRACKING_URI": "sqlite:///a.db"}, "MLFLOW_TRACKING_URI"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_wrong_setting_stops_the_start_with_its_name(
    tmp_path: Path, variables: dict[str, str], named: str
) -> None:
    ended = start(tmp_path, **variables)
    assert ended.returncode != 0
    lines = [line for line in ended.stderr.splitlines() if line.startswith("gateway: ")]
    assert len(lines) == 1, ended.stderr
    assert named in lines[0]
    assert "Traceback" not in ended.stderr
    for value in variables.values():
        if value in ("k1:tooshort", "short", "admin12345678"):
            assert value not in ended.stderr


def test_first_start_makes_secrets_and_shows_the_password_once(tmp_path: Path) -> None:
    with servers.gateway(tmp_path) as url:
        written = (tmp_path / "gateway.log").read_text()
        (password,) = re.findall(r"password (\S+)\n", written)
        headers = log_in(url, "admin", password)
        assert requests.post(url + "/rank", json={}, headers=headers, timeout=5).status_code == 422
    state = tmp_path / "state"
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / "secrets.json").stat().st_mode & 0o777 == 0o600
    with servers.gateway(tmp_path) as url:
        assert (tmp_path / "gateway.log").read_text().count(password) == 1
        # the key is still the same: the old token works
        assert requests.post(url + "/rank", json={}, headers=headers, timeout=5).status_code == 422
    (state / "secrets.json").chmod(0o644)
    ended = start(tmp_path)
    assert "chmod 600" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_reload_with_a_wrong_setting_changes_nothing(tmp_path: Path, model: ServedModel) -> None:
    with servers.gateway(tmp_path, GATEWAY_MODEL_URL=model.url, **USUAL) as url:
        before = log_in(url)
        (tmp_path / ".env").write_text("GATEWAY_LOGIN_LIMITS=5/minute\n", encoding="ascii")
        first = both_workers(url)
        os.kill(psutil.Process(first[0]).ppid(), signal.SIGHUP)
        wait_for(lambda: not set(first) & set(workers(url)), 30)
        assert requests.get(url + "/health", timeout=10).status_code == 200
        assert requests.post(url + "/predict", json=PAIR, headers=before, timeout=10).ok
        said = (tmp_path / "gateway.log").read_text()
        assert said.count("GATEWAY_LOGIN_LIMITS is not a setting of the gateway") == 1
        assert "nothing is reloaded" in said


@pytest.mark.parametrize(
    "bind", ["127.0.0.1:{taken}", "0.0.0.0:{own}", "203.0.113.1:{taken}", "127.0.0.1:99999"]
)
def test_reload_with_an_address_that_cannot_be_had_changes_nothing(
    tmp_path: Path, bind: str
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        gateway_of_env_file(tmp_path) as (url, master),
    ):
        wanted = bind.format(taken=other.getsockname()[1], own=url.rpartition(":")[2])
        reload(tmp_path, master, wanted)
        assert requests.get(url + "/health", timeout=10).status_code == 200
        said = (tmp_path / "gateway.log").read_text()
        assert said.count(f"gateway: GATEWAY_BIND: cannot listen at {wanted} (") == 1
        assert "nothing is reloaded" in said
        assert "Traceback" not in said


def test_reload_may_change_the_address(tmp_path: Path) -> None:
    with gateway_of_env_file(tmp_path) as (_, master):
        bind = f"0.0.0.0:{servers.free_port()}"
        reload(tmp_path, master, bind)
        url = bind.replace("0.0.0.0", "http://127.0.0.1")  # noqa: S104
        assert requests.get(url + "/health", timeout=10).status_code == 200


@contextmanager
def gateway_of_env_file(directory: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A gateway with its address in `.env`, and its master."""
    bind = f"127.0.0.1:{servers.free_port()}"
    url = f"http://{bind}"
    (directory / ".env").write_text(f"GATEWAY_BIND={bind}\n", encoding="ascii")
    env = servers.environment(GATEWAY_STATE_DIR=str(directory / "state"), **USUAL)
    with servers.running(servers.gunicorn(), directory / "gateway.log", url=url + "/health",
                         cwd=directory, env=env, seconds=30) as master:  # fmt: skip
        wait_for(lambda: len(children(master.pid)) == 2, 30)
        yield url, psutil.Process(master.pid)


def reload(directory: Path, master: psutil.Process, bind: str) -> None:
    before = children(master.pid)
    (directory / ".env").write_text(f"GATEWAY_BIND={bind}\n", encoding="ascii")
    master.send_signal(signal.SIGHUP)
    wait_for(lambda: len(now := children(master.pid)) == 2 and not set(before) & set(now), 30)


def test_reload_makes_the_folder_of_the_figures_where_it_is_not_there(
    tmp_path: Path, model: ServedModel
) -> None:
    """As in another state directory, which a reload may bring."""
    with servers.gateway(tmp_path, GATEWAY_MODEL_URL=model.url, **USUAL) as url:
        first = both_workers(url)
        master = psutil.Process(first[0]).ppid()
        # at once: emptied first, a worker may write a file into it meanwhile
        (tmp_path / "state" / "metrics").rename(tmp_path / "moved")
        os.kill(master, signal.SIGHUP)
        wait_for(lambda: len(now := workers(url)) == 2 and not set(first) & set(now), 30)
        assert requests.get(url + "/health", timeout=10).status_code == 200
        assert psutil.Process(both_workers(url)[0]).ppid() == master


@pytest.mark.parametrize("lost", ["secrets.json", "limits.db"])
def test_worker_is_replaced_where_a_file_is_damaged(tmp_path: Path, lost: str) -> None:
    with servers.gateway(tmp_path, GATEWAY_ADMIN_PASSWORD=PASSWORD) as url:
        both = both_workers(url)
        headers = log_in(url)
        damaged = tmp_path / "state" / lost
        damaged.write_bytes(b"no longer what it was" * 1000)
        for end in ("-wal", "-shm"):  # SQLite would read what was written last from there
            Path(f"{damaged}{end}").unlink(missing_ok=True)
        os.kill(both[0], signal.SIGKILL)
        wait_for(lambda: both[0] not in (now := workers(url)) and len(now) == 2, 30)
        os.kill(both[1], signal.SIGKILL)  # the new one answers
        wait_for(lambda: not set(both) & set(now := workers(url)) and len(now) == 2, 30)
        answer = requests.post(url + "/rank", json={}, headers=headers, timeout=10)
        assert answer.status_code == 422  # the token is known


@pytest.mark.parametrize("lost", ["users.db", "secrets.json"])
def test_start_says_which_file_is_damaged(tmp_path: Path, lost: str) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    damaged = tmp_path / "state" / lost
    damaged.write_bytes(b"no longer what it was" * 1000)
    damaged.chmod(0o600)
    ended = start(tmp_path, GATEWAY_ADMIN_PASSWORD=PASSWORD)
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    assert {"users.db": "the users' database cannot be read"}.get(lost, lost) in ended.stderr


def test_worker_is_replaced_while_the_users_database_is_away(tmp_path: Path) -> None:
    with servers.gateway(tmp_path, GATEWAY_WORKERS="2", **USUAL) as url:
        both = both_workers(url)
        accounts = tmp_path / "state" / "users.db"
        accounts.rename(tmp_path / "away.db")
        accounts.mkdir()  # cannot be opened
        for worker in both:  # one at a time: there is always one to find
            os.kill(worker, signal.SIGKILL)
            wait_for(lambda gone=worker: gone not in (now := workers(url))
                     and len(now) == 2, 30)
        assert requests.get(url + "/health", timeout=10).status_code == 200
        said = requests.post(url + "/login", json={"username": "admin", "password": PASSWORD},
                             timeout=20)
        assert said.status_code == 503
        accounts.rmdir()
        (tmp_path / "away.db").rename(accounts)
        log_in(url)


def test_graceful_stop_finishes_the_request_in_hand(tmp_path: Path, model: ServedModel) -> None:
    with (
        servers.gateway(tmp_path, GATEWAY_MODEL_URL=model.url, **USUAL) as url,
        ThreadPoolExecutor(1) as pool,
    ):
        headers = log_in(url)
        with model.stopped():
            slow = pool.submit(
                requests.post, url + "/predict", json=PAIR, headers=headers, timeout=20)
            time.sleep(1)
            os.kill(psutil.Process(workers(url)[0]).ppid(), signal.SIGTERM)
            time.sleep(1)
            assert not slow.done()
        assert slow.result().status_code == 200


def test_second_start_by_mistake_leaves_the_first_ones_figures(tmp_path: Path) -> None:
    with servers.gateway(tmp_path, **USUAL) as url:
        log_in(url)
        name = 'gateway_requests_total{method="POST",route="/login",status="200"}'
        assert _figure(url, name) == 1
        ended = start(tmp_path, GATEWAY_BIND=url.removeprefix("http://"), **USUAL)
        assert ended.returncode == 1
        assert "Connection in use" in ended.stderr
        assert _figure(url, name) == 1


def test_answer_that_waits_for_mlflow_is_not_cut_off(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        variables = USUAL | {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "GATEWAY_READ_SECONDS": "1", "GATEWAY_MODEL_TIMEOUT_SECONDS": "0.1",
            "GATEWAY_TRACKING_TIMEOUT_SECONDS": "5",
        }  # fmt: skip
        with servers.gateway(tmp_path, **variables) as url:
            answer = requests.post(url + "/models/1/promote", headers=log_in(url), timeout=20)
            assert answer.status_code == 504
            assert answer.json()["type"] == "urn:jobmatch:problem:upstream-timeout"


def test_answer_after_the_time_for_requests_ends_its_connection(
    tmp_path: Path, model: ServedModel
) -> None:
    variables = USUAL | {"GATEWAY_READ_SECONDS": "1", "GATEWAY_MODEL_URL": model.url}
    with servers.gateway(tmp_path, **variables) as url, requests.Session() as client:
        client.headers.update(log_in(url))
        quick = client.post(url + "/predict", json=PAIR, timeout=20)
        assert (quick.status_code, quick.headers["Connection"]) == (200, "keep-alive")
        with ThreadPoolExecutor(1) as pool:
            with model.stopped():
                slow = pool.submit(client.post, url + "/predict", json=PAIR, timeout=20)
                time.sleep(3)
            assert slow.result().status_code == 200
            assert slow.result().headers["Connection"] == "close"


def test_gateway_leaves_its_users_home_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with servers.gateway(tmp_path, HOME=str(home), **USUAL) as url:
        both_workers(url)
        assert not list(home.iterdir())


def test_gateway_imports_neither_mlflow_nor_sklearn_nor_other_parts() -> None:
    code = (
        "import sys, pkgutil, importlib, gateway\n"
        "for m in pkgutil.walk_packages(gateway.__path__, 'gateway.'):\n"
        "    m.name.endswith('gunicorn.conf') or importlib.import_module(m.name)\n"
        "heavy = {'mlflow', 'sklearn', 'numpy', 'pandas', 'polars', 'scipy', 'steps', 'serving',"
        " 'jobmatch_pyfunc'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=servers.environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
