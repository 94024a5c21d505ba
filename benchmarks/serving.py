"""The served model beside the same model in a plain Flask + joblib + gunicorn service.

    python -m benchmarks.serving [--quick] [--data FOLDER] [--tracking-uri URI]

Prints a Markdown table. Trains on FOLDER (default: data/sample) in a temporary store, or takes
the production version at URI. `--quick` only shows that everything works. Load comes from wrk
where it is installed (Debian: `apt install wrk`), else from threads of this process, which take
more of the same cores.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # read at import

import joblib
import mlflow
import numpy as np
import pandas as pd
import psutil
import urllib3
from mlflow import MlflowClient

from benchmarks.plain_service import PlainModel
from jobmatch_pyfunc.contract import ACTIVITIES, CV, REQUIREMENTS, TITLE
from jobmatch_pyfunc.model import SHIPPED, FittedModel
from steps.generate import generate
from steps.registry import MODEL, PRODUCTION

PROJECT = Path(__file__).resolve().parent.parent
RETRY = urllib3.Retry(connect=2, read=2, other=0, status=0, allowed_methods=None)
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Sizes:
    """How much of everything is done."""

    requests: int
    load_seconds: int
    vacancies: int
    cvs: int
    promotions: int


FULL = Sizes(requests=1_000, load_seconds=20, vacancies=200, cvs=1_000, promotions=20)
QUICK = Sizes(requests=50, load_seconds=2, vacancies=10, cvs=50, promotions=2)


@dataclass
class Service:
    """A running service: its address, processes, and how it is asked for one row."""

    url: str
    process: subprocess.Popen[bytes]
    path: str
    wrap: Callable[[dict[str, str]], Any]
    bodies: list[bytes] = field(default_factory=list)

    def connection(self) -> http.client.HTTPConnection:
        host, port = self.url.removeprefix("http://").split(":")
        return http.client.HTTPConnection(host, int(port), timeout=60)


def train(data: Path, folder: Path) -> str:
    """Train a version on `data`; the tracking URI of the store it is in."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    MlflowClient(uri).create_experiment(MODEL, artifact_location=(folder / "artifacts").as_uri())
    subprocess.run([sys.executable, "-m", "steps.train", "--data_dir", str(data)], cwd=PROJECT,
                   env=environment(uri), check=True, stdout=subprocess.DEVNULL)
    return uri


def environment(uri: str) -> dict[str, str]:
    return {**os.environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": MODEL,
            "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1"}


def rows(folder: Path, count: int) -> list[dict[str, str]]:
    """Distinct rows of about 4 kB, generated."""
    generate(count, count * 2, count * 3, 7, folder)
    vacancies = json.loads((folder / "vagas.json").read_text(encoding="utf-8"))
    candidates = json.loads((folder / "applicants.json").read_text(encoding="utf-8"))
    cvs = [candidate.get("cv_pt", "") for candidate in candidates.values()]
    cvs.sort(key=lambda cv: abs(len(cv) - 3_300))
    made = []
    for i, vacancy in enumerate(vacancies.values()):
        profile = vacancy["perfil_vaga"]
        made.append({
            TITLE: vacancy["informacoes_basicas"]["titulo_vaga"],
            ACTIVITIES: profile["principais_atividades"],
            REQUIREMENTS: profile["competencia_tecnicas_e_comportamentais"],
            CV: cvs[i],
        })
    return made


@contextmanager
def ours(uri: str, folder: Path) -> Iterator[Service]:
    port = free_port()
    settings = {"MODEL_PORT": str(port), "MODEL_STATE": str(folder / "state"),
                "MODEL_POLL_SECONDS": "0.5"}
    process = subprocess.Popen([sys.executable, "-m", "serving"], cwd=PROJECT,
                               env=environment(uri) | settings)
    service = Service(f"http://127.0.0.1:{port}", process, "/invocations",
                      lambda row: {"dataframe_records": [row]})
    with ended(process):
        wait_for(lambda: status(service.url).get("state") == "ready")
        yield service


@contextmanager
def plain(model: Path) -> Iterator[Service]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", f"127.0.0.1:{port}",
         "--log-level", "warning", f"benchmarks.plain_service:create_app('{model}')"],
        cwd=PROJECT, env=environment(""))
    service = Service(f"http://127.0.0.1:{port}", process, "/predict", lambda row: [row])
    with ended(process):
        wait_for(lambda: answers(service))
        yield service


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def answers(service: Service) -> bool:
    try:
        connection = service.connection()
        connection.request("GET", "/")
        connection.getresponse()
    except OSError:
        return False
    return True


def ask(connection: http.client.HTTPConnection, service: Service, body: bytes) -> Any:
    connection.request("POST", service.path, body, JSON)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"null")


