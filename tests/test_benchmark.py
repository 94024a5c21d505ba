"""The benchmark compares like with like, and its smoke form works from end to end."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from benchmarks.gateway_overhead import MOST_CPU_MS
from benchmarks.memory import peak_of_all
from benchmarks.plain_blanking import blanked
from steps.records import Candidate, read
from steps.redaction import redact, without_name
from tests.conftest import PROJECT, SAMPLE, Store, Trained


def test_the_plain_blanking_does_the_work_that_ingest_does() -> None:
    records = list(read(SAMPLE / "applicants.json", Candidate).values())[:150]
    named = [(r.cv_pt or "", r.infos_basicas.nome if r.infos_basicas else None) for r in records]
    ours = pl.DataFrame({"cv": [without_name(*one) for one in named]}).select(redact(pl.col("cv")))
    plain = [blanked(*one) for one in named]
    assert plain == ours["cv"].to_list()
    assert sum(text != before for text, (before, _) in zip(plain, named, strict=True)) > 50


def test_memory_of_a_process_is_that_of_those_that_it_starts_too() -> None:
    alone = "import time; held = b'1' * 2**27; time.sleep(1)"
    both = (f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {alone!r}]); "
            f"{alone}; p.wait()")
    process = subprocess.Popen([sys.executable, "-c", both])
    with peak_of_all(process.pid) as peak:
        assert process.wait() == 0
    assert 256 < peak.mb < 384


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("benchmark")
def test_smoke_form_logs_the_table_its_figures_and_plots(
    new_store: Callable[[], Store], tmp_path: Path
) -> None:
    store = new_store()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.compare", "--form", "smoke",
         "--data_dir", str(SAMPLE)],
        cwd=PROJECT, env=store.environment(), capture_output=True, text=True, timeout=840)
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = store.runs("benchmark")
    logged = Path(store.client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    table = (logged / "comparison.md").read_text(encoding="utf-8")
    for what in ("parsing, vectorising, grid search", "for the described model alone",
                 "from files to registered version", "hire AUC", "pool AUC", "ingest",
                 "rank a vacancy", "score pairs"):
        assert what in table
        assert what in done.stdout
    figures = json.loads((logged / "comparison.json").read_text(encoding="utf-8"))
    for trained in (*figures["training"], figures["own"]):
        assert 0 < trained["seconds_described"] < trained["wall"]
        assert 0 < trained["seconds"] < trained["wall"]
    baseline = figures["baseline"]
    assert 0 < baseline["rows"] < baseline["rows_training"]
    assert baseline["seconds_whole"] > baseline["seconds"] + baseline["seconds_registering"] > 0
    assert figures["own_baseline"]["rows"] == figures["own_baseline"]["rows_training"]
    assert figures["scoring_baseline"]["rows_per_second"] > 0
    assert figures["scoring"] is None  # so few rows cannot tell
    assert "too few to tell" in table
    for plot in ("stages", "growth"):
        assert (logged / "plots" / f"{plot}.png").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.xdist_group("benchmark")
def test_the_serving_benchmark_works(new_store: Callable[[], Store]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving", "--quick"], cwd=PROJECT,
        env=new_store().environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    for what in ("requests/s", "ten best of a pool", "failed requests", "memory, 2 workers"):
        assert what in done.stdout


@pytest.mark.slow
@pytest.mark.xdist_group("trained")
def test_the_benchmark_of_the_gateway_works(trained: Trained) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gateway_overhead", "--requests", "20"], cwd=PROJECT,
        env=trained.store.environment(), capture_output=True, text=True, timeout=600)
    figures = [line.split("|")[1:-1] for line in done.stdout.splitlines()[-3:]]
    assert [name.strip() for name, *_ in figures] == [
        "model server", "behind the gateway", "the gateway adds"], done.stderr[-2000:]
    (_, alone, *_), (_, behind, *_), (_, added, *_) = figures
    assert float(alone) > 0
    assert abs(float(behind) - float(alone) - float(added)) < 0.02
    assert (done.returncode == 0) == (float(added) <= MOST_CPU_MS), done.stderr
