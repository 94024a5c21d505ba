"""Reading the three files: what is decoded, and what a wrong file is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from steps.failure import StepError
from steps.ingest import candidates_table
from steps.records import (
    FILES,
    HIRED,
    NOT_HIRED,
    OUTCOMES,
    UNDECIDED,
    Candidate,
    Vacancy,
    batches,
    read,
)

VACANCY: dict[str, Any] = {
    "informacoes_basicas": {"data_requicisao": "04-05-2021", "titulo_vaga": "Analista SAP"},
    "perfil_vaga": {
        "principais_atividades": "Apoiar usuários",
        "competencia_tecnicas_e_comportamentais": "SAP FI",
    },
}


def vacancies(folder: Path, content: object) -> Path:
    path = folder / "vagas.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def message(path: Path) -> str:
    with pytest.raises(StepError) as caught:
        read(path, Vacancy)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def test_records_are_decoded_by_code_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = read(vacancies(tmp_path, {"9": VACANCY, "10": VACANCY}), Vacancy)
    assert list(found) == ["9", "10"]
    assert found["9"].perfil_vaga.competencia_tecnicas_e_comportamentais == "SAP FI"


def test_unknown_fields_are_tolerated(tmp_path: Path) -> None:
    more = VACANCY | {"beneficios": {"valor_venda": "-"}, "novo": [1, None, {"a": 2}]}
    assert read(vacancies(tmp_path, {"9": more}), Vacancy)


def test_null_texts_are_tolerated(tmp_path: Path) -> None:
    null = VACANCY | {"perfil_vaga": dict.fromkeys(VACANCY["perfil_vaga"])}
    assert read(vacancies(tmp_path, {"9": null}), Vacancy)["9"].perfil_vaga


def test_byte_order_mark_is_tolerated(tmp_path: Path) -> None:
    assert read(vacancies(tmp_path, b"\xef\xbb\xbf" + json.dumps({"9": VACANCY}).encode()), Vacancy)


def test_personal_fields_never_become_objects(tmp_path: Path) -> None:
    path = tmp_path / "applicants.json"
    path.write_text(json.dumps({"7": {
        "infos_basicas": {"nome": "Ana Lima", "email": "ana@x.br", "telefone": "11 91234-5678"},
        "informacoes_pessoais": {"cpf": "123.456.789-09", "sexo": "Feminino"},
        "cv_pt": "SAP",
    }}), encoding="utf-8")  # fmt: skip
    found = read(path, Candidate)["7"]
    assert found.__struct_fields__ == ("cv_pt", "infos_basicas")
    assert found.infos_basicas
    assert found.infos_basicas.__struct_fields__ == ("nome",)


@pytest.mark.parametrize("basics", [
    {}, {"infos_basicas": None}, {"infos_basicas": {}}, {"infos_basicas": {"nome": None}},
])  # fmt: skip
def test_candidate_without_a_name_is_tolerated(tmp_path: Path, basics: dict[str, Any]) -> None:
    path = tmp_path / "applicants.json"
    path.write_text(json.dumps({"7": {"cv_pt": "SAP", **basics}}), encoding="utf-8")
    table, _ = candidates_table([read(path, Candidate)])
    assert table["cv_pt"].to_list() == ["SAP"]


def test_missing_file_is_named_with_what_the_folder_must_hold(tmp_path: Path) -> None:
    text = message(tmp_path / "vagas.json")
    assert "not found" in text
    assert all(name in text for name in FILES)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"   ", "broken JSON at line 1, column 4"),
        (b'{\n "1": {"a": tru}}', "broken JSON at line 2, column 14 (invalid character)"),
        (b'{"1": {}', "broken JSON at line 1, column 9"),
        (b'{"1" 3}', "broken JSON at line 1, column 6 (expected ':')"),
        (b'{"1": NaN}', "broken JSON at line 1, column 7"),
        (b"{} x", "(trailing characters)"),
        (b'{"1": {"x": "\\ud800"}}', "broken JSON at line 1, column "),
        (b"\x00", "broken JSON at line 1, column 1"),
        (b'{\n"9": {"informacoes_basicas": {"titulo_vaga": "gest\xe3o"',
         "not valid UTF-8 at line 2, column 51"),
        (b'{"a":' * 5000, "nested too deeply"),
        (b"[]", "must be one JSON object keyed by code (Expected `object`, got `array`)"),
        (b"null", "must be one JSON object keyed by code"),
        (b'{"9": []}', "record '9': Expected `object`, got `array`"),
    ],
)  # fmt: skip
def test_wrong_file_is_told_where(tmp_path: Path, content: bytes, says: str) -> None:
    assert says in message(vacancies(tmp_path, content))


def test_file_that_changes_while_it_is_read_is_told_as_that(tmp_path: Path) -> None:
    path = tmp_path / "applicants.json"
    path.write_text(json.dumps({str(i): {"cv_pt": "sap"} for i in range(9)}), encoding="utf-8")
    reading = batches(path, Candidate, 2)
    next(reading)
    path.write_bytes(b"{" * path.stat().st_size)
    with pytest.raises(StepError, match=r"changed while it was read; run again"):
        list(reading)


def test_truncated_file_is_broken_json_at_its_end(tmp_path: Path) -> None:
    cut = json.dumps({"9": VACANCY}, indent=1).encode()[:-5]
    assert "line 10, column 4 (input data was truncated)" in message(vacancies(tmp_path, cut))


@pytest.mark.parametrize("path", [
    ("informacoes_basicas",), ("perfil_vaga",), ("informacoes_basicas", "titulo_vaga"),
    ("informacoes_basicas", "data_requicisao"), ("perfil_vaga", "principais_atividades"),
    ("perfil_vaga", "competencia_tecnicas_e_comportamentais"),
])  # fmt: skip
def test_missing_required_field_names_record_and_field(
    tmp_path: Path, path: tuple[str, ...]
) -> None:
    wrong = json.loads(json.dumps(VACANCY))
    *way, last = path
    inner = wrong
    for name in way:
        inner = inner[name]
    del inner[last]
    text = message(vacancies(tmp_path, {"8": VACANCY, "9": wrong}))
    assert f"record '9': Object missing required field `{last}`" in text


def test_value_of_another_type_is_named_without_the_value(tmp_path: Path) -> None:
    wrong = VACANCY | {"informacoes_basicas": {"data_requicisao": 987654321, "titulo_vaga": "t"}}
    text = message(vacancies(tmp_path, {"9": wrong}))
    assert "record '9'" in text
    assert "got `int` - at `$.informacoes_basicas.data_requicisao`" in text
    assert "987654321" not in text


def test_long_code_is_cut(tmp_path: Path) -> None:
    assert len(message(vacancies(tmp_path, {"um currículo inteiro " * 500: {}}))) < 400


def test_outcomes_are_those_of_the_recruiters() -> None:
    counted = {fate: list(OUTCOMES.values()).count(fate) for fate in OUTCOMES.values()}
    assert counted == {HIRED: 8, NOT_HIRED: 7, UNDECIDED: 6}
