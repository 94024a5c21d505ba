"""Results are reused where nothing that they were made from has changed, and never else."""

import re
import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

from steps import featurize, ingest, reuse
from steps.featurize import FeaturizeParameters
from steps.ingest import IngestParameters
from steps.parameters import parse
from tests.conftest import PROJECT, QUICK, Ended, Store, arguments, copy_project

FEATURES = {name: QUICK[name] for name in FeaturizeParameters.model_fields if name in QUICK}
Step = Callable[..., Ended]


def digests(data: Path, **changed: str) -> tuple[str, str]:
    """Of the results of ingest and of featurize."""
    given = arguments({"data_dir": str(data), **changed})
    parameters = parse(FeaturizeParameters, "featurize", given)
    mine = IngestParameters(data_dir=data)
    return ingest.result_digest(mine), featurize.result_digest(parameters)


@pytest.fixture
def copied_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, whose sources the digests are then made from."""
    copy = copy_project(tmp_path / "project")
    monkeypatch.setattr(reuse, "PROJECT", copy)
    return copy


@pytest.mark.parametrize("name", ["vagas.json", "applicants.json", "prospects.json"])
def test_a_changed_byte_changes_every_digest(data: Path, name: str) -> None:
    before = digests(data)
    content = (data / name).read_bytes()
    (data / name).write_bytes(content + b"\n")
    after = digests(data)
    assert all(a != b for a, b in zip(before, after, strict=True))
    (data / name).write_bytes(content)
    assert digests(data) == before


class DayAfter(date):
    """The calendar one day on."""

    @classmethod
    def today(cls) -> date:
        return date.today() + timedelta(days=1)


@pytest.mark.parametrize("name", ["vagas.json", "prospects.json"])
def test_a_date_to_come_changes_every_digest_once_its_day_is_there(
    data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tomorrow = f"{date.today() + timedelta(days=1):%d-%m-%Y}"
    field = {"vagas.json": "data_requicisao", "prospects.json": "data_candidatura"}[name]
    content = (data / name).read_text(encoding="utf-8")
    changed, n = re.subn(rf'("{field}"\s*:\s*")[^"]*"', rf'\g<1> {tomorrow}"', content, count=1)
    assert n == 1
    (data / name).write_text(changed, encoding="utf-8")
    before = digests(data)
    assert digests(data) == before
    monkeypatch.setattr(ingest, "date", DayAfter)
    assert all(a != b for a, b in zip(before, digests(data), strict=True))


def test_files_of_the_past_are_not_read_again_every_day(
    small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(small_data)
    monkeypatch.setattr(ingest, "date", DayAfter)
    assert digests(small_data) == before


def test_where_the_files_lie_does_not_matter(data: Path, small_data: Path) -> None:
    assert digests(data) == digests(small_data)


@pytest.mark.parametrize(("name", "value"), [
    ("test_size", "0.3"), ("random_state", "7"), ("max_df", "0.9500001"), ("min_df", "3"),
    ("tfidf_job_description_max_features", "999"), ("tfidf_candidate_cv_ngram_range", "1,1"),
    ("vocabulary_max_features", "49999"), ("latent_dimensions", "63"),
])  # fmt: skip
def test_a_changed_parameter_changes_the_digest_of_the_step_that_takes_it(
    small_data: Path, name: str, value: str
) -> None:
    (ingested, featurized), (ingested_, featurized_) = (
        digests(small_data), digests(small_data, **{name: value}))  # fmt: skip
    assert ingested == ingested_
    assert featurized != featurized_


@pytest.mark.parametrize("source", [
    "steps/ingest.py", "steps/records.py", "steps/redaction.py", "requirements.txt"])  # fmt: skip
def test_a_changed_line_of_ingest_changes_every_digest(
    copied_project: Path, small_data: Path, source: str
) -> None:
    before = digests(small_data)
    with (copied_project / source).open("a", encoding="utf-8") as file:
        file.write("# another comment\n")
    assert all(a != b for a, b in zip(before, digests(small_data), strict=True))


@pytest.mark.parametrize("source", [
    "steps/featurize.py", "steps/tokens.py", "steps/features.py", "jobmatch_pyfunc/text.py",
    "jobmatch_pyfunc/scoring.py"])  # fmt: skip
def test_a_changed_line_of_featurize_leaves_ingest_alone(
    copied_project: Path, small_data: Path, source: str
) -> None:
    before = digests(small_data)
    with (copied_project / source).open("a", encoding="utf-8") as file:
        file.write("# another comment\n")
    after = digests(small_data)
    assert before[0] == after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize("source", ["steps/train.py", "steps/fitting.py", "steps/plots.py"])
def test_a_changed_line_of_train_leaves_the_earlier_steps_alone(
    copied_project: Path, small_data: Path, source: str
) -> None:
    before = digests(small_data)
    with (copied_project / source).open("a", encoding="utf-8") as file:
        file.write("# another comment\n")
    assert digests(small_data) == before


def test_a_step_imports_no_module_that_its_digest_does_not_know() -> None:
    known = {path.relative_to(PROJECT).as_posix() for path in reuse.source_files("steps.train")}
    assert {"steps/ingest.py", "steps/featurize.py", "jobmatch_pyfunc/text.py"} <= known


def test_featurize_reuses_what_ingest_made(store: Store, step: Step, small_data: Path) -> None:
    assert step("ingest", data_dir=small_data).code == 0
    ended = step("featurize", data_dir=small_data, **FEATURES)
    assert ended.code == 0, ended.error
    made = store.runs("ingest")
    assert len(made) == 1
    assert f"ingest: reused from run {made[0].info.run_id}" in ended.output
    run = store.runs("featurize")[0]
    assert run.data.tags["jobmatch.reused.ingest"] == made[0].info.run_id


def test_a_changed_file_is_read_again(store: Store, step: Step, data: Path) -> None:
    assert step("ingest", data_dir=data).code == 0
    with (data / "vagas.json").open("ab") as file:
        file.write(b"\n")
    assert step("featurize", data_dir=data, **FEATURES).code == 0
    assert len(store.runs("ingest")) == 2


def test_a_file_that_changes_while_it_is_read_stops_the_run(
    store: Store, step: Step, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ingest.read

    def read_and_change(path: Path, record: type) -> dict:
        found = read(path, record)
        with path.open("ab") as file:
            file.write(b"\n")
        return found

    monkeypatch.setattr(ingest, "read", read_and_change)
    ended = step("ingest", data_dir=data)
    assert ended.error == f"error: {data}: a file changed while it was read; run again"
    assert [run.info.status for run in store.runs()] == ["FAILED"]


def test_a_file_replaced_between_featurize_and_its_ingest_stops_the_run(
    store: Store, step: Step, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features of the new files must not be found under the digest of the old ones."""
    tables = ingest.tables

    def replace_and_read(parameters: IngestParameters) -> ingest.Tables:
        with (data / "vagas.json").open("ab") as file:
            file.write(b"\n")
        return tables(parameters)

    monkeypatch.setattr(ingest, "tables", replace_and_read)
    ended = step("featurize", data_dir=data, **FEATURES)
    assert ended.error == f"error: {data}: a file changed while it was read; run again"
    assert {run.info.run_name: run.info.status for run in store.runs()} == {
        "featurize": "FAILED", "ingest": "FINISHED"}  # fmt: skip


