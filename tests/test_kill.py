"""`train` stopped or killed at any moment: no half version, no moved alias; the next run works."""

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

import mlflow
import pytest

from tests.conftest import QUICK, Ended, Store, arguments, copy_project, use

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kill")]

REGISTERING = "logging and registering"
REGISTERED = "Created version"
BLANKS = count(1)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("copy") / "project")


@pytest.fixture(scope="module")
def live(new_store: Callable[[], Store], small_data: Path, project: Path) -> Store:
    """A store in which version 1 is live, from the small data."""
    store = new_store()
    done = store.run(
        "-m", "steps.train", *arguments({"data_dir": str(small_data), **QUICK}), cwd=project)
    assert done.returncode == 0, done.stdout
    assert store.aliases() == {"staging": 1, "production": 1}
    return store


@pytest.fixture
def other_data(small_data: Path, tmp_path: Path) -> Path:
    """The small data with other blanks for each test, so that nothing is reused."""
    copy = Path(shutil.copytree(small_data, tmp_path / "data"))
    with (copy / "vagas.json").open("a", encoding="utf-8") as file:
        file.write(" " * next(BLANKS))
    return copy


def started(store: Store, data: Path, project: Path) -> subprocess.Popen[str]:
    return store.start(
        "-m", "steps.train", *arguments({"data_dir": str(data), **QUICK}), cwd=project,
        PYTHONUNBUFFERED="1")  # fmt: skip


def wait_for_line(process: subprocess.Popen[str], holding: str) -> None:
    assert process.stdout
    seen = []
    for line in process.stdout:
        seen.append(line)
        if holding in line:
            return
    raise AssertionError(f"ended before {holding!r}: " + "".join(seen))


def statuses(store: Store, since: int) -> dict[str, str]:
    """Name → status of the runs that were started after the first `since`."""
    runs = store.runs()
    return {run.info.run_name: run.info.status for run in runs[: len(runs) - since]}


def assert_versions_are_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    use(store, monkeypatch)
    for version in store.client.search_model_versions("name='jobmatch'"):
        assert version.status == "READY"
        assert version.tags["gate"] in ("passed", "failed")
        mlflow.pyfunc.load_model(f"models:/jobmatch/{version.version}")


@pytest.mark.parametrize("moment", ["tokenising", "judging", REGISTERING])
def test_sigterm_ends_the_run_as_killed_and_registers_nothing(
    live: Store, project: Path, other_data: Path, moment: str
) -> None:
    before = live.versions(), live.aliases(), len(live.runs())
    process = started(live, other_data, project)
    wait_for_line(process, moment)
    process.terminate()
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "stopped; nothing was registered or moved" in rest
    assert "Traceback" not in rest
    assert (live.versions(), live.aliases()) == before[:2]
    ended = statuses(live, before[2])
    assert ended["train"] == "KILLED"
    assert set(ended.values()) <= {"KILLED", "FINISHED"}


STOPPED_IN_A_DESTRUCTOR = """
import os, signal, time
from steps.ingest import IngestParameters
from steps.session import run_step

class Asks:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

def body(parameters):
    try:
        Asks()
        time.sleep(20)
    finally:
        time.sleep(0.2)
        print("tidied up")

run_step("ingest", IngestParameters, body)
"""


def test_sigterm_that_comes_in_a_destructor_is_not_lost(
    live: Store, project: Path, small_data: Path
) -> None:
    before = len(live.runs())
    process = live.start("-c", STOPPED_IN_A_DESTRUCTOR, "--data_dir", str(small_data), cwd=project)
    rest, _ = process.communicate(timeout=15)
    assert process.returncode == 143, rest
    assert rest.endswith("tidied up\nstopped; nothing was registered or moved\n")
    assert statuses(live, before) == {"ingest": "KILLED"}


def test_sigterm_after_registering_comes_too_late(
    live: Store, project: Path, small_data: Path
) -> None:
    before = len(live.runs())
    production = live.aliases()["production"]
    process = started(live, small_data, project)
    wait_for_line(process, REGISTERED)
    process.terminate()
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert statuses(live, before)["train"] == "FINISHED"
    assert live.aliases() == {"staging": live.versions()[-1], "production": production}


@pytest.mark.parametrize(("moment", "seconds"), [
    ("reading", 0), ("fitting", 0), (REGISTERING, 0.5), (REGISTERED, 0)])  # fmt: skip
def test_sigkill_leaves_no_half_version_and_the_next_step_ends_the_run(
    live: Store, project: Path, other_data: Path, moment: str, seconds: float,
    monkeypatch: pytest.MonkeyPatch, step: Callable[..., Ended],
) -> None:  # fmt: skip
    versions, aliases, runs = live.versions(), live.aliases(), len(live.runs())
    process = started(live, other_data, project)
    wait_for_line(process, moment)
    time.sleep(seconds)
    process.kill()
    process.communicate(timeout=60)
    assert live.aliases()["production"] == aliases["production"]
    if moment != REGISTERED:
        assert (live.versions(), live.aliases()) == (versions, aliases)
    assert_versions_are_whole(live, monkeypatch)
    assert statuses(live, runs)["train"] == "RUNNING"  # nobody was left to end it
    assert step("ingest", data_dir=other_data).code == 0
    ended = statuses(live, runs)
    assert ended["train"] == "KILLED"
    assert "RUNNING" not in ended.values()


def test_a_run_of_a_living_process_is_left_alone(
    live: Store, project: Path, other_data: Path, step: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(live, monkeypatch)
    process = started(live, other_data, project)
    try:
        wait_for_line(process, "fitting the vectorisers")
        with closing(sqlite3.connect(live.folder / "mlflow.db", 30, isolation_level=None)) as store:
            store.execute("BEGIN EXCLUSIVE")  # so that it is not stopped in the middle of a write
            process.send_signal(signal.SIGSTOP)
        assert step("ingest", data_dir=other_data).code == 0
        assert live.runs("train")[0].info.status == "RUNNING"
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_ctrl_c_under_mlflow_run_leaves_no_run_running(
    live: Store, project: Path, other_data: Path
) -> None:
    """MLflow sets FAILED over the KILLED of the outer run; its tag says that it was stopped."""
    before = live.versions(), live.aliases(), len(live.runs())
    process = live.start(
        "-m", "mlflow", "run", str(project), "-e", "train", "--env-manager", "local",
        *[part for k, v in {"data_dir": str(other_data), **QUICK}.items()
          for part in ("-P", f"{k}={v}")], PYTHONUNBUFFERED="1")  # fmt: skip
    wait_for_line(process, "fitting")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to mlflow and to the step
    rest, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "stopped; nothing was registered or moved" in rest
    assert (live.versions(), live.aliases()) == before[:2]
    outer = live.runs()[-before[2] - 1]
    assert outer.data.tags["mlflow.project.entryPoint"] == "train"
    assert outer.info.status in ("KILLED", "FAILED")
    assert outer.data.tags["jobmatch.error"] == "stopped; nothing was registered or moved"
    assert statuses(live, before[2])["featurize"] in ("KILLED", "FINISHED")


def test_after_all_that_the_next_training_works(
    live: Store, project: Path, small_data: Path
) -> None:
    production = live.aliases()["production"]
    process = started(live, small_data, project)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert live.aliases() == {"staging": live.versions()[-1], "production": production}
    assert "featurize: reused from run" in output
    assert [run.info.run_name for run in live.runs() if run.info.status == "RUNNING"] == []
