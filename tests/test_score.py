"""`score`: bulk scoring from Parquet to Parquet, the same on this machine and on Spark."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps import places, score
from steps.failure import StepError
from steps.pair_files import find_pairs
from steps.parts import open_parts
from steps.score_local import score_here
from tests.conftest import PROJECT, SAMPLE, Ended, Store, Trained, arguments, use
from tests.processes import group_members

pytestmark = pytest.mark.xdist_group("trained")

Step = Callable[..., Ended]
SCORES = ["probability", "prediction", "confidence", "match", "model_version"]


def has_spark() -> bool:
    try:
        import pyspark  # noqa: F401
    except ImportError:
        return False
    return shutil.which("java") is not None


needs_spark = pytest.mark.skipif(not has_spark(), reason="skipped: no pyspark or no Java")


@pytest.fixture(autouse=True)
def store(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Store:
    use(trained.store, monkeypatch)
    return trained.store


@pytest.fixture(scope="session")
def pairs() -> pl.DataFrame:
    """3,000 pairs of the sample: 60 vacancies, each with 50 CVs, texts missing here and there."""
    jobs = list(json.loads((SAMPLE / "vagas.json").read_text(encoding="utf-8")).values())[:60]
    people = list(json.loads((SAMPLE / "applicants.json").read_text(encoding="utf-8")).items())
    rows = [
        {"codigo": code, "numero": i * 50 + n,
         "titulo_vaga": job["informacoes_basicas"]["titulo_vaga"],
         "principais_atividades": job["perfil_vaga"]["principais_atividades"],
         "competencia_tecnicas_e_comportamentais":
             job["perfil_vaga"]["competencia_tecnicas_e_comportamentais"] if n != 7 else None,
         "cv_pt": person["cv_pt"] if n != 9 else None}
        for i, job in enumerate(jobs)
        for n, (code, person) in enumerate(people[i * 5:i * 5 + 50])
    ]  # fmt: skip
    return pl.DataFrame(rows).sample(fraction=1, shuffle=True, seed=1)


@pytest.fixture(scope="session")
def folder(pairs: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pairs in files of 700 rows, with a space in their names."""
    made = tmp_path_factory.mktemp("pairs of the sample")
    for i, part in enumerate(pairs.iter_slices(700)):
        part.write_parquet(made / f"pairs {i}.parquet", row_group_size=300)
    return made


def read(output: Path) -> pl.DataFrame:
    return pl.read_parquet(sorted(output.glob("*.parquet")))


@pytest.fixture(scope="session")
def expected(trained: Trained, pairs: pl.DataFrame) -> pl.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        use(trained.store, patch)
        model = mlflow.pyfunc.load_model("models:/jobmatch/1")
    return pl.DataFrame(model.predict(pairs.to_pandas()))