def test_an_unfinished_or_failed_result_is_not_reused(
    store: Store, step: Step, small_data: Path
) -> None:
    assert step("ingest", data_dir=small_data).code == 0
    store.client.set_terminated(store.runs("ingest")[0].info.run_id, "FAILED")
    assert step("featurize", data_dir=small_data, **FEATURES).code == 0
    assert len(store.runs("ingest")) == 2


@pytest.mark.parametrize("lost", ["candidates.parquet", None])
def test_a_result_whose_artifacts_are_gone_is_made_again(
    store: Store, step: Step, small_data: Path, lost: str | None
) -> None:
    assert step("ingest", data_dir=small_data).code == 0
    folder = Path(store.runs("ingest")[0].info.artifact_uri.removeprefix("file://"))
    if lost:
        (folder / lost).unlink()
    else:
        shutil.rmtree(folder)
    ended = step("featurize", data_dir=small_data, **FEATURES)
    assert ended.code == 0, ended.error
    assert len(store.runs("ingest")) == 2


def test_a_copied_project_with_an_edited_comment_reads_again(
    store: Store, step: Step, small_data: Path, tmp_path: Path
) -> None:
    """The same in a process of its own, as a user meets it."""
    assert step("ingest", data_dir=small_data).code == 0
    copy = copy_project(tmp_path / "project")
    source = copy / "steps" / "ingest.py"
    source.write_text(source.read_text(encoding="utf-8").replace("# say so", "# tell so"),
                      encoding="utf-8")  # fmt: skip
    ended = store.run("-m", "steps.ingest", "--data_dir", str(small_data), cwd=copy)
    assert ended.returncode == 0, ended.stdout
    tags = [run.data.tags["jobmatch.digest"] for run in store.runs("ingest")]
    assert len(set(tags)) == 2
