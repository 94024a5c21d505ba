"""Fixtures: MLflow stores in temporary folders, steps run in this process or in their own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PROJECT = Path(__file__).resolve().parent.parent
SAMPLE = PROJECT / "data" / "sample"
EXPERIMENT = "jobmatch"
QUICK = {
    "grid_search_cv": "3", "grid_search_c_values": "0.1,1", "latent_dimensions": "20",
    "vocabulary_max_features": "5000", "tfidf_candidate_cv_max_features": "1000",
    "tfidf_job_description_max_features": "300", "tfidf_job_requirements_max_features": "300",
}  # fmt: skip
"""Parameters of `train` with which it takes seconds."""
BYTECODE = {
    "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": f"{tempfile.gettempdir()}/jobmatch-pyc",
}  # fmt: skip
"""Each process of MLflow imports two thousand modules: they are compiled once, as an installation
does."""
HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
"""Those of pytest."""


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove what was compiled of files in temporary folders: no other session finds it again."""
    if not hasattr(session.config, "workerinput"):  # xdist's workers have finished then
        compiled = Path(BYTECODE["PYTHONPYCACHEPREFIX"] + tempfile.gettempdir())
        for folder in compiled.glob("pytest-of-*"):
            shutil.rmtree(folder, ignore_errors=True)


def arguments(parameters: dict[str, str]) -> list[str]:
    return [part for name, value in parameters.items() for part in (f"--{name}", value)]


