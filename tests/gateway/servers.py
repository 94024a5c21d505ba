"""Real servers for the tests: MLflow's, the served model, the gateway under gunicorn."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests
import yaml

PROJECT = Path(__file__).resolve().parents[2]
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
        "PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "ignore", **more,
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


class ServedModel:
    """The model server; `say` sets what its /health and /ready say."""

    def __init__(self, url: str, state: Path) -> None:
        self.url = url
        self._state = state

    def say(self, state: str, version: int | None, following: int | None = None) -> None:
        fresh = self._state.with_suffix(".new")
        fresh.write_text(json.dumps(
            {"state": state, "model_version": version, "next_version": following}))
        fresh.replace(self._state)


@contextmanager
def model_server(directory: Path) -> Iterator[ServedModel]:
    model, port = directory / "model", free_port()
    subprocess.run(
        [sys.executable, str(DOUBLES / "save_model.py"), str(model)],
        check=True, cwd=directory, env=environment(), capture_output=True,
    )  # fmt: skip
    served = ServedModel(f"http://127.0.0.1:{port}", directory / "served.json")
    served.say("ready", 3)
    command = [
        sys.executable, "-m", "uvicorn", "--port", str(port), "--log-level", "warning",
        "--app-dir", str(DOUBLES), "serving_app:app",
    ]  # fmt: skip
    env = environment(
        __pyfunc_model_path__=str(model), SERVED_STATE=str(directory / "served.json")
    )
    with running(command, directory / "model.log", url=served.url + "/health", cwd=directory,
                 env=env):
        yield served


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
