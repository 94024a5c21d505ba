"""`mlflow run . -e up`: one command starts everything, and leaves nothing when it is stopped."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import Run

import gateway.training
from stack import processes
from stack.processes import MARK, SERVICE, members
from tests.conftest import EXPERIMENT, PROJECT, QUICK, Store
from tests.gateway import servers
from tests.gateway.conftest import PAIR
from tests.processes import children
from tests.serving.conftest import BYTECODE, free_port, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("stack")]


class Stack:
    """A stack on ports of its own, in a folder of its own."""

    def __init__(self, store: Store, data: Path, *command: str) -> None:
        self.folder = store.folder
        ports = {name: free_port() for name in ("mlflow", "model", "gateway")}
        self.gateway = f"http://127.0.0.1:{ports['gateway']}"
        self.mlflow = f"http://127.0.0.1:{ports['mlflow']}"
        self._log = store.folder / "up.log"
        self.environment = store.environment() | BYTECODE | {
            "MLFLOW_PORT": str(ports["mlflow"]), "MODEL_PORT": str(ports["model"]),
            "GATEWAY_BIND": f"127.0.0.1:{ports['gateway']}", "MODEL_POLL_SECONDS": "1",
            "GATEWAY_STATE_DIR": str(store.folder / "state"),
            "MODEL_STATE": str(store.folder / "model"), "GATEWAY_TRAIN_DATA_DIR": str(data),
        }  # fmt: skip
        self._command = command or UP
        self.start()

    def start(self) -> None:
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._command], cwd=PROJECT, env=self.environment,
                stdout=log, stderr=log, start_new_session=True)

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def is_up(self) -> "Stack":
        def up() -> bool:
            assert self.process.poll() is None, self.said
            return "Ctrl-C stops all of it" in self.said

        wait_for(up, 240)
        return self

    def pids(self, *words: str) -> list[int]:
        """Living processes that belong to this stack, trainings too: all know this directory."""
        found, mark = [], f"MODEL_STATE={self.environment['MODEL_STATE']}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                ours = mark in (entry / "environ").read_bytes().split(b"\0")
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if ours and all(word in command for word in words):
                found.append(int(entry.name))
        return found

    def leaves_nothing(self) -> None:
        wait_for(lambda: not self.pids(), 60)


UP = ("-m", "mlflow", "run", ".", "-e", "up", "--env-manager", "local")


@pytest.fixture
def start(
    new_store: Callable[[], Store], small_data: Path
) -> Iterator[Callable[..., Stack]]:
    """Starts stacks, and kills what a failed test leaves."""
    started: list[Stack] = []

    def start(*command: str) -> Stack:
        started.append(Stack(new_store(), small_data, *command))
        return started[-1]

    yield start
    for stack in started:
        for pid in stack.pids():
            os.kill(pid, signal.SIGKILL)
        stack.process.wait()


def log_in(stack: Stack) -> dict[str, str]:
    shown = re.search(r"'admin' with the password (\S+)", stack.said)
    assert shown, stack.said
    answer = requests.post(
        f"{stack.gateway}/login", json={"username": "admin", "password": shown.group(1)},
        timeout=30)
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def version_served(stack: Stack) -> Any:
    try:
        return requests.get(f"{stack.gateway}/ready", timeout=30).json().get("model_version")
    except requests.RequestException:
        return None


def test_from_nothing_to_a_prediction_and_back_to_nothing(start: Callable[..., Stack]) -> None:
    stack = start().is_up()
    assert re.search(rf"gateway +{stack.gateway} ", stack.said)
    assert re.search(rf"MLflow +{stack.mlflow} ", stack.said)
    admin = log_in(stack)
    before = requests.get(f"{stack.gateway}/ready", timeout=30)
    assert (before.status_code, before.json()["detail"]) == (
        503, "no production model yet: POST /train first")
    training = {k: float(v) if v.isdecimal() else v for k, v in QUICK.items()}
    assert requests.post(
        f"{stack.gateway}/train", json=training, headers=admin, timeout=30).status_code == 202
    wait_for(lambda: version_served(stack) == 1, 240)
    scored = requests.post(f"{stack.gateway}/predict", json=PAIR, headers=admin, timeout=30)
    assert scored.json()["model_version"] == 1

    for service in ("gunicorn", "serving", "mlflow server"):  # each dies, and comes back
        os.kill(min(stack.pids(service)), signal.SIGKILL)
        wait_for(lambda: "started again" in stack.said)
    wait_for(lambda: stack.said.count("started again") == 3)
    wait_for(lambda: version_served(stack) == 1, 120)
    wait_for(lambda: _answers(f"{stack.mlflow}/health"), 120)

    os.killpg(stack.process.pid, signal.SIGINT)  # as a terminal does
    stack.process.wait(60)
    stack.leaves_nothing()
    assert "stack   | all has ended" in stack.said
    assert "Traceback" not in stack.said.partition("stopping")[0]
    assert PAIR["cv_pt"] not in stack.said

    client = Store(stack.folder).client
    listed = client.get_experiment_by_name(EXPERIMENT).experiment_id
    names = [run.info.run_name for run in client.search_runs([listed])
             if "mlflow.parentRunId" not in run.data.tags]
    assert names == ["train"], "starting services must not show among the trainings"

    stack.start()  # what was trained before is served at once, and the password is not shown
    stack.is_up()
    wait_for(lambda: version_served(stack) == 1, 60)
    assert "password of admin was given or shown once" in stack.said
    assert "'admin' with the password" not in stack.said


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.mark.parametrize(("whom", "how"), [
    ("launcher", signal.SIGKILL), ("launcher", signal.SIGTERM), ("mlflow run", signal.SIGTERM)])
def test_however_it_is_stopped_nothing_is_left(
    start: Callable[..., Stack], whom: str, how: signal.Signals
) -> None:
    stack = start().is_up()
    [launcher] = children(stack.process.pid, "-m stack")
    training = requests.post(
        f"{stack.gateway}/train", headers=log_in(stack), timeout=30).json()["run_id"]
    client = Store(stack.folder).client
    wait_for(lambda: client.get_run(training).data.tags["jobmatch.stage"] != "starting")
    assert stack.pids("steps.train")
    os.kill(launcher if whom == "launcher" else stack.process.pid, how)
    stack.leaves_nothing()
    # where it had no time to end its run, the gateway does so at its next start
    assert client.get_run(training).info.status in ("KILLED", "FAILED", "RUNNING")


def test_a_taken_port_is_said_in_one_line_and_nothing_is_started(
    start: Callable[..., Stack],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for setting, value in (("MLFLOW_PORT", f"{port}"), ("MODEL_PORT", f"{port}"),
                               ("GATEWAY_BIND", f"127.0.0.1:{port}")):
            stack = start("-c", f"import os, runpy; os.environ['{setting}'] = '{value}'\n"
                                "runpy.run_module('stack', run_name='__main__')")
            assert stack.process.wait(60) == 1
            line = stack.said.strip()
            assert re.fullmatch(
                rf"error: \w+ cannot listen on 127\.0\.0\.1:{port} \(.+\): stop what uses port "
                rf"{port}, or set {setting} to another", line), line


def test_a_second_one_is_refused_and_the_first_goes_on(start: Callable[..., Stack]) -> None:
    first = start("-m", "stack").is_up()
    second = subprocess.run([sys.executable, "-m", "stack"], cwd=PROJECT, env=first.environment,
                            capture_output=True, text=True, timeout=120, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith("error: mlflow cannot listen on ")
    time.sleep(1)
    assert _answers(f"{first.gateway}/health")


def test_a_service_that_cannot_start_stops_all_of_it(start: Callable[..., Stack]) -> None:
    stack = start("-c", "import os, runpy; os.environ['MODEL_STATE'] = '/proc/nowhere'\n"
                        "runpy.run_module('stack', run_name='__main__')")
    assert stack.process.wait(120) == 1
    assert "model   | error: MODEL_STATE /proc/nowhere cannot be written" in stack.said
    assert stack.said.strip().endswith("before it answered: its lines above say why")
    stack.leaves_nothing()


@pytest.mark.parametrize("kind", ["database", "server"])
def test_the_run_of_a_service_does_not_lie_among_the_trainings(
    store: Store, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    for name, value in BYTECODE.items():
        monkeypatch.setenv(name, value)
    environment = store.environment() | BYTECODE | {
        "MODEL_PORT": str(port), "MODEL_STATE": str(tmp_path / "model")}
    with ExitStack() as running:
        if kind == "server":
            (tmp_path / "mlflow").mkdir()
            environment["MLFLOW_TRACKING_URI"] = running.enter_context(
                servers.mlflow_server(tmp_path / "mlflow"))
        client = MlflowClient(environment["MLFLOW_TRACKING_URI"])
        service = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "run", ".", "-e", "serve", "--env-manager", "local"],
            cwd=PROJECT, env=environment, start_new_session=True)
        try:
            wait_for(lambda: _answers(f"http://127.0.0.1:{port}/health"), 120)
        finally:
            os.killpg(service.pid, signal.SIGTERM)
            service.wait(60)

        def trainings() -> list[Run]:
            experiment = client.get_experiment_by_name(EXPERIMENT)
            assert experiment
            return client.search_runs([experiment.experiment_id])

        wait_for(lambda: not trainings(), 60)
        if kind == "database":
            services = client.get_experiment_by_name("services")
            assert services
            assert len(client.search_runs([services.experiment_id])) == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_serve_ends_with_its_mlflow_run_however_that_ends(
    store: Store, tmp_path: Path, how: signal.Signals
) -> None:
    port = free_port()
    environment = store.environment() | BYTECODE | {
        "MODEL_PORT": str(port), "MODEL_STATE": str(tmp_path / "model")}
    run = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "run", ".", "-e", "serve", "--env-manager", "local"],
        cwd=PROJECT, env=environment, start_new_session=True)
    health = f"http://127.0.0.1:{port}/health"
    try:
        wait_for(lambda: _answers(health), 120)
        run.send_signal(how)  # to this process, and to none of those below it
        run.wait(10)
        wait_for(lambda: not _answers(health), 12)
    finally:
        subprocess.run(["pkill", "-KILL", "-s", str(run.pid)], check=False)


def test_what_a_dead_service_leaves_is_ended_but_for_its_trainings() -> None:
    assert processes.TRAINING == gateway.training.TRAINING
    mark = {MARK: "remains", SERVICE: "gateway"}
    waiting = [sys.executable, "-c", "input()"]
    with (
        subprocess.Popen(waiting, stdin=subprocess.PIPE, env=os.environ | mark) as worker,
        subprocess.Popen(waiting, stdin=subprocess.PIPE,
                         env=os.environ | mark | {processes.TRAINING: "1"}) as training,
    ):
        wait_for(lambda: len(members("remains")) == 2, 10)
        processes.end_remains("remains", "gateway")
        assert worker.wait(10) == -signal.SIGTERM
        assert training.poll() is None
        training.communicate(b"\n")


def test_only_processes_that_carry_the_mark_are_found() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE,
                          env=os.environ | {MARK: "a test of it"}) as marked:
        wait_for(lambda: [p.pid for p in members("a test of it")] == [marked.pid], 10)
        assert members("another") == []
        marked.communicate(b"\n")
    assert members("a test of it") == []
