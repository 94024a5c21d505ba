"""A registry with real versions, good and bad, and real supervisors that serve from it."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from mlflow import MlflowClient

from tests.conftest import BYTECODE, PROJECT, QUICK, Store, arguments
from tests.processes import children

MODEL, ALIAS = "jobmatch", "production"
ROW = {
    "titulo_vaga": "Desenvolvedor Java",
    "principais_atividades": "Manter APIs em Java",
    "competencia_tecnicas_e_comportamentais": "Java, SQL",
    "cv_pt": "Cinco anos de Java, Spring e SQL",
}


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With xdist's `--dist loadgroup`, one process has the servers of all these tests."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("serving"))


@dataclass(frozen=True)
class Registry:
    """A store with version 1 trained, and copies of it as further versions."""

    store: Store

    @property
    def client(self) -> MlflowClient:
        return self.store.client

    def add(self, change: Callable[[Path], None] = lambda folder: None) -> int:
        """Register a copy of version 1, changed by `change`."""
        original = Path(self.client.get_model_version_download_uri(MODEL, "1").removeprefix(
            "file://"))
        if original.as_posix().startswith("models:/"):
            model = self.client.get_logged_model(original.name)
            original = Path(model.artifact_location.removeprefix("file://"))
        number = len(list(self.store.folder.glob("copy-*")))
        folder = self.store.folder / f"copy-{number}"
        shutil.copytree(original, folder)
        change(folder)
        return int(self.client.create_model_version(MODEL, folder.as_uri()).version)

    def promote(self, version: int) -> None:
        self.client.set_registered_model_alias(MODEL, ALIAS, str(version))

    def forget_alias(self) -> None:
        self.client.delete_registered_model_alias(MODEL, ALIAS)

    def tags(self, version: int) -> dict[str, str]:
        return self.client.get_model_version(MODEL, str(version)).tags

    def tag_arrives(self, version: int, name: str, seconds: float = 90) -> str:
        return wait_for(lambda: self.tags(version).get(name), seconds)


@pytest.fixture(scope="session")
def trained_store(new_store: Callable[[], Store], small_data: Path) -> Store:
    store = new_store()
    done = store.run("-m", "steps.train", *arguments({"data_dir": str(small_data), **QUICK}),
                     **BYTECODE)
    assert done.returncode == 0, done.stdout
    return store


@pytest.fixture(scope="module")
def registry(trained_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry of this module's own, with version 1 in production."""
    store = Store(tmp_path_factory.mktemp("registry"))
    shutil.copy(trained_store.folder / "mlflow.db", store.folder)
    return Registry(store)


def wait_for(what: Callable[[], Any], seconds: float = 90) -> Any:
    """What `what` returns, once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """A supervisor in a process group of its own."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.url = f"http://127.0.0.1:{environment['MODEL_PORT']}"
        self.log = log
        self._environment = environment
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serving"], cwd=PROJECT, env=self._environment,
                stdout=output, stderr=output, start_new_session=True)

    def status(self) -> dict[str, Any]:
        try:
            return dict(requests.get(f"{self.url}/health", timeout=5).json())
        except requests.RequestException:
            return {}

    def answers_with(self, version: int, seconds: float = 90) -> None:
        wait_for(lambda: self.status() == {
            "state": "ready", "model_version": version, "next_version": None}, seconds)
        assert self.version() == version

    def post(self, body: Any = None, **more: Any) -> requests.Response:
        given = {"json": body} if body is not None else {}
        return requests.post(f"{self.url}/invocations", timeout=60, **given, **more)

    def version(self) -> int:
        answer = self.post({"dataframe_records": [ROW]})
        assert answer.status_code == 200, answer.text
        return int(answer.json()["predictions"][0]["model_version"])

    def processes(self) -> dict[str, list[int]]:
        """The living processes below the supervisor: `server` and `workers`."""
        server = children(self.process.pid, "serving.server")
        return {"server": server,
                "workers": [w for s in server for w in children(s, "multiprocessing.spawn")]}

    def stop(self) -> float:
        """The seconds that ending takes."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        return time.monotonic() - began


@contextmanager
def serve(uri: str, state: Path, **settings: str) -> Iterator[Served]:
    """A supervisor that follows the registry at `uri`."""
    environment = Store(state.parent).environment() | {
        "MLFLOW_TRACKING_URI": uri, "MODEL_STATE": str(state), "MODEL_PORT": str(free_port()),
        "MODEL_POLL_SECONDS": "0.5", "MODEL_SWAP_SECONDS": "60", **BYTECODE, **settings,
    }  # fmt: skip
    served = Served(environment, state.parent / f"{state.name}.log")
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.stop()


@pytest.fixture(scope="module")
def served(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A supervisor with two workers, ready with version 1."""
    registry.promote(1)
    state = tmp_path_factory.mktemp("serving") / "state"
    with serve(registry.store.uri, state) as served:
        served.answers_with(1)
        yield served


@dataclass
class Load:
    """What clients got that asked all the while."""

    answered: int = 0
    versions: set[int] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)


@contextmanager
def load(url: str, clients: int = 2, all_retry: bool = False) -> Iterator[Load]:
    """Clients that ask without pause. Half keep their connections and retry as the documentation
    says, half make new ones and, unless `all_retry`, never retry."""
    found, over = Load(), threading.Event()
    retry = urllib3.Retry(connect=2, read=2, other=0, status=0, allowed_methods=None)
    body = json.dumps({"dataframe_records": [ROW]}).encode()

    def ask(keep_alive: bool) -> None:
        headers = {"Content-Type": "application/json"}
        if not keep_alive:
            headers["Connection"] = "close"
        pool = urllib3.PoolManager(
            retries=retry if keep_alive or all_retry else False, timeout=30)
        while not over.is_set():
            try:
                answer = pool.request("POST", f"{url}/invocations", body=body, headers=headers)
                version = answer.json()["predictions"][0]["model_version"]
            except Exception as error:
                found.failed.append(repr(error))
            else:
                found.answered += 1
                found.versions.add(version)
            time.sleep(0.01)

    threads = [threading.Thread(target=ask, args=(i % 2 == 0,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join()


def cannot_load(folder: Path) -> None:
    (folder / "artifacts" / "fitted" / "final" / "terms.json").write_text("[]")


def answers_nan(folder: Path) -> None:
    path = folder / "artifacts" / "fitted" / "final" / "weights.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hire_intercept": float("nan")}))


def fails_on_some_texts(folder: Path) -> None:
    """Passes every check, and raises on a text that holds `quebra`, naming the text."""
    path = folder / "code" / "jobmatch_pyfunc" / "model.py"
    code = path.read_text()
    head = "def _texts(table: pd.DataFrame, name: str) -> Texts:\n"
    assert code.count(head) == 1
    path.write_text(code.replace(head, head + (
        "    if name in table.columns and table[name].astype(str).str.contains('quebra').any():\n"
        "        raise RuntimeError(f'secret {table[name].tolist()}')\n")))


def has_another_signature(folder: Path) -> None:
    path = folder / "MLmodel"
    path.write_text(path.read_text().replace("cv_pt", "curriculo"))


def fails_in_workers(folder: Path) -> None:
    """Passes every check, and does not load in the processes that serve."""
    with (folder / "code" / "jobmatch_pyfunc" / "model.py").open("a") as code:
        code.write("\nimport multiprocessing\n"
                   "if multiprocessing.parent_process():\n    raise RuntimeError('secret')\n")