def assert_same(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    for name in ("probability", "match", "confidence"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-9)
    assert found["prediction"].to_list() == wanted["prediction"].to_list()
    assert set(found["model_version"]) == {1}


def ranked(pairs: pl.DataFrame, scores: pl.DataFrame, top_k: int) -> pl.DataFrame:
    """What a ranking has to be, worked out in one go."""
    texts = ["titulo_vaga", "principais_atividades", "competencia_tecnicas_e_comportamentais"]
    whole = pl.concat([pairs.with_row_index("row"), scores], how="horizontal").with_columns(
        pl.col(texts).fill_null(""))
    return (whole.sort(pl.col("match").round(12), "row", descending=[True, False])
            .group_by(texts, maintain_order=True).head(top_k)
            .with_columns(rank=pl.int_range(1, pl.len() + 1).over(texts)))  # fmt: skip


@pytest.fixture(scope="session")
def scored(trained: Trained, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete output, with the settings that MLproject gives. Copy it before changing it."""
    out = tmp_path_factory.mktemp("scored") / "out"
    done = trained.store.run(
        "-m", "steps.score", *arguments({"input": str(folder), "output": str(out)}))
    assert done.returncode == 0, done.stdout
    return out


@pytest.fixture
def complete(scored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scored, tmp_path / "out"))


def test_scores_are_the_models_own_and_other_columns_come_along(
    step: Step, store: Store, folder: Path, pairs: pl.DataFrame, expected: pl.DataFrame,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    ended = step("score", input=folder, output=out, chunk_rows=256, part_rows=1000)
    assert ended.code == 0, ended.error
    found = read(out)
    assert found.columns == ["codigo", "numero", *SCORES]  # and none of the texts
    assert found["numero"].to_list() == pairs["numero"].to_list()
    assert_same(found, expected)
    assert [len(pl.read_parquet(p)) for p in sorted(out.glob("*.parquet"))] == [1000] * 3
    assert (out / "_SUCCESS").exists()
    run = store.runs("score")[0]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["rows"] == 3000
    assert run.data.metrics["rows_per_second"] > 0
    assert run.data.params["output"] == str(out)
    assert run.data.tags["jobmatch.version"] == "1"
    assert run.data.tags["jobmatch.stage"] == "done"


@pytest.mark.parametrize("part_rows", [pytest.param(100_000, marks=pytest.mark.slow), 700])
def test_ranking_keeps_the_best_of_each_vacancy(
    step: Step, folder: Path, pairs: pl.DataFrame, expected: pl.DataFrame, tmp_path: Path,
    part_rows: int,
) -> None:
    out = tmp_path / "out"
    ended = step("score", input=folder, output=out, top_k=3, part_rows=part_rows)
    assert ended.code == 0, ended.error
    found, wanted = read(out), ranked(pairs, expected, 3)
    assert sorted(found["row"]) == sorted(wanted["row"])
    assert set(found.columns) == {"codigo", "numero", "row", "vacancy", "rank", *SCORES}
    both = found.sort("row").join(wanted.sort("row"), on="row", suffix="_wanted")
    assert both["rank"].to_list() == both["rank_wanted"].to_list()
    assert_same(found.sort("row"), wanted.sort("row"))
    assert found["rank"].max() == 3
    assert not (out / "_partial").exists()


def test_vacancies_that_are_brought_together_in_ranges_are_ranked_as_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    vacancies = [f"{n:016x}" for n in random.integers(0, 2**64, 300, np.uint64)]
    rows = pl.DataFrame({
        "codigo": [f"c{i}" for i in range(5000)], "row": range(5000),
        "vacancy": random.choice(vacancies, 5000), "match": random.random(5000),
        "probability": 0.5, "prediction": "x", "confidence": 0.5, "model_version": 1})
    monkeypatch.setattr(places.Best, "FEWEST", 100)
    found: dict[int, pl.DataFrame] = {}
    for most in (10_000_000, 250):
        monkeypatch.setattr(score, "JOINED_ROWS", most)
        shares: list[float] = []
        with open_parts(tmp_path / str(most), {}, 5) as out:
            for number, part in enumerate(rows.iter_slices(1000)):
                table = places.best(part, 2).to_arrow()
                with out.writer(number, table.schema, partial=True) as writer:
                    writer.write_table(table, 50)
            carried = SimpleNamespace(carried=pa.schema([("codigo", pa.string())]))
            score._join_rankings(carried, out, 2, shares.append)  # type: ignore[arg-type]
        found[most] = pl.read_parquet(tmp_path / str(most) / "part-00000.parquet")
        assert shares[-1] == 1
    assert len(shares) > 5
    assert found[250].equals(found[10_000_000])
    wanted = places.best(rows, 2)
    assert found[250]["row"].to_list() == wanted["row"].to_list()
    assert found[250]["rank"].max() == 2


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(
    trained: Trained, pairs: pl.DataFrame, tmp_path: Path,
    ended_at_last: list[subprocess.Popen[str]],
) -> None:
    peaks = []
    for copies in (2, 16):  # in one row group each
        source = tmp_path / f"{copies}.parquet"
        distinct = pl.concat([pairs] * copies).with_row_index("n").with_columns(
            pl.col("cv_pt") + pl.format(" number{}", "n")).drop("n")
        distinct.write_parquet(source, row_group_size=10**9)
        process = started(trained, input=source, output=tmp_path / f"out{copies}", chunk_rows=250)
        ended_at_last.append(process)
        peak = 0
        while process.poll() is None:
            peak = max(peak, proportional_memory(process.pid))
            time.sleep(0.02)
        assert process.returncode == 0, process.communicate()[0]
        peaks.append(peak)
    assert peaks[1] < 1.15 * peaks[0]


def proportional_memory(group: int) -> int:
    """Bytes of all processes of a group, what they share divided among them."""
    total = 0
    for process in group_members(group):
        with suppress(psutil.NoSuchProcess):  # a process may end meanwhile
            total += process.memory_full_info().pss
    return total


def test_a_version_that_cannot_be_loaded_is_told_as_that(
    folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "model"
    broken.mkdir()
    (broken / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: no.such.module\n"
        "    python_version: 3.11.0\n", encoding="ascii")
    found = find_pairs(folder)
    with (
        open_parts(tmp_path / "out", {}, 1) as out,
        pytest.raises(StepError, match=r"model cannot be loaded \(ModuleNotFoundError\)"),
    ):
        score_here(found, out, [0], str(broken), top_k=0, chunk_rows=4000, part_rows=100_000,
                   told=lambda _: None)
    assert not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.slow
def test_a_single_file_without_titles_is_enough(
    step: Step, pairs: pl.DataFrame, tmp_path: Path
) -> None:
    pairs.head(20).drop("titulo_vaga", "numero", "codigo").write_parquet(tmp_path / "one.parquet")
    assert step("score", input=tmp_path / "one.parquet", output=tmp_path / "out").code == 0
    assert read(tmp_path / "out").shape == (20, len(SCORES))


@pytest.mark.slow
def test_dictionaries_are_texts_too(step: Step, pairs: pl.DataFrame, tmp_path: Path) -> None:
    table = pairs.head(50).to_arrow().cast(pa.schema([
        (n, pa.dictionary(pa.int32(), pa.string()) if n != "numero" else pa.int64())
        for n in pairs.columns]))  # fmt: skip
    pq.write_table(table, tmp_path / "one.parquet")
    ended = step("score", input=tmp_path / "one.parquet", output=tmp_path / "out")
    assert ended.code == 0, ended.error
    assert len(read(tmp_path / "out")) == 50


def test_a_complete_output_is_left_alone(step: Step, folder: Path, complete: Path) -> None:
    out = complete
    before = [(p.name, p.stat().st_mtime_ns) for p in sorted(out.glob("*.parquet"))]
    again = step("score", input=folder, output=out)
    assert (again.code, "nothing to do" in again.output) == (0, True)
    assert [(p.name, p.stat().st_mtime_ns) for p in sorted(out.glob("*.parquet"))] == before


@pytest.mark.parametrize(("changed", "told"), [
    ({"top_k": 2}, "top_k 0 instead of 2"), ({"part_rows": 7}, "part_rows 100000 instead of 7"),
    ({"engine": "spark"}, "engine local instead of spark"), ({"input": "other"}, "another input"),
    ({"version": "other"}, "version 99 instead of 1"),
])  # fmt: skip
def test_an_output_of_something_else_is_refused(
    step: Step, folder: Path, pairs: pl.DataFrame, tmp_path: Path, complete: Path,
    changed: dict[str, object], told: str,
) -> None:
    out = complete
    before = sorted(p.name for p in out.iterdir())
    if changed.get("version"):
        manifest = json.loads((out / "_manifest.json").read_text())
        (out / "_manifest.json").write_text(json.dumps(manifest | {"version": 99}))
        changed = {}
    if changed.get("input"):
        pairs.head(10).write_parquet(tmp_path / "other.parquet")
        changed = {"input": tmp_path / "other.parquet"}
    ended = step("score", **{"input": folder, "output": out} | changed)
    assert ended.code == 1
    assert told in ended.error
    assert "\n" not in ended.error
    assert sorted(p.name for p in out.iterdir()) == before


def refused(step: Step, store: Store, **parameters: object) -> str:
    ended = step("score", **parameters)
    assert ended.code == 1
    assert ended.error.startswith("error: score: ")
    assert "\n" not in ended.error
    assert "Traceback" not in ended.output
    assert store.runs("score")[0].info.status == "FAILED"
    assert store.runs("score")[0].data.tags["jobmatch.error"] in ended.error
    output = Path(str(parameters["output"]))
    assert not list(output.glob("*.parquet")) if output.is_dir() else True
    return ended.error


def test_bad_input_is_told_in_one_line(
    step: Step, store: Store, pairs: pl.DataFrame, tmp_path: Path
) -> None:
    some, out = pairs.head(5), tmp_path / "out"
    source = tmp_path / "in"
    source.mkdir()

    def line(table: pl.DataFrame | None) -> str:
        if table is not None:
            table.write_parquet(source / "a.parquet")
        return refused(step, store, input=source, output=out)

    assert "holds no *.parquet file" in line(None)
    assert "column 'cv_pt' is missing" in line(some.drop("cv_pt"))
    assert "column 'cv_pt' must hold texts, not int32" in line(some.with_columns(cv_pt=1))
    assert "column 'match' is what scoring adds" in line(some.with_columns(match=1.0))
    assert "holds no rows" in line(some.head(0))
    table = some.to_arrow()
    pq.write_table(table.append_column("codigo", table["numero"]), source / "a.parquet")
    assert "a.parquet: two columns are named 'codigo'" in line(None)
    pq.write_table(table.append_column("", table["numero"]), source / "a.parquet")
    assert "a.parquet: a column has no name" in line(None)
    latin = pa.array([b"S\xe3o Paulo"] * 5).view(pa.string())
    pq.write_table(table.set_column(table.schema.get_field_index("cv_pt"), "cv_pt", latin),
                   source / "a.parquet")
    assert "a.parquet: a text in rows 1 to 5 is not valid UTF-8" in line(None)
    shutil.rmtree(out)
    (source / "a.parquet").write_bytes(b"PAR1 not really")
    assert f"{source / 'a.parquet'}: cannot be read as Parquet" in line(None)
    some.write_parquet(source / "a.parquet")
    some.drop("codigo").write_parquet(source / "b.parquet")
    assert "b.parquet: its columns are not those of a.parquet" in line(None)
    assert "not found" in refused(step, store, input=tmp_path / "nowhere", output=out)
    assert not out.exists()


@pytest.mark.slow
def test_a_page_that_is_broken_ends_the_run_and_keeps_what_was_done(
    step: Step, store: Store, folder: Path, tmp_path: Path
) -> None:
    source, out = Path(shutil.copytree(folder, tmp_path / "in")), tmp_path / "out"
    last = sorted(source.iterdir())[-1]
    content = bytearray(last.read_bytes())
    content[100:5000] = os.urandom(4900)
    last.write_bytes(content)
    ended = step("score", input=source, output=out, part_rows=700)
    assert ended.code == 1
    assert f"{last}: cannot be read as Parquet" in ended.error
    assert len(list(out.glob("*.parquet"))) == 4
    assert not (out / "_SUCCESS").exists()


def test_an_output_that_cannot_be_written_is_told(
    step: Step, store: Store, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("here already")
    assert "cannot write" in refused(step, store, input=folder, output=tmp_path / "file")
    line = refused(step, store, input=folder, output=tmp_path / "file" / "below")
    assert "Not a directory" in line
    assert "holds other files (file)" in refused(step, store, input=folder, output=tmp_path)
    ended = step("score", input=folder, output=folder)
    assert "output must not be the input" in ended.error
    assert not (folder / "_lock").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("skipped: cannot mount a small disk here")
    yield disk
    # pytest may keep what it captures there
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_no_half_part(
    step: Step, folder: Path, small_disk: Path
) -> None:
    line = step("score", input=folder, output=small_disk / "out").error
    assert "No space left" in line or "no space left" in line.lower()
    assert "\n" not in line
    assert not list((small_disk / "out").glob("*.parquet"))


@pytest.mark.slow
def test_a_disk_too_full_for_the_chunks_under_way_is_told_and_left_empty(
    step: Step, folder: Path, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(small_disk))
    monkeypatch.setattr(tempfile, "tempdir", None)
    line = step("score", input=folder, output=tmp_path / "out").error
    assert str(small_disk) in line
    assert "No space left on device; the texts of the chunks under way are kept there" in line
    assert "\n" not in line
    assert not list((tmp_path / "out").glob("*.parquet"))
    assert not list(small_disk.iterdir())


def test_an_unknown_version_and_a_bad_parameter_are_told(
    step: Step, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert "has no version 99" in step("score", input=folder, output=out, version=99).error
    assert "parameter 'engine'" in step("score", input=folder, output=out, engine="dask").error
    assert "'output' is required" in step("score", input=folder).error
    for given in ({"input": "s3://bucket/x", "output": out}, {"input": folder, "output": "gs://b"}):
        assert "must be a path on a file system that this" in step("score", **given).error
    assert not out.exists()


# --- killed, and two at once


@pytest.fixture
def large(pairs: pl.DataFrame, tmp_path: Path) -> Path:
    """30,000 pairs in ten files: enough to be killed in the middle."""
    made = tmp_path / "large"
    made.mkdir()
    for i in range(10):
        pairs.with_columns(copy=pl.lit(i)).write_parquet(made / f"{i}.parquet", row_group_size=500)
    return made


def started(trained: Trained, **parameters: object) -> subprocess.Popen[str]:
    return trained.store.start(
        "-m", "steps.score", *arguments({k: str(v) for k, v in parameters.items()}))


def wait_for_parts(process: subprocess.Popen[str], output: Path, count: int) -> None:
    """`output`: the folder itself, or that of a ranking's parts."""
    deadline = time.monotonic() + 200
    while len(list(output.glob("part-*.parquet"))) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def ended_at_last() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=60)


KILLED = [pytest.param("local", 0, marks=pytest.mark.slow),
          pytest.param("local", 3, marks=pytest.mark.slow),
          pytest.param("spark", 0, marks=[pytest.mark.slow, needs_spark]),
          pytest.param("spark", 3, marks=[pytest.mark.slow, needs_spark])]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("engine", "top_k"), KILLED)
