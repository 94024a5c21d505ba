"""Bad input to `train`: one clear line, a FAILED run, nothing registered, no alias moved."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from steps.records import FILES
from tests.conftest import QUICK, SAMPLE, Ended, Store

Step = Callable[..., Ended]


@pytest.fixture
def store(store: Store) -> Store:
    """A store in which a version is live already."""
    client = store.client
    client.create_registered_model("jobmatch")
    client.create_model_version("jobmatch", str(store.folder))
    for alias in ("staging", "production"):
        client.set_registered_model_alias("jobmatch", alias, "1")
    return store


def assert_nothing_happened(store: Store) -> None:
    assert store.versions() == [1]
    assert store.aliases() == {"staging": 1, "production": 1}
    by_name = {run.info.run_name: run.info.status for run in store.runs()}
    assert "RUNNING" not in by_name.values()


@pytest.fixture
def refused(store: Store, step: Step) -> Callable[..., str]:
    """Trains, expects a refusal and returns its line."""

    def train(data: Path, **changed: str) -> str:
        ended = step("train", data_dir=data, **QUICK | changed)
        assert ended.code == 1
        assert ended.error.startswith("error: ")
        assert "\n" not in ended.error
        assert "Traceback" not in ended.output
        assert_nothing_happened(store)
        runs = store.runs("train")
        assert [run.info.status for run in runs] in ([], ["FAILED"])
        for run in runs:
            assert run.data.tags["jobmatch.error"] == ended.error.removeprefix("error: ")
        return ended.error

    return train


Refused = Callable[..., str]
Records = dict[str, Any]


def change(data: Path, name: str, how: Callable[[Records], Any]) -> Path:
    """Change the records of one of the files; returns its path."""
    path = data / name
    records = json.loads(path.read_text(encoding="utf-8"))
    changed = how(records)
    path.write_text(json.dumps(records if changed is None else changed), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(refused: Refused, data: Path, name: str) -> None:
    (data / name).unlink()
    line = refused(data)
    assert f"{data / name}: file not found" in line
    assert all(other in line for other in FILES)


def test_missing_folder_is_named_before_anything_is_read(
    refused: Refused, store: Store, data: Path
) -> None:
    assert f"{data / 'nowhere' / 'vagas.json'}: file not found" in refused(data / "nowhere")


def test_data_dir_that_is_a_file_is_named(refused: Refused, data: Path) -> None:
    assert "vagas.json: file not found" in refused(data / "vagas.json")


@pytest.mark.parametrize("name", FILES)
def test_broken_json_is_told_with_line_and_column(refused: Refused, data: Path, name: str) -> None:
    path = data / name
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[3] = lines[3][:20] + "\x01" + lines[3][20:]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert f"{path}: broken JSON at line 4, column " in refused(data)


@pytest.mark.parametrize("name", FILES)
def test_truncated_file_is_broken_json(refused: Refused, data: Path, name: str) -> None:
    content = (data / name).read_bytes()
    (data / name).write_bytes(content[: len(content) // 2])
    line = refused(data)
    assert str(data / name) in line
    assert ", column " in line


@pytest.mark.parametrize("name", FILES)
def test_wrong_top_level_type_is_told(refused: Refused, data: Path, name: str) -> None:
    path = change(data, name, lambda records: list(records.values()))
    assert f"{path}: must be one JSON object keyed by code" in refused(data)


@pytest.mark.parametrize(("name", "way"), [
    ("vagas.json", ("informacoes_basicas", "titulo_vaga")), ("vagas.json", ("perfil_vaga",)),
    ("applicants.json", ("cv_pt",)), ("prospects.json", ("prospects",)),
])  # fmt: skip
def test_missing_required_field_names_file_and_record(
    refused: Refused, data: Path, name: str, way: tuple[str, ...]
) -> None:
    codes = []

    def drop(records: Records) -> None:
        code, record = list(records.items())[5]
        codes.append(code)
        for part in way[:-1]:
            record = record[part]
        del record[way[-1]]

    path = change(data, name, drop)
    line = refused(data)
    assert f"{path}: record '{codes[0]}': Object missing required field `{way[-1]}`" in line


def test_prospect_without_a_code_names_its_place(refused: Refused, data: Path) -> None:
    def drop(records: Records) -> None:
        listed = next(one["prospects"] for one in records.values() if len(one["prospects"]) > 1)
        del listed[1]["codigo"]

    change(data, "prospects.json", drop)
    assert "field `codigo` - at `$.prospects[1]`" in refused(data)


def test_swapped_files_are_told(refused: Refused, data: Path) -> None:
    (data / "vagas.json").write_bytes((data / "applicants.json").read_bytes())
    assert "vagas.json: record '" in refused(data)


@pytest.mark.parametrize("name", FILES)
def test_files_that_do_not_join_are_told(refused: Refused, data: Path, name: str) -> None:
    def renumber(records: Records) -> Records:
        return {f"other-{code}": record for code, record in records.items()}

    change(data, name, renumber)
    assert "prospects.json: no prospect joins to both a vacancy" in refused(data)


@pytest.mark.parametrize("name", FILES)
def test_file_without_records_is_told(refused: Refused, data: Path, name: str) -> None:
    change(data, name, lambda _: {})
    assert "no prospect joins" in refused(data)


@pytest.mark.parametrize(("outcome", "only"), [
    ("Prospect", "not hired or undecided"), ("Recusado", "not hired or undecided"),
    ("Aprovado", "hired"),
])  # fmt: skip
def test_one_class_only_is_told(refused: Refused, data: Path, outcome: str, only: str) -> None:
    def same(records: Records) -> None:
        for one in records.values():
            for row in one["prospects"]:
                row["situacao_candidado"] = outcome

    change(data, "prospects.json", same)
    line = refused(data)
    assert f"every outcome is {only}" in line
    assert str(data / "prospects.json") in line


def test_dates_that_are_all_impossible_are_told(refused: Refused, data: Path) -> None:
    def undate(records: Records) -> None:
        for record in records.values():
            record["informacoes_basicas"]["data_requicisao"] = "0000-00-00"

    change(data, "vagas.json", undate)
    assert "valid data_requicisao" in refused(data)


def test_texts_that_are_all_empty_are_told(refused: Refused, data: Path) -> None:
    def blank(records: Records) -> None:
        for record in records.values():
            record["cv_pt"] = " "

    change(data, "applicants.json", blank)
    assert "applicants.json" in refused(data)


def test_fewer_vacancies_than_folds_is_told(refused: Refused, small_data: Path) -> None:
    line = refused(small_data, grid_search_cv="50")
    assert "fewer than the 50 folds; lower grid_search_cv or give more data" in line


def test_terms_that_all_fall_away_are_told(refused: Refused, small_data: Path) -> None:
    assert "no term is left; lower min_df" in refused(small_data, min_df="100000")


def test_terms_that_fall_away_from_the_cvs_alone_are_told(refused: Refused) -> None:
    assert "no term is left; lower min_df" in refused(SAMPLE, min_df="300")


@pytest.mark.parametrize(("name", "value"), [
    ("test_size", "1.5"), ("grid_search_cv", "1"), ("grid_search_c_values", "0"),
    ("tfidf_max", "3"), ("grid_search_scoring", "best"), ("cv", ""),
])  # fmt: skip
def test_unknown_parameter_or_value_out_of_range_is_named(
    refused: Refused, store: Store, small_data: Path, name: str, value: str
) -> None:
    assert repr(name) in refused(small_data, **{name: value})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_file_that_may_not_be_read_is_named(refused: Refused, data: Path) -> None:
    (data / "vagas.json").chmod(0)
    assert "vagas.json" in refused(data)


def test_no_text_of_the_records_is_in_the_line(refused: Refused, data: Path) -> None:
    def spoil(records: Records) -> None:
        record = next(iter(records.values()))
        record["cv_pt"] = {"segredo": "fulano de tal"}

    change(data, "applicants.json", spoil)
    assert "fulano" not in refused(data)


def test_faulty_rows_are_counted_and_do_not_stop_the_run(
    store: Store, step: Step, data: Path
) -> None:
    """An unknown outcome, impossible dates, empty texts, a duplicate pair, an unknown candidate."""
    for alias in ("staging", "production"):
        store.client.delete_registered_model_alias("jobmatch", alias)

    def spoil_prospects(records: Records) -> None:
        listed = [one["prospects"] for one in records.values() if one["prospects"]]
        listed[0][0]["situacao_candidado"] = "Em órbita"
        listed[1].append(dict(listed[1][0]))
        listed[2][0]["data_candidatura"] = "32-01-2021"
        listed[3].append(listed[3][0] | {"codigo": "ninguém"})

    def spoil_vacancies(records: Records) -> None:
        first, second, *_ = records.values()
        first["informacoes_basicas"] |= {"data_requicisao": "0000-00-00", "titulo_vaga": ""}
        for record in (first, second):
            record["perfil_vaga"] |= {
                "principais_atividades": "", "competencia_tecnicas_e_comportamentais": ""}

    def spoil_candidates(records: Records) -> None:
        list(records.values())[7]["cv_pt"] = ""

    change(data, "prospects.json", spoil_prospects)
    change(data, "vagas.json", spoil_vacancies)
    change(data, "applicants.json", spoil_candidates)
    ended = step("train", data_dir=data, **QUICK | {"grid_search_cv": "2"})
    assert ended.code == 0, ended.error
    run = store.runs("ingest")[0]
    report = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/data_quality.json")
    assert report["unknown outcomes"] == {"Em órbita": 1}
    assert "'Em órbita': 1" in ended.output
    faults = report["faults"]
    assert faults["vacancies without any text"] == 1
    assert all(faults[kind] > 0 for kind in (
        "vacancies with an impossible date", "candidates with an empty CV", "duplicate prospects",
        "prospects of an unknown candidate", "prospects with an impossible date"))  # fmt: skip
    assert store.versions() == [1, 2]


@pytest.mark.parametrize("parameters", [
    {"data_dir": "nowhere"}, {"colour": "red"}])  # fmt: skip
def test_mlflow_run_says_one_line_and_leaves_the_run_failed(
    store: Store, parameters: dict[str, str]
) -> None:
    ended = store.mlflow_run("train", **parameters)
    assert ended.returncode != 0
    assert len([line for line in ended.stdout.splitlines() if line.startswith("error: ")]) == 1
    assert "steps/" not in ended.stdout  # no traceback of the step
    assert_nothing_happened(store)
    assert {run.info.status for run in store.runs()} == {"FAILED"}
    outer = store.runs()[-1]
    assert next(iter(parameters)).replace("data_dir", "vagas.json") in (
        outer.data.tags["jobmatch.error"])  # fmt: skip
