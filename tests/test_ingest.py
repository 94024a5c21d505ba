"""The three files become three tables, and nothing else of them leaves the step."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import mlflow
import polars as pl
import pytest

from steps.ingest import (
    TABLES,
    IngestParameters,
    candidates_table,
    log_inputs,
    pairs_table,
    vacancies_table,
)
from steps.records import HIRED, NOT_HIRED, UNDECIDED, Candidate, ProspectList, Vacancy, read
from tests.conftest import Store


def vacancy(title: str = "Analista SAP", day: str = "04-05-2021", **texts: Any) -> dict[str, Any]:
    body = {"principais_atividades": "apoiar", "competencia_tecnicas_e_comportamentais": "sap"}
    return {
        "informacoes_basicas": {"data_requicisao": day, "titulo_vaga": title},
        "perfil_vaga": body | texts,
    }


def candidate(cv: str | None = "sap", name: str = "") -> dict[str, Any]:
    return {"infos_basicas": {"nome": name}, "cv_pt": cv}


def prospect(code: str | int, outcome: str | None, day: str = "05-05-2021") -> dict[str, Any]:
    return {"codigo": code, "situacao_candidado": outcome, "data_candidatura": day}


def records(folder: Path, record: type, content: dict[str, Any]) -> dict[str, Any]:
    path = folder / f"{record.__name__}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return read(path, record)


def vacancies(folder: Path, **content: Any) -> tuple[pl.DataFrame, dict[str, int]]:
    return vacancies_table(records(folder, Vacancy, content))


def candidates(folder: Path, **content: Any) -> tuple[pl.DataFrame, dict[str, int]]:
    return candidates_table([records(folder, Candidate, content)])


def pairs(
    folder: Path, *rows: dict[str, Any], code: str = "v"
) -> tuple[pl.DataFrame, dict[str, int], dict[str, int]]:
    known, _ = vacancies(folder, v=vacancy(), w=vacancy())
    people, _ = candidates(folder, a=candidate(), b=candidate())
    lists = {code: {"prospects": list(rows)}, "w": {"prospects": []}}
    listed = records(folder, ProspectList, lists)
    return pairs_table(listed, known, people)


@pytest.mark.parametrize("day", [
    "0000-00-00", "00-00-0000", "31-02-2021", "2021-05-04", "04/05/2021", "", "amanhã",
    "04-05-1850", "04-05-9999",
])  # fmt: skip
def test_impossible_date_is_null_and_counted(tmp_path: Path, day: str) -> None:
    table, faults = vacancies(tmp_path, v=vacancy(day=day), w=vacancy(day=" 04-05-2021 "))
    assert table["data_requicisao"].to_list() == [None, date(2021, 5, 4)]
    assert faults["vacancies with an impossible date"] == 1


def test_empty_and_broken_vacancy_texts_are_counted(tmp_path: Path) -> None:
    nothing = {"principais_atividades": None, "competencia_tecnicas_e_comportamentais": " \n"}
    table, faults = vacancies(
        tmp_path, v=vacancy("", **nothing), w=vacancy("gest\ufffdo"), x=vacancy())  # fmt: skip
    assert faults["vacancies without any text"] == 1
    assert faults["vacancies with broken characters (U+FFFD)"] == 1
    assert table.null_count().select("titulo_vaga", "principais_atividades").row(0) == (0, 0)


def test_empty_and_shared_cvs_are_counted(tmp_path: Path) -> None:
    _, faults = candidates(tmp_path, a=candidate(None), b=candidate(" \n"), c=candidate("java"),
                           d=candidate("java"), e=candidate("sql"))  # fmt: skip
    assert faults == {
        "candidates with an empty CV": 2, "candidates who share a CV with another": 1,
    }  # fmt: skip


def test_own_name_and_contact_details_leave_the_texts(tmp_path: Path) -> None:
    people, _ = candidates(
        tmp_path, a=candidate("JOAO DA SILVA, joao@x.com.br, sap fi", "João da Silva"))  # fmt: skip
    assert people["cv_pt"][0].split() == [",", ",", "sap", "fi"]
    jobs, _ = vacancies(tmp_path, v=vacancy("Analista", principais_atividades="fale: a@b.com"))
    assert jobs["principais_atividades"][0] == "fale:  "


@pytest.mark.parametrize(("written", "outcome"), [
    ("Contratado pela Decision", HIRED), ("contratado  pela decision ", HIRED),
    ("Não Aprovado pelo Cliente", NOT_HIRED), ("Desistiu da Contratação", NOT_HIRED),
    ("Encaminhado ao Requisitante", UNDECIDED), ("Contratado talvez", None), (None, None),
    ("", None),
])  # fmt: skip
def test_outcome_is_mapped(tmp_path: Path, written: str | None, outcome: str | None) -> None:
    table, faults, unknown = pairs(tmp_path, prospect("a", written))
    assert table["outcome"].to_list() == [outcome]
    assert faults["prospects with an unknown outcome"] == (outcome is None)
    assert bool(unknown) == (outcome is None)


def test_unknown_outcomes_are_named_cut_and_few(tmp_path: Path) -> None:
    rows = [prospect("a", f"estado {i}" + "!" * 100) for i in range(50)]
    _, faults, unknown = pairs(tmp_path, *rows, prospect("b", "Talvez"), prospect("a", "Talvez"))
    assert unknown["Talvez"] == 2
    assert len(unknown) == 20
    assert max(map(len, unknown)) == 60
    assert faults["prospects with an unknown outcome"] == 52


def test_unknown_outcomes_are_named_without_contact_details(tmp_path: Path) -> None:
    _, _, unknown = pairs(tmp_path, prospect("a", "Retornar: 11 99999-8888, ana@exemplo.com"),
                          prospect("b", "Retornar: 11 99999-7777, bia@exemplo.com"))
    assert unknown == {"Retornar:  ,  ": 2}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_duplicate_pair_keeps_its_most_decided_outcome(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    rows = [prospect("a", "Prospect"), prospect("a", "Recusado"), prospect("a", "Aprovado")]
    table, faults, _ = pairs(tmp_path, *(rows[i] for i in order))
    assert table["outcome"].to_list() == [HIRED]
    assert faults["duplicate prospects"] == 2


def test_unknown_vacancy_falls_away_and_unknown_candidate_stays(tmp_path: Path) -> None:
    table, faults, _ = pairs(tmp_path, prospect("nobody", "Prospect"), prospect("a", "Prospect"))
    assert table["candidato"].to_list() == ["nobody", "a"]
    assert faults["prospects of an unknown candidate"] == 1
    table, faults, _ = pairs(tmp_path, prospect("a", "Prospect"), code="gone")
    assert table.is_empty()
    assert faults["prospects of an unknown vacancy"] == 1


@pytest.mark.parametrize(("day", "impossible"), [
    ("05-05-2021", 0), (None, 0), ("", 0), (" ", 0), ("0000-00-00", 1), ("31-02-2021", 1),
])  # fmt: skip
def test_a_date_that_may_be_missing_is_impossible_only_where_it_is_written(
    tmp_path: Path, day: str | None, impossible: int
) -> None:
    row = prospect("a", "Prospect") | {"data_candidatura": day}
    undated = prospect("b", "Prospect")
    del undated["data_candidatura"]
    table, faults, _ = pairs(tmp_path, row, undated)
    assert faults["prospects with an impossible date"] == impossible
    assert table["data_candidatura"].null_count() == (1 if day == "05-05-2021" else 2)


def test_code_may_be_a_number(tmp_path: Path) -> None:
    table, _, _ = pairs(tmp_path, prospect(31000, "Prospect"))
    assert table["candidato"].to_list() == ["31000"]


def test_tables_hold_their_columns_only(store: Store, step: Any, small_data: Path) -> None:
    assert step("ingest", data_dir=small_data).code == 0
    folder = Path(mlflow.artifacts.download_artifacts(run_id=store.runs()[0].info.run_id))
    assert {name: pl.read_parquet(folder / f"{name}.parquet").columns for name in TABLES} == {
        "vacancies": ["codigo", "data_requicisao", "titulo_vaga", "principais_atividades",
                      "competencia_tecnicas_e_comportamentais"],
        "candidates": ["codigo", "cv_pt"],
        "pairs": ["vaga", "candidato", "outcome", "data_candidatura"],
    }  # fmt: skip
    assert {path.name for path in folder.iterdir()} == {
        "data_quality.json", *(f"{name}.parquet" for name in TABLES)
    }


def test_personal_data_reaches_no_table_artifact_or_log(
    store: Store, step: Any, small_data: Path
) -> None:
    ended = step("ingest", data_dir=small_data)
    people = json.loads((small_data / "applicants.json").read_text(encoding="utf-8"))
    listed = json.loads((small_data / "prospects.json").read_text(encoding="utf-8"))
    secrets = {
        value.strip().lower()
        for person in people.values()
        for part, names in {
            "infos_basicas": ("nome", "email", "telefone"),
            "informacoes_pessoais": ("nome", "cpf", "data_nascimento", "endereco", "email",
                                     "email_secundario", "telefone_celular"),
        }.items()
        for value in (person.get(part, {}).get(name, "") for name in names)
    } | {
        row.get(name, "").strip().lower()
        for one in listed.values() for row in one["prospects"]
        for name in ("nome", "recrutador", "comentario")
    }  # fmt: skip
    secrets = {secret for secret in secrets if len(secret) > 7}
    assert len(secrets) > 80
    run = store.runs()[0]
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id))
    seen = [ended.output, str(run.to_dictionary()), (folder / "data_quality.json").read_text()]
    for name in TABLES:
        seen += [str(row) for row in pl.read_parquet(folder / f"{name}.parquet").iter_rows()]
    everything = "\n".join(seen).lower()
    assert [secret for secret in secrets if secret in everything] == []


def test_tables_are_logged_as_dataset_inputs_with_their_digests(
    store: Store, step: Any, small_data: Path
) -> None:
    assert step("ingest", data_dir=small_data).code == 0
    assert step("ingest", data_dir=small_data).code == 0
    first, second = (
        {one.dataset.name: one.dataset.digest for one in run.inputs.dataset_inputs}
        for run in store.runs()
    )
    assert set(first) == set(TABLES)
    assert first == second


def logged_inputs(run_id: str) -> dict[str, tuple[str, str, str]]:
    """Name → digest, rows and columns, context."""
    return {
        one.dataset.name: (one.dataset.digest, one.dataset.profile, one.tags[0].value)
        for one in mlflow.get_run(run_id).inputs.dataset_inputs
    }


def test_dataset_inputs_tell_the_size_of_the_tables(
    store: Store, step: Any, small_data: Path
) -> None:
    assert step("ingest", data_dir=small_data).code == 0
    run = store.runs()[0]
    rows = {
        name: json.loads(profile)["num_rows"]
        for name, (_, profile, _) in logged_inputs(run.info.run_id).items()
    }
    assert rows == {name: run.data.metrics[f"rows_{name}"] for name in TABLES}
    assert min(rows.values()) > 50


def test_another_run_gets_the_same_dataset_inputs(
    store: Store, step: Any, small_data: Path
) -> None:
    assert step("ingest", data_dir=small_data).code == 0
    parameters = IngestParameters(data_dir=small_data)
    with mlflow.start_run() as run:
        log_inputs(parameters, "train")
    made, mine = logged_inputs(store.runs("ingest")[0].info.run_id), logged_inputs(run.info.run_id)
    assert set(mine) == set(TABLES)
    assert mine == {name: (*one[:2], "train") for name, one in made.items()}


def test_dataset_inputs_of_a_deleted_run_are_left_out(
    store: Store, step: Any, small_data: Path
) -> None:
    assert step("ingest", data_dir=small_data).code == 0
    store.client.delete_run(store.runs("ingest")[0].info.run_id)
    with mlflow.start_run() as run:
        log_inputs(IngestParameters(data_dir=small_data), "train")
    assert logged_inputs(run.info.run_id) == {}


def test_quality_report_counts_faults_by_kind_and_names_unknown_outcomes(
    store: Store, step: Any, data: Path
) -> None:
    path = data / "prospects.json"
    listed = json.loads(path.read_text(encoding="utf-8"))
    rows = next(one["prospects"] for one in listed.values() if len(one["prospects"]) > 2)
    rows[0]["situacao_candidado"] = "Em análise pela lua"
    rows[1]["data_candidatura"] = "31-02-2021"
    path.write_text(json.dumps(listed), encoding="utf-8")
    ended = step("ingest", data_dir=data)
    assert ended.code == 0, ended.error
    assert "unknown outcome 'Em análise pela lua': 1" in ended.output
    report = mlflow.artifacts.load_dict(f"{store.runs()[0].info.artifact_uri}/data_quality.json")
    assert report["unknown outcomes"] == {"Em análise pela lua": 1}
    assert report["faults"]["prospects with an unknown outcome"] == 1
    assert report["faults"]["prospects with an impossible date"] >= 1
    assert set(report["faults"]) >= {
        "vacancies with an impossible date", "vacancies without any text",
        "candidates with an empty CV", "duplicate prospects", "prospects of an unknown candidate",
        "prospects of an unknown vacancy",
    }  # fmt: skip
    assert report["rows"]["vacancies"] == 60
