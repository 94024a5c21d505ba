"""The benchmark's smoke form works from end to end; its figures mean nothing at that size."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PROJECT, Store

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("benchmark")]


def test_smoke_form_logs_the_table_its_figures_and_plots(
    new_store: Callable[[], Store], tmp_path: Path
) -> None:
    store = new_store()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.compare", "--form", "smoke"], cwd=PROJECT,
        env=store.environment(), capture_output=True, text=True, timeout=600)
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
    (trained,) = figures["training"]
    assert 0 < trained["seconds_described"] < trained["wall"]
    assert 0 < trained["seconds"] < trained["wall"]
    assert figures["baseline"]["rows"] > 0
    assert figures["score_rows_per_second"] is None  # so few rows cannot tell
    assert "too few to tell" in table
    assert (logged / "plots" / "stages.png").stat().st_size > 0
