"""Results of earlier runs, found again by what they were made from.

A step's result is a folder of artifacts on its MLflow run. The run carries a digest of everything
that the result depends on: the input files, the step's parameters, and the source of the step and
of every module of the project that it imports. A result is reused only from a finished run with
the same digest, so a changed file, parameter or line of code always means new work.
"""

import ast
import hashlib
import json
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import TypeVar

import mlflow
from mlflow.entities import Run

from steps.parameters import PROJECT, Parameters
from steps.session import step_run

STEP, DIGEST, FILES = "jobmatch.step", "jobmatch.digest", "jobmatch.files"

T = TypeVar("T")


def while_unchanged(read: Callable[[Path], T]) -> Callable[[Path], T]:
    """`read`, a function of a file's content, which is called again only where the file's size or
    one of its times has changed: a training asks for the same digests seven times."""
    kept = lru_cache(1000)(lambda path, _stat: read(path))

    @wraps(read)
    def current(path: Path) -> T:
        stat = path.stat()
        return kept(path, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns,
                           stat.st_ctime_ns))

    return current


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; the name where there is no such file."""
    return _sha256(path) if path.is_file() else f"missing {path.name}"


@while_unchanged
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_files(module: str) -> list[Path]:
    """The file of a project module and of every project module it imports, directly or not."""
    found: dict[str, Path] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        path = PROJECT / Path(*name.split(".")).with_suffix(".py")
        if name in found or not path.is_file():
            continue
        found[name] = path
        pending += _imported(path)
    return sorted(found.values())


@while_unchanged
def _imported(path: Path) -> list[str]:
    """Names of what may be the modules that a source file imports."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def step_digest(step: str, parameters: Parameters, inputs: dict[str, str]) -> str:
    """Digest of a step's inputs (name → digest), parameters, source and pinned dependencies.

    `data_dir` is left out of the parameters: the files count, not where they lie.
    """
    sources = {
        str(path.relative_to(PROJECT)): file_digest(path) for path in source_files(f"steps.{step}")
    }
    chosen = {k: v for k, v in parameters.as_strings().items() if k != "data_dir"}
    requirements = file_digest(PROJECT / "requirements.txt")
    made_from = [step, chosen, inputs, sources, requirements]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def find(step: str, digest: str) -> Run | None:
    """The newest finished run that holds the result with this digest, in any experiment."""
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(
        experiments,
        filter_string=f"tags.`{STEP}` = '{step}' and tags.`{DIGEST}` = '{digest}' "
        "and attributes.status = 'FINISHED'",
        max_results=1,
    )
    return runs[0] if runs else None


def bring_about(
    step: str, digest: str, make: Callable[[], T], read: Callable[[Path], T]
) -> T:
    """A step's result: read from the artifacts of an earlier run that made it, or made and logged
    now, by `make`, in a new nested run. Both must give the same."""
    run = find(step, digest)
    # where the listings differ, artifacts of the earlier run have been lost or cut since
    if run is not None and _listing(run.info.run_id) == run.data.tags.get(FILES):
        print(f"{step}: reused from run {run.info.run_id}", flush=True)
        mlflow.set_tag(f"jobmatch.reused.{step}", run.info.run_id)
        return read(Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id)))
    with step_run(run_name=step, nested=True):
        return make()


def mark(step: str, digest: str) -> None:
    """Say on the active run which result it holds. Call it last: the result must be complete."""
    run = mlflow.active_run()
    if run is None:
        raise RuntimeError(f"{step}: no run is active")
    mlflow.set_tags({STEP: step, DIGEST: digest, FILES: _listing(run.info.run_id)})


def _listing(run_id: str) -> str:
    """Digest of the names and sizes of a run's artifacts."""
    client = mlflow.MlflowClient()
    found, pending = [], [""]
    while pending:
        for entry in client.list_artifacts(run_id, pending.pop()):
            if entry.is_dir:
                pending.append(entry.path)
            else:
                found.append([entry.path, entry.file_size])
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()