def status(url: str) -> dict[str, Any]:
    try:
        return dict(json.loads(urllib3.request("GET", f"{url}/health", timeout=5, retries=False
                                               ).data))
    except (urllib3.exceptions.HTTPError, ValueError):
        return {}


def latency(service: Service, count: int) -> list[float]:
    """Milliseconds of single rows, one after the other on one connection, which the plain service
    closes each time (gunicorn's default worker keeps none)."""
    connection, times = service.connection(), []
    for i in range(count + 20):
        body = service.bodies[i % len(service.bodies)]
        began = time.perf_counter()
        code, _ = ask(connection, service, body)
        times.append(1000 * (time.perf_counter() - began))
        if code != 200:
            raise SystemExit(f"error: {service.path} answered {code}")
    return times[20:]


def throughput(service: Service, seconds: int, folder: Path) -> float:
    """Requests a second at 8 clients."""
    if shutil.which("wrk"):
        return _wrk(service, seconds, folder)
    over, counts = threading.Event(), [0] * 8

    def work(client: int) -> None:
        connection = service.connection()
        while not over.is_set():
            code, _ = ask(connection, service, service.bodies[counts[client] % len(service.bodies)])
            counts[client] += code == 200

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    over.set()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def _wrk(service: Service, seconds: int, folder: Path) -> float:
    lines = [f"bodies[{i + 1}] = [==[{body.decode()}]==]" for i, body in enumerate(service.bodies)]
    script = folder / "load.lua"
    script.write_text("\n".join([
        "local bodies = {}", *lines, "local n = 0", "function request()",
        "  n = n % #bodies + 1",
        f"  return wrk.format('POST', '{service.path}',"
        " {['Content-Type'] = 'application/json'}, bodies[n])", "end",
        "function done(summary)",
        "  print('result ' .. summary.requests / summary.duration * 1e6 .. ' '",
        "    .. summary.errors.status + summary.errors.read + summary.errors.timeout)", "end"]),
        encoding="utf-8")
    output = subprocess.run(
        ["wrk", "-t", "1", "-c", "8", "-d", f"{seconds}s", "-s", str(script), service.url],
        capture_output=True, text=True, check=True).stdout
    rate, failed = next(line.split()[1:] for line in output.splitlines() if "result" in line)
    if float(failed):
        raise SystemExit(f"error: {failed} requests to {service.path} failed under load")
    return float(rate)


def rank_pool(service: Service, some: list[dict[str, str]]) -> list[float]:
    """Milliseconds of the ten best of the pool for one vacancy."""
    bodies = [json.dumps({"dataframe_records": [{k: v for k, v in row.items() if k != CV}],
                          "params": {"top_k": 10}}).encode() for row in some]
    asked = Service(service.url, service.process, service.path, service.wrap, bodies)
    return latency(asked, len(bodies))


def one_predict(sizes: Sizes, folder: Path) -> float:
    """Seconds of vacancies × CVs in one `predict` of the loaded model."""
    vacancies, candidates = rows(folder / "v", sizes.vacancies), rows(folder / "c", sizes.cvs)
    table = pd.DataFrame([v | {CV: c[CV] + f" {i}"} for v in vacancies
                          for i, c in enumerate(candidates)])
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@{PRODUCTION}")
    began = time.perf_counter()
    model.predict(table)
    return time.perf_counter() - began


def _serves(url: str, version: int) -> bool:
    return status(url) == {"state": "ready", "model_version": version, "next_version": None}


@dataclass
class Promotions:
    """What clients got while versions were promoted."""

    answered: int = 0
    failed: int = 0
    repeated: int = 0
    """By clients whose kept connection was closed under them."""
    seconds: list[float] = field(default_factory=list)


