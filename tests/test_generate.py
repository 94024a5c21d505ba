"""The sample-data generator: same arguments, same bytes; the real shape; the committed sample."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from steps import generate as generator
from steps.records import FILES, HIRED, OUTCOMES

PROJECT = Path(__file__).resolve().parent.parent
SAMPLE = PROJECT / "data" / "sample"
SIZES = ("--vacancies", "1500", "--candidates", "2000", "--prospects", "6000")


class Records(NamedTuple):
    vacancies: dict[str, Any]
    candidates: dict[str, Any]
    lists: dict[str, Any]

    def rows(self) -> list[tuple[str, dict[str, str]]]:
        return [(code, row) for code, listed in self.lists.items() for row in listed["prospects"]]

    def joined(self) -> list[tuple[str, dict[str, str]]]:
        return [
            (code, row) for code, row in self.rows()
            if code in self.vacancies and self.candidates.get(row["codigo"], {}).get("cv_pt")
        ]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "steps.generate", *arguments],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )


def load(folder: Path) -> Records:
    return Records(*(json.loads((folder / name).read_text(encoding="utf-8")) for name in FILES))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("generated")
    done = run(*SIZES, "--seed", "7", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def records(folder: Path) -> Records:
    return load(folder)


def test_same_arguments_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    assert run(*SIZES, "--seed", "7", "--out", str(tmp_path)).returncode == 0
    assert contents(tmp_path) == contents(folder)


def test_another_seed_gives_other_records(folder: Path, tmp_path: Path) -> None:
    assert run(*SIZES, "--seed", "8", "--out", str(tmp_path)).returncode == 0
    assert all(contents(tmp_path)[name] != text for name, text in contents(folder).items())


def test_committed_sample_is_what_the_documented_command_makes(tmp_path: Path) -> None:
    command = " ".join((generator.__doc__ or "").replace("\\\n", " ").split())
    arguments = command.partition("python -m steps.generate ")[2].partition(" --out ")[0].split()
    assert run(*arguments, "--out", str(tmp_path)).returncode == 0
    assert contents(tmp_path) == {name: (SAMPLE / name).read_bytes() for name in FILES}


def test_committed_sample_is_at_most_3_megabytes() -> None:
    assert sum((SAMPLE / name).stat().st_size for name in FILES) <= 3_000_000


def test_committed_sample_has_hired_people_on_both_sides_of_a_time_split() -> None:
    sample = load(SAMPLE)
    joined = sample.joined()
    codes = sorted({code for code, _ in joined}, key=int)
    later = set(codes[int(0.8 * len(codes)):])
    hired = [code in later for code, row in joined if OUTCOMES[row["situacao_candidado"]] == HIRED]
    assert 35 <= len(hired) <= 75
    assert sum(hired) >= 5


def test_sizes_are_those_asked_for(records: Records) -> None:
    assert (len(records.vacancies), len(records.candidates)) == (1500, 2000)
    assert len(records.rows()) == 6000


def test_one_of_each_is_enough(tmp_path: Path) -> None:
    sizes = ("--vacancies", "1", "--candidates", "1", "--prospects", "1")
    assert run(*sizes, "--out", str(tmp_path)).returncode == 0
    assert [len(part) for part in load(tmp_path)] == [1, 1, 1]


SCHEMA = {
    "informacoes_basicas": {
        "data_requicisao", "limite_esperado_para_contratacao", "titulo_vaga", "vaga_sap",
        "cliente", "solicitante_cliente", "empresa_divisao", "requisitante",
        "analista_responsavel", "tipo_contratacao", "prazo_contratacao", "objetivo_vaga",
        "prioridade_vaga", "origem_vaga",
    },
    "perfil_vaga": {
        "pais", "estado", "cidade", "bairro", "regiao", "local_trabalho",
        "vaga_especifica_para_pcd", "faixa_etaria", "horario_trabalho", "nivel profissional",
        "nivel_academico", "nivel_ingles", "nivel_espanhol", "outro_idioma", "areas_atuacao",
        "principais_atividades", "competencia_tecnicas_e_comportamentais", "demais_observacoes",
        "viagens_requeridas",
    },
    "beneficios": {"valor_venda", "valor_compra_1", "valor_compra_2"},
    "infos_basicas": {
        "telefone_recado", "telefone", "objetivo_profissional", "data_criacao", "inserido_por",
        "email", "local", "sabendo_de_nos_por", "data_atualizacao", "codigo_profissional", "nome",
    },
    "informacoes_pessoais": {
        "data_aceite", "nome", "cpf", "fonte_indicacao", "email", "email_secundario",
        "data_nascimento", "telefone_celular", "telefone_recado", "sexo", "estado_civil", "pcd",
        "endereco", "skype", "url_linkedin", "facebook",
    },
    "informacoes_profissionais": {
        "titulo_profissional", "area_atuacao", "conhecimentos_tecnicos", "certificacoes",
        "outras_certificacoes", "remuneracao", "nivel_profissional",
    },
    "formacao_e_idiomas": {"nivel_academico", "nivel_ingles", "nivel_espanhol", "outro_idioma"},
    "cargo_atual": set(),
}
OPTIONAL = {
    "informacoes_basicas": {
        "superior_imediato", "nome", "telefone", "data_inicial", "data_final", "nome_substituto",
    },
    "perfil_vaga": {"equipamentos_necessarios", "habilidades_comportamentais_necessarias"},
    "informacoes_pessoais": {"download_cv"},
    "formacao_e_idiomas": {"instituicao_ensino_superior", "cursos", "ano_conclusao"},
}
VACANCY_SECTIONS = {"informacoes_basicas", "perfil_vaga", "beneficios"}


@pytest.mark.parametrize("section", SCHEMA)
def test_section_has_its_keys_and_optional_ones_come_and_go(
    records: Records, section: str
) -> None:
    whole = records.vacancies if section in VACANCY_SECTIONS else records.candidates
    seen = [record[section] for record in whole.values()]
    optional = OPTIONAL.get(section, set())
    assert {key for part in seen for key in part} == SCHEMA[section] | optional
    assert set.intersection(*(set(part) for part in seen)) == SCHEMA[section]
    assert all(isinstance(value, str) for part in seen for value in part.values())


def test_records_have_the_real_sections(records: Records) -> None:
    assert {frozenset(v) for v in records.vacancies.values()} == {frozenset(VACANCY_SECTIONS)}
    assert {frozenset(c) for c in records.candidates.values()} == {
        frozenset(set(SCHEMA) - VACANCY_SECTIONS | {"cv_pt", "cv_en"})
    }
    assert {tuple(p) for p in records.lists.values()} == {("titulo", "modalidade", "prospects")}
    assert {tuple(row) for _, row in records.rows()} == {(
        "nome", "codigo", "situacao_candidado", "data_candidatura", "ultima_atualizacao",
        "comentario", "recrutador",
    )}


def test_every_listed_outcome_appears_and_no_other(records: Records) -> None:
    for some in (records, load(SAMPLE)):
        assert {row["situacao_candidado"] for _, row in some.rows()} == set(OUTCOMES)


def test_lexicon_and_ingest_agree_on_who_is_hired() -> None:
    hired = {text for text, outcome in OUTCOMES.items() if outcome == HIRED}
    assert set(generator.LEXICON["outcomes"]["hired"]) == hired


def test_shares_are_those_of_the_real_records(records: Records) -> None:
    joined = records.joined()
    hired = [OUTCOMES[row["situacao_candidado"]] == HIRED for _, row in joined]
    assert 0.052 <= np.mean(hired) <= 0.064
    assert 0.85 <= len(joined) / 6000 <= 0.92
    empty = [not listed["prospects"] for listed in records.lists.values()]
    assert 0.15 <= np.mean(empty) <= 0.27


def test_text_lengths_are_those_of_the_real_records(records: Records) -> None:
    lengths = [len(c["cv_pt"]) for c in records.candidates.values() if c["cv_pt"]]
    assert 3000 <= np.median(lengths) <= 3600
    assert 4000 <= np.mean(lengths) <= 4600
    assert 10_000 <= np.percentile(lengths, 95) <= 12_500
    assert 500 <= np.median([len(a) + len(b) for a, b in job_texts(records)]) <= 680


def job_texts(records: Records) -> list[tuple[str, str]]:
    return [
        (v["perfil_vaga"]["principais_atividades"],
         v["perfil_vaga"]["competencia_tecnicas_e_comportamentais"])
        for v in records.vacancies.values()
    ]


@pytest.mark.parametrize("source", ["generated", "committed"])
def test_oddities_are_there(records: Records, source: str) -> None:
    some = records if source == "generated" else load(SAMPLE)
    texts = job_texts(some)
    cvs = [c["cv_pt"] for c in some.candidates.values()]
    filled = [cv for cv in cvs if cv]
    assert 0.3 <= np.mean([a == b for a, b in texts]) <= 0.37
    assert any("\ufffd" in a + b for a, b in texts)
    assert any("Ã§" in a + b for a, b in texts)
    assert any(not a and not b for a, b in texts)
    assert 0.02 <= 1 - len(filled) / len(cvs) <= 0.05
    assert 0.01 <= 1 - len(set(filled)) / len(filled) <= 0.05
    assert set(some.lists) - set(some.vacancies)
    assert {row["codigo"] for _, row in some.rows()} - set(some.candidates)
    english = ("experience", "work history", "summary", "profile")
    assert 0.05 <= np.mean([cv.startswith(english) or "\nskills" in cv or "technical skills" in cv
                            for cv in filled]) <= 0.1
    births = {c["informacoes_pessoais"]["data_nascimento"] for c in some.candidates.values()}
    assert "0000-00-00" in births
    basics = [v["informacoes_basicas"] for v in some.vacancies.values()]
    assert any(b["data_requicisao"] == "00-00-0000" for b in basics)
    assert any(b["limite_esperado_para_contratacao"] == "00-00-0000" for b in basics)
    assert any(row["data_candidatura"] == "0000-00-00" for _, row in some.rows())


def test_requests_are_spread_over_two_years(records: Records) -> None:
    days = [v["informacoes_basicas"]["data_requicisao"] for v in records.vacancies.values()]
    assert {day[-4:] for day in days} == {"0000", "2019", "2020", "2021"}


def test_skills_keep_their_odd_spelling(records: Records) -> None:
    everything = "\n".join(c["cv_pt"] for c in records.candidates.values())
    assert all(token in everything for token in ("c++", "c#", ".net", "s/4hana", "pl/sql"))
    assert everything == everything.lower()


def test_vocabulary_grows_with_size(records: Records) -> None:
    cvs = [set(c["cv_pt"].split()) for c in records.candidates.values()]
    assert len(set().union(*cvs)) > 1.4 * len(set().union(*cvs[: len(cvs) // 2]))


def test_personal_data_is_invented(records: Records) -> None:
    first, last = (set(generator.LEXICON[k]) for k in ("first_names", "last_names"))
    for candidate in records.candidates.values():
        given, *family = candidate["infos_basicas"]["nome"].split()
        assert given in first
        assert set(family) <= last
        assert candidate["infos_basicas"]["email"].endswith("@example.com")
        assert candidate["infos_basicas"]["telefone"].startswith("(00) ")
        assert candidate["informacoes_pessoais"]["cpf"] in ("", "000.000.000-00")


def test_those_put_forward_share_words_with_the_vacancy(records: Records) -> None:
    codes = [code for code, c in records.candidates.items() if c["cv_pt"]]
    joined = records.joined()

    def covered(vacancy: str, candidate: str) -> float:
        needs = records.vacancies[vacancy]["perfil_vaga"]["competencia_tecnicas_e_comportamentais"]
        words = set(needs.lower().replace(",", " ").replace(".", " ").split())
        return len(words & set(records.candidates[candidate]["cv_pt"].split())) / max(1, len(words))

    rng = np.random.default_rng(0)
    others = [codes[i] for i in rng.integers(0, len(codes), len(joined))]
    real = np.mean([covered(code, row["codigo"]) for code, row in joined])
    chance = np.mean([covered(code, c) for (code, _), c in zip(joined, others, strict=True)])
    assert real > 1.3 * chance


def test_the_planted_logit_tells_who_is_hired() -> None:
    rng = np.random.default_rng(3)
    draws = generator.Draws(rng)
    vacancies = generator.plan_vacancies(rng, draws, 1000)
    candidates = generator.plan_candidates(rng, draws, 1200)
    lists = generator.plan_prospects(rng, draws, vacancies, candidates, 4000)
    outcomes = generator.plan_outcomes(rng, vacancies, candidates, lists)
    logits = np.array([generator.hire_logit(v, candidates[i])
                       for v, found in zip(vacancies, lists, strict=True) for i in found])
    hired = np.array([OUTCOMES[text] == HIRED for text in outcomes])
    assert hired.mean() == pytest.approx(generator.HIRED_SHARE, abs=1e-3)
    assert np.mean(logits[hired][:, None] > logits[~hired][None, :]) > 0.82  # its AUC


@pytest.mark.parametrize(
    "arguments",
    [("--vacancies", "0"), ("--candidates", "-3"), ("--prospects", "many"), ("--seed", "-1"),
     ("--colour", "red")],
    ids=" ".join,
)
def test_bad_argument_is_one_line_and_status_2(arguments: tuple[str, str], tmp_path: Path) -> None:
    done = run(*arguments, "--out", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert arguments[0] in done.stderr
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_written_is_one_line_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run("--out", str(tmp_path / "file" / "inside"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr


def test_failure_half_way_leaves_the_earlier_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator.generate(20, 30, 60, 1, tmp_path)
    before = contents(tmp_path)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generator, "_candidate_record", full_disk)
    with pytest.raises(OSError, match="No space left"):
        generator.generate(20, 30, 60, 2, tmp_path)
    assert contents(tmp_path) == before