@dataclass(frozen=True)
class Store:
    """A tracking store and registry of its own, with the experiment `jobmatch`."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def client(self) -> "MlflowClient":
        from mlflow import MlflowClient

        return MlflowClient(self.uri, self.uri)

    def environment(self) -> dict[str, str]:
        """The environment in which a process works on this store, whatever the tests' own is."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PYTHONPATH"))}
        return kept | {
            "MLFLOW_TRACKING_URI": self.uri, "MLFLOW_EXPERIMENT_NAME": EXPERIMENT,
            "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip

    def runs(self, name: str | None = None) -> "list[Run]":
        """Every run, newest first; of one name only where it is given."""
        every = self.client.search_runs([self.experiment_id], order_by=["start_time DESC"])
        return [run for run in every if name in (None, run.info.run_name)]

    @property
    def experiment_id(self) -> str:
        return self.client.get_experiment_by_name(EXPERIMENT).experiment_id

    def aliases(self) -> dict[str, int]:
        """Alias → version."""
        found = self.client.search_registered_models()
        return {k: int(v) for model in found for k, v in model.aliases.items()}

    def versions(self) -> list[int]:
        return sorted(int(v.version) for v in self.client.search_model_versions("name='jobmatch'"))

    def start(self, *command: str, cwd: Path = PROJECT, **more: str) -> subprocess.Popen[str]:
        """A process of the tests' Python: `store.start("-m", "steps.train", ...)`, in a process
        group of its own."""
        return subprocess.Popen(
            [sys.executable, *command], cwd=cwd, env=self.environment() | more, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(
        self, *command: str, cwd: Path = PROJECT, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """The same, waited for; stdout and stderr are in `stdout`."""
        process = self.start(*command, cwd=cwd, **more)
        output, _ = process.communicate(timeout=240)
        return subprocess.CompletedProcess(command, process.returncode, output, "")

    def mlflow_run(
        self, entry_point: str, project: Path = PROJECT, **parameters: str
    ) -> subprocess.CompletedProcess[str]:
        """`mlflow run PROJECT -e ENTRY_POINT --env-manager local -P ...`"""
        given = [part for k, v in parameters.items() for part in ("-P", f"{k}={v}")]
        return self.run("-m", "mlflow", "run", str(project), "-e", entry_point,
                        "--env-manager", "local", *given, cwd=self.folder)  # fmt: skip


@pytest.fixture(scope="session")
def _empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Making the tables takes seconds, copying the file does not."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def new_store(
    tmp_path_factory: pytest.TempPathFactory, _empty_database: Path
) -> Callable[[], Store]:
    """Makes stores for fixtures that outlive a test."""

    def make() -> Store:
        store = Store(tmp_path_factory.mktemp("store"))
        shutil.copy(_empty_database, store.folder / "mlflow.db")
        artifacts = store.folder / "artifacts"
        store.client.create_experiment(EXPERIMENT, artifact_location=artifacts.as_uri())
        return store

    return make


@pytest.fixture
def store(new_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store, which MLflow in this process uses too."""
    made = new_store()
    use(made, monkeypatch)
    return made


def use(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `store` the one of this process until the test is over."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)


@dataclass(frozen=True)
class Ended:
    """How a step ended."""

    code: int
    output: str
    error: str = field(default="")


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable:
    """Runs a step in this process as `python -m steps.NAME` does: `step("ingest", data_dir=x)`."""
    def run(name: str, **parameters: object) -> Ended:
        import importlib

        module = importlib.import_module(f"steps.{name}")
        model = getattr(module, f"{name.title()}Parameters")
        given = arguments({k: str(v) for k, v in parameters.items()})
        monkeypatch.setattr(sys, "argv", [name, *given])
        capfd.readouterr()
        code, error = 0, ""
        try:
            module.run_step(name, model, getattr(module, name))
        except SystemExit as exit_:
            code, error = (exit_.code, "") if isinstance(exit_.code, int) else (1, str(exit_.code))
        return Ended(code, capfd.readouterr().out, error)

    return run


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """A step that ran in this process ignores them in the end, and so would every process that a
    later test starts."""
    yield
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _fresh_mlflow() -> Iterator[None]:
    """No test sees the active run or experiment of another."""
    yield
    mlflow = sys.modules.get("mlflow")
    if mlflow is None:
        return
    from mlflow.tracking import fluent

    while mlflow.active_run():
        mlflow.end_run()
    fluent._active_experiment_id = None
    fluent._last_active_run_id.set(None)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files with which a training takes seconds. Copy them before changing them."""
    from steps.generate import generate

    folder = tmp_path_factory.mktemp("small")
    generate(60, 80, 250, 42, folder)
    return folder


@pytest.fixture
def data(small_data: Path, tmp_path: Path) -> Path:
    """A copy of the small files, to be changed."""
    return Path(shutil.copytree(small_data, tmp_path / "data"))


def copy_project(folder: Path) -> Path:
    """What a training needs of the project, in another place."""
    folder.mkdir()
    for name in ("steps", "jobmatch_pyfunc"):
        shutil.copytree(PROJECT / name, folder / name,
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    for name in ("MLproject", "conda.yaml", "requirements.txt"):
        shutil.copy(PROJECT / name, folder)
    return folder


@dataclass(frozen=True)
class Trained:
    """A store in which one version has been trained on the sample by `mlflow run`."""

    project: Path
    """A copy of the project, in which nobody edits a line meanwhile."""
    store: Store
    run: "Run"
    output: str
    model_files: frozenset[str]
    """The files of version 1 before anybody loads it: Python puts its bytecode beside the code."""


@pytest.fixture(scope="session")
def trained(
    new_store: Callable[[], Store], tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """Tests that use it belong to the xdist group `trained`. They may add versions; version 1 and
    the alias `production` stay."""
    import mlflow

    store = new_store()
    project = copy_project(tmp_path_factory.mktemp("copy") / "project")
    done = store.mlflow_run("train", project, data_dir=str(SAMPLE), **QUICK)
    assert done.returncode == 0, done.stdout
    run_id = re.search(r"in run with ID '(\w+)'", done.stdout)
    assert run_id, done.stdout
    model = Path(mlflow.artifacts.download_artifacts(
        store.client.get_model_version_download_uri("jobmatch", "1"), tracking_uri=store.uri))
    files = frozenset(str(path.relative_to(model)) for path in model.rglob("*") if path.is_file())
    return Trained(
        project, store, store.client.get_run(run_id.group(1)), done.stdout, files)