def promote_under_load(service: Service, uri: str, folder: Path, count: int) -> Promotions:
    """Promote `count` times, to and fro, while clients ask: two keep their connections and retry
    one that was closed under them, two make new ones and never retry."""
    client = MlflowClient(uri)
    first = client.get_model_version_by_alias(MODEL, PRODUCTION)
    copy = folder / "second"
    shutil.copytree(mlflow.artifacts.download_artifacts(
        f"models:/{MODEL}/{first.version}"), copy)
    second = client.create_model_version(MODEL, copy.as_uri())
    found, over, lock = Promotions(), threading.Event(), threading.Lock()

    def work(headers: dict[str, str], client: int) -> None:
        pool = urllib3.PoolManager(retries=False if headers else RETRY, timeout=60)
        i, repeated = client, 0
        while not over.is_set():
            i += 1
            try:
                answer = pool.request("POST", service.url + service.path, headers=JSON | headers,
                                      body=service.bodies[i % len(service.bodies)])
                fine = answer.status == 200
                repeated = len(answer.retries.history) if answer.retries else 0
            except urllib3.exceptions.HTTPError:
                fine = False
            with lock:
                found.answered += fine
                found.repeated += repeated
                found.failed += not fine

    threads = [threading.Thread(target=work, args=({} if i % 2 else {"Connection": "close"}, i))
               for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        for i in range(count):
            version = (second, first)[i % 2].version
            began = time.monotonic()
            client.set_registered_model_alias(MODEL, PRODUCTION, str(version))
            wait_for(partial(_serves, service.url, int(version)))
            found.seconds.append(time.monotonic() - began)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    client.set_registered_model_alias(MODEL, PRODUCTION, str(first.version))
    return found


def memory(service: Service) -> float:
    """MB of the process and all below it; what they share counts once (PSS)."""
    top = psutil.Process(service.process.pid)
    family = (top, *top.children(recursive=True))
    return float(sum(process.memory_full_info().pss for process in family)) / 2**20


def wait_for(what: Callable[[], Any], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise SystemExit(f"error: not ready within {seconds:.0f} s")
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_same(a: Service, b: Service) -> None:
    """Both answer the same, or the comparison means nothing."""
    for left, right in list(zip(a.bodies, b.bodies, strict=True))[:20]:
        mine = ask(a.connection(), a, left)[1]["predictions"][0]
        theirs = ask(b.connection(), b, right)[1][0]
        for score in ("probability", "match"):
            if not np.isclose(mine[score], theirs[score], rtol=0, atol=1e-9):
                raise SystemExit(f"error: the services differ in {score}: "
                                 f"{mine[score]} and {theirs[score]}")


def run(uri: str, folder: Path, sizes: Sizes) -> list[tuple[str, str, str, str]]:
    """The rows of the table: what, plain, ours, ratio or goal."""
    mlflow.set_tracking_uri(uri)
    some = rows(folder / "rows", 100)
    (folder / "model").mkdir()
    local = Path(mlflow.artifacts.download_artifacts(
        f"models:/{MODEL}@{PRODUCTION}", dst_path=str(folder / "model")))
    saved, fitted = folder / "model.joblib", local / "artifacts" / "fitted"
    version = MlflowClient(uri).get_model_version_by_alias(MODEL, PRODUCTION).version
    joblib.dump(PlainModel(FittedModel(fitted / SHIPPED), int(version)), saved)
    pool = len(json.loads((fitted / "pool" / "codes.json").read_text()))
    seconds = one_predict(sizes, folder)
    with ExitStack() as stack:
        both = stack.enter_context(ours(uri, folder)), stack.enter_context(plain(saved))
        for service in both:
            service.bodies = [json.dumps(service.wrap(row)).encode() for row in some]
        require_same(*both)
        times = [latency(service, sizes.requests) for service in both]
        mine, theirs = (statistics.median(t) for t in times)
        my_rate, their_rate = (throughput(s, sizes.load_seconds, folder) for s in both)
        ranking = rank_pool(both[0], some)
        used, their_used = (memory(service) for service in both)
    with ours(uri, folder) as service:
        service.bodies = [json.dumps(service.wrap(row)).encode() for row in some]
        promoted = promote_under_load(service, uri, folder, sizes.promotions)
    size = sum(map(len, both[0].bodies)) / len(some) / 1000
    p99 = [sorted(t)[int(0.99 * len(t))] for t in times]
    return [
        (f"single row, {size:.1f} kB, median (p99) at 1 client", f"{theirs:.2f} ({p99[1]:.2f}) ms",
         f"{mine:.2f} ({p99[0]:.2f}) ms", f"{mine / theirs:.2f} ×"),
        ("requests/s at 8 clients", f"{their_rate:.0f}", f"{my_rate:.0f}",
         f"{my_rate / their_rate:.1f} ×"),
        (f"{sizes.vacancies} vacancies × {sizes.cvs} CVs in one `predict`", "–",
         f"{seconds:.1f} s", ""),
        (f"ten best of a pool of {pool:,} for one vacancy, median", "–",
         f"{statistics.median(ranking):.1f} ms", ""),
        (f"failed requests in {sizes.promotions} promotions under load", "–",
         f"{promoted.failed} of {promoted.answered + promoted.failed:,}"
         f" ({promoted.repeated} sent again)",
         f"{statistics.median(promoted.seconds):.0f} s a promotion"),
        ("memory, 2 workers (shared memory counted once)", f"{their_used:.0f} MB",
         f"{used:.0f} MB", ""),
    ]


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    parser.add_argument("--data", type=Path, default=PROJECT / "data" / "sample",
                        help="the three files to train on")
    parser.add_argument("--tracking-uri", help="take the production version of this store instead")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the services end too
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uri = given.tracking_uri or train(given.data, folder)
        table = run(uri, folder, QUICK if given.quick else FULL)
    print("| | plain Flask + joblib | served model | |\n|---|---|---|---|")
    for row in table:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
