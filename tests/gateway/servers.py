"""Real servers for the tests: MLflow's, the served model, the gateway under gunicorn."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import requests
import yaml

from serving.state import StateDirectory
from tests.conftest import BYTECODE, PROJECT, QUICK, arguments

DOUBLES = Path(__file__).with_name("doubles")
PASSWORD = "correct horse battery staple"
KEY = "k1:" + "0123456789abcdef" * 4


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**more: str) -> dict[str, str]:
    """This process' environment without what would reach the gateway or MLflow by accident."""
    kept = {
        k: v for k, v in os.environ.items()
        if not k.startswith(("GATEWAY_", "MLFLOW_", "PROMETHEUS_"))
    }  # fmt: skip
    return kept | {
        "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "ignore", **BYTECODE, **more,
    }  # fmt: skip


@contextmanager
def running(
    command: list[str], log: Path, *, url: str, cwd: Path, env: Mapping[str, str],
    seconds: float = 90,
) -> Iterator[subprocess.Popen]:  # fmt: skip
    """The process, once it answers at `url`; stopped at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + seconds
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[:4]} did not start:\n{log.read_text()[-2000:]}")
            try:
                requests.get(url, timeout=2)
                break
            except requests.RequestException:
                time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def mlflow_server(directory: Path) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{directory / 'mlflow.db'}",
        "--artifacts-destination", str(directory / "artifacts"),
    ]  # fmt: skip
    env = environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    with running(command, directory / "mlflow.log", url=url + "/health", cwd=directory, env=env):
        yield url


def train(directory: Path, tracking_url: str, data: Path) -> None:
    """Train a version for real, into the registry at `tracking_url`; it takes seconds."""
    env = environment(MLFLOW_TRACKING_URI=tracking_url, MLFLOW_EXPERIMENT_NAME="jobmatch")
    ended = subprocess.run(
        [sys.executable, "-m", "steps.train", *arguments({"data_dir": str(data), **QUICK})],
        cwd=PROJECT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    (directory / "train.log").write_text(ended.stdout)
    assert ended.returncode == 0, ended.stdout[-3000:]


def registry(tracking_url: str, method: str, path: str, **body: object) -> dict:
    """A request to the registry as its screen makes it."""
    sent = {"params": body} if method == "GET" else {"json": body}
    answer = requests.request(
        method, f"{tracking_url}/api/2.0/mlflow/{path}", timeout=20, **sent  # type: ignore[arg-type]
    )
    assert answer.ok, answer.text
    return answer.json()


def register_again(tracking_url: str, version: int) -> int:
    """The files, run and gate of a version once more, as the next version."""
    old = registry(
        tracking_url, "GET", "model-versions/get", name="jobmatch", version=version
    )["model_version"]  # fmt: skip
    made = registry(
        tracking_url, "POST", "model-versions/create", name="jobmatch", source=old["source"],
        model_id=old["source"].removeprefix("models:/"), run_id=old["run_id"],
        tags=[tag for tag in old["tags"] if tag["key"].startswith("gate")],
    )["model_version"]  # fmt: skip
    return int(made["version"])


def put_into_production(tracking_url: str, version: int) -> None:
    registry(tracking_url, "POST", "registered-models/alias", name="jobmatch", alias="production",
             version=str(version))


class ServedModel:
    """The project's own model server, `python -m serving`, with one worker."""

    def __init__(self, url: str, tracking_url: str, state: Path, version: int) -> None:
        self.url = url
        self.tracking_url = tracking_url
        self.version = version
        """The version that is in production, except while a test moves the alias."""
        self._state = StateDirectory(state)

    @property
    def worker(self) -> int:
        """The process that answers."""
        (pid,) = self._state.worker_versions()
        return pid

    def wait_for(self, version: int, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        expected = {"state": "ready", "model_version": version, "next_version": None}
        while (said := requests.get(self.url + "/health", timeout=30).json()) != expected:
            assert time.monotonic() < deadline, said
            time.sleep(0.1)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It takes connections, and answers none of them before the end of this block."""
        pid = self.worker
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):  # a test may have killed it
                os.kill(pid, signal.SIGCONT)


@contextmanager
def model_server(directory: Path, tracking_url: str, version: int) -> Iterator[ServedModel]:
    """The model server on the registry at `tracking_url`, where `version` is in production."""
    port, state = free_port(), directory / "served"
    url = f"http://127.0.0.1:{port}"
    env = environment(
        MLFLOW_TRACKING_URI=tracking_url, MODEL_PORT=str(port), MODEL_STATE=str(state),
        MODEL_WORKERS="1", MODEL_POLL_SECONDS="0.5",
    )  # fmt: skip
    with running([sys.executable, "-m", "serving"], directory / "model.log", url=url + "/health",
                 cwd=PROJECT, env=env):  # fmt: skip
        yield ServedModel(url, tracking_url, state, version)


def training_project(directory: Path) -> Path:
    """An MLflow project whose `train` has the real parameters and is over in seconds."""
    declared = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"]["train"]
    arguments = " ".join(f"--{name} {{{name}}}" for name in declared["parameters"])
    directory.mkdir()
    project = {
        "name": "double",
        "entry_points": {"train": {
            "parameters": declared["parameters"],
            "command": f"python {DOUBLES / 'train.py'} {arguments}",
        }},
    }
    (directory / "MLproject").write_text(yaml.safe_dump(project, sort_keys=False))
    return directory


@contextmanager
def gateway(directory: Path, **variables: str) -> Iterator[str]:
    """The gateway under gunicorn, as its users start it; `variables` are its environment."""
    port = free_port()
    env = environment(
        GATEWAY_BIND=f"127.0.0.1:{port}", GATEWAY_STATE_DIR=str(directory / "state"), **variables
    )
    with running(gunicorn(), directory / "gateway.log", url=f"http://127.0.0.1:{port}/health",
                 cwd=directory, env=env, seconds=30):
        yield f"http://127.0.0.1:{port}"


def gunicorn() -> list[str]:
    return [
        sys.executable, "-m", "gunicorn", "--config", str(PROJECT / "gateway/gunicorn.conf.py"),
        "gateway:create_app()",
    ]  # fmt: skip
