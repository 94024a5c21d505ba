"""What the gateway adds to a prediction: CPU and latency, beside the model server alone.

Starts the model server (`python -m serving`, one version in production needed at
MLFLOW_TRACKING_URI) and the gateway, sends the same single rows of about 4 kB to both over one
kept-alive connection, and prints a Markdown table. CPU is that of all server processes, from the
kernel's accounts; the client's own is not counted. Exits with 1
when the gateway adds more than 3 ms.

    python -m benchmarks.gateway_overhead [--requests 500]
"""

import argparse
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

PROJECT = Path(__file__).resolve().parent.parent
SAMPLE = PROJECT / "data" / "sample"
ROW_CHARACTERS = 4000
MOST_CPU_MS = 3.0


@dataclass(frozen=True)
class Figures:
    """Of one way to ask, for each request: CPU in ms, latency in ms."""

    cpu: float
    median: float
    p99: float


def rows(count: int) -> list[dict[str, str]]:
    """Pairs of the sample's vacancies and CVs, no two alike, cut to about 4 kB."""
    vacancies = list(json.loads((SAMPLE / "vagas.json").read_text(encoding="utf-8")).values())
    people = list(json.loads((SAMPLE / "applicants.json").read_text(encoding="utf-8")).values())
    found = []
    for n in range(count):
        profile = vacancies[n % len(vacancies)]["perfil_vaga"]
        row = {
            name: profile.get(name, "")
            for name in ("principais_atividades", "competencia_tecnicas_e_comportamentais")
        }
        room = ROW_CHARACTERS - sum(map(len, row.values()))
        cv = f"{n} " + " ".join(people[(n + k) % len(people)]["cv_pt"] for k in range(3))
        found.append(row | {"cv_pt": cv[: max(0, room)]})
    return found


def cpu_seconds(root: int) -> float:
    """CPU used so far by a process, its descendants, and those of them that have ended."""
    total = 0.0
    top = psutil.Process(root)
    for process in (top, *top.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            total += used.user + used.system + used.children_user + used.children_system
    return total


@contextmanager
def server(command: list[str], url: str, **variables: str) -> Iterator[int]:
    """The process id of a server, once `url` answers 200."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **variables}
    process = subprocess.Popen(command, cwd=PROJECT, env=env, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"error: {' '.join(command[1:4])} does not answer; is a version in "
                         "production at MLFLOW_TRACKING_URI? (see the README)")
            try:
                if requests.get(url, timeout=5).status_code == 200:
                    break
            except requests.RequestException:
                pass
            time.sleep(0.2)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def measure(ask: Callable[[dict[str, str]], None], sent: list[dict[str, str]],
            servers: list[int]) -> Figures:  # fmt: skip
    """Ask once for each row, one after the other."""
    before = sum(map(cpu_seconds, servers))
    times = []
    for row in sent:
        began = time.perf_counter()
        ask(row)
        times.append(1000 * (time.perf_counter() - began))
    cpu = 1000 * (sum(map(cpu_seconds, servers)) - before) / len(sent)
    times.sort()
    return Figures(cpu, statistics.median(times), times[int(0.99 * (len(times) - 1))])


def run(requests_sent: int) -> dict[str, Figures]:
    """Figures of the model server alone and behind the gateway; alternating, in five rounds."""
    model, gateway = free_address(), free_address()
    password = secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        model_pid = stack.enter_context(server(
            [sys.executable, "-m", "serving"], f"http://{model}/ready",
            MODEL_PORT=model.rpartition(":")[2], MODEL_STATE=f"{scratch}/serving"))
        gateway_pid = stack.enter_context(server(
            [sys.executable, "-m", "gunicorn", "--config", "gateway/gunicorn.conf.py",
             "gateway:create_app()"], f"http://{gateway}/ready",
            GATEWAY_BIND=gateway, GATEWAY_STATE_DIR=f"{scratch}/gateway",
            GATEWAY_MODEL_URL=f"http://{model}", GATEWAY_ADMIN_PASSWORD=password,
            GATEWAY_REQUEST_LIMIT="1000000/minute",
            MLFLOW_TRACKING_URI="http://127.0.0.1:9"))  # predictions do not need it
        direct, through = requests.Session(), requests.Session()
        credentials = {"username": "admin", "password": password}
        token = through.post(f"http://{gateway}/login", json=credentials, timeout=30).json()
        through.headers["Authorization"] = f"Bearer {token['access_token']}"

        def ask_directly(row: dict[str, str]) -> None:
            # as the gateway asks: another format would cost the model server more or less
            body: dict = {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}
            direct.post(f"http://{model}/invocations", json=body, timeout=30).raise_for_status()

        def ask_the_gateway(row: dict[str, str]) -> None:
            through.post(f"http://{gateway}/predict", json=row, timeout=30).raise_for_status()

        servers = [model_pid, gateway_pid]
        for ask in (ask_directly, ask_the_gateway):
            measure(ask, rows(50), servers)  # warm
        rounds: dict[str, list[Figures]] = {"model server": [], "behind the gateway": []}
        for _ in range(5):
            sent = rows(max(1, requests_sent // 5))
            rounds["model server"].append(measure(ask_directly, sent, servers))
            rounds["behind the gateway"].append(measure(ask_the_gateway, sent, servers))
    return {
        name: Figures(*(statistics.median(getattr(f, key) for f in found)
                        for key in ("cpu", "median", "p99")))
        for name, found in rounds.items()
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=500)
    figures = run(parser.parse_args().requests)
    print("| single rows of 4 kB, 1 client | CPU, ms | median, ms | p99, ms |\n|---|---|---|---|")
    for name, f in figures.items():
        print(f"| {name} | {f.cpu:.2f} | {f.median:.2f} | {f.p99:.2f} |")
    alone, behind = figures.values()
    added = [getattr(behind, key) - getattr(alone, key) for key in ("cpu", "median", "p99")]
    print("| the gateway adds | " + " | ".join(f"{value:.2f}" for value in added) + " |")
    if added[0] > MOST_CPU_MS:
        sys.exit(f"error: the gateway adds {added[0]:.2f} ms CPU, more than {MOST_CPU_MS}")


if __name__ == "__main__":
    main()