def test_after_sigkill_no_finished_part_is_made_again(
    engine: str, top_k: int, trained: Trained, step: Step, large: Path, tmp_path: Path,
    ended_at_last: list[subprocess.Popen[str]],
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    given = {"input": large, "engine": engine, "part_rows": 3000, "master": "local[2]",
             "top_k": top_k}
    parts = out / "_partial" if top_k else out
    process = started(trained, output=out, **given)
    ended_at_last.append(process)
    wait_for_parts(process, parts, 2)
    process.send_signal(signal.SIGSTOP)  # so that it is not through before it is killed
    second = step("score", output=out, **given)
    assert "being written by another process" in second.error
    process.kill()  # the process alone: what it started has to notice
    process.communicate(timeout=60)
    before = {p.name: p.stat().st_mtime_ns for p in parts.glob("*.parquet")}
    assert 2 <= len(before) < 10
    if not top_k:
        assert all(len(pl.read_parquet(p)) == 3000 for p in out.glob("*.parquet"))
    again = step("score", output=out, **given)
    assert again.code == 0, again.error
    assert f"{len(before)} of 10 parts are there already" in again.output
    assert trained.store.runs("score")[0].data.metrics["rows"] == 30_000 - 3000 * len(before)
    if not top_k:  # a ranking's parts are gone once they have been brought together
        after = {p.name: p.stat().st_mtime_ns for p in out.glob("*.parquet")}
        assert {name: after[name] for name in before} == before
    assert step("score", output=whole, **given | {"engine": "local"}).code == 0
    assert_same(read(out), read(whole))
    if top_k:
        for name in ("row", "vacancy", "rank"):
            assert read(out)[name].to_list() == read(whole)[name].to_list()
    assert {p.name for p in out.iterdir()} == {p.name for p in whole.iterdir()}
    assert not (out / "_scratch").exists()


KILLED_AT_THE_END = """
import os, shutil, signal, sys
from pathlib import Path
from steps.parts import open_parts
shutil.rmtree = lambda *_, **__: None
with open_parts(Path(sys.argv[1]), {}, 1) as out:
    shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    out.finish()
"""


def test_a_ranking_killed_while_it_tidies_up_is_complete(tmp_path: Path) -> None:
    schema = pa.schema([("vacancy", pa.string())])
    with open_parts(tmp_path / "out", {}, 1) as out:
        for partial in (True, False):
            with out.writer(0, schema, partial=partial) as writer:
                writer.write_table(pa.table({"vacancy": ["a"]}))
    killed = subprocess.run([sys.executable, "-c", KILLED_AT_THE_END, tmp_path / "out"],
                            cwd=PROJECT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "out" / "_partial").exists()
    with open_parts(tmp_path / "out", {}, 1) as out:
        assert out.complete
        assert not (tmp_path / "out" / "_partial").exists()


@pytest.mark.slow
def test_sigterm_ends_the_run_as_killed_and_every_process(
    trained: Trained, large: Path, tmp_path: Path, ended_at_last: list[subprocess.Popen[str]]
) -> None:
    process = started(trained, input=large, output=tmp_path / "out", part_rows=3000)
    ended_at_last.append(process)
    wait_for_parts(process, tmp_path / "out", 1)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert "Traceback" not in output
    assert trained.store.runs("score")[0].info.status == "KILLED"
    for _ in range(100):  # what multiprocessing tidies up with ends a moment later
        if not group_members(process.pid):
            return
        time.sleep(0.1)
    raise AssertionError("processes are left")


# --- Spark


def score_with_both(step: Step, here: Path, there: Path, **given: object) -> None:
    """Score into `here` on this machine and into `there` on Spark."""
    for options in ({"output": here}, {"output": there, "engine": "spark", "master": "local[2]"}):
        ended = step("score", **options, **given)
        assert ended.code == 0, ended.error


@pytest.mark.slow
@needs_spark
@pytest.mark.parametrize("top_k", [0, 3])
def test_spark_gives_the_same_rows_in_the_same_order(
    step: Step, folder: Path, tmp_path: Path, top_k: int
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    score_with_both(step, here, there, input=folder, top_k=top_k, part_rows=1400)
    found, wanted = read(there), read(here)
    assert found.schema == wanted.schema
    assert found["numero"].to_list() == wanted["numero"].to_list()
    if top_k:
        assert found.select("row", "vacancy", "rank").equals(
            wanted.select("row", "vacancy", "rank"))
    assert_same(found, wanted)


@pytest.fixture(scope="session")
def odd(pairs: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names and types of columns, and names of files, that mean something else to Spark, or
    nothing."""
    some = pairs.head(60).drop("titulo_vaga").to_arrow()
    columns = {
        **{name: some[name] for name in some.column_names}, "titulo_vaga": pa.nulls(60),
        **{name: pa.array(range(60)) for name in (
            "scores", "place", "Match", "Codigo", "CV_PT", "a", "a.b", "cv_pt.b", "`",
            "_metadata")},
        "when": pa.array([None, *range(59)], pa.timestamp("ns", "UTC")),
        "time": pa.array(range(60), pa.time64("ns")),
        "half": pa.array(np.arange(60, dtype=np.float16)), "nothing": pa.nulls(60),
        "sort": some["codigo"].combine_chunks().dictionary_encode(),
        "inner": pa.array([{"scores": [i], "Scores": i} for i in range(60)]),
    }  # fmt: skip
    made = tmp_path_factory.mktemp("odd")
    names = (".a", "_b", "[1]", "{a,b}", "*", "?", "a:b", "a=1", "%20 +", "\\")
    for i, name in enumerate(names):
        pq.write_table(pa.table(columns).slice(i * 6, 6 * (i != 4)), made / f"{name}.parquet")
    return made


@pytest.mark.slow
@needs_spark
@pytest.mark.parametrize("top_k", [0, 1])
def test_spark_takes_every_column_and_file_that_this_machine_takes(
    step: Step, odd: Path, tmp_path: Path, top_k: int
) -> None:
    here, there = tmp_path / "a:b [1] {c}*? here", tmp_path / "a:b [1] {c}*? there"
    score_with_both(step, here, there, input=odd, part_rows=30, top_k=top_k)
    wanted, found = (pa.concat_tables(pq.read_table(p) for p in sorted(out.glob("*.parquet")))
                     for out in (here, there))
    assert found.schema == wanted.schema
    carried = [name for name in wanted.column_names if name not in SCORES]
    assert found.select(carried).equals(wanted.select(carried))
    assert_same(pl.DataFrame(found.select(SCORES)), pl.DataFrame(wanted.select(SCORES)))


@pytest.mark.slow
@needs_spark
def test_a_spark_master_that_cannot_be_had_is_told(
    step: Step, folder: Path, tmp_path: Path
) -> None:
    ended = step("score", input=folder, output=tmp_path / "out", engine="spark",
                 master="local[nonsense]")
    assert ended.code == 1
    assert "Spark at local[nonsense] failed to start: SparkException. " in ended.error


@pytest.mark.slow
@needs_spark
def test_what_spark_fails_at_is_named_and_no_text_is(
    step: Step, folder: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(folder, tmp_path / "in"))
    last = sorted(source.iterdir())[-1]
    texts = pq.read_metadata(last).row_group(0).column(pq.read_schema(last).names.index("cv_pt"))
    with last.open("r+b") as file:
        file.seek(texts.dictionary_page_offset or texts.data_page_offset)
        file.write(bytes(3000))
    given = {"output": tmp_path / "out", "engine": "spark", "master": "local[2]"}
    ended = step("score", input=source, part_rows=700, **given)
    assert re.fullmatch(
        r"error: score: Spark at local\[2\] failed at part 4 \(pairs 4\.parquet\): "
        r"FAILED_READ_FILE\.NO_HINT \(\w+\)\. Finished parts are kept, and the same command goes "
        r"on from there", ended.error)
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 4


def test_missing_pyspark_or_java_is_told(
    step: Step, store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"input": folder, "output": tmp_path / "out", "engine": "spark"}
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyspark", None)
        assert "-r requirements-spark.txt" in refused(step, store, **given)
    if has_spark():
        monkeypatch.setenv("JAVA_HOME", str(tmp_path))
        assert "needs Java 17 or later" in refused(step, store, **given)
