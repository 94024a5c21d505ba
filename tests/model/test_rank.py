"""The entry point `rank`: who is ranked, and reasons that can be added up again."""

from collections import Counter
from pathlib import Path

import mlflow
import pandas as pd
import polars as pl
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

from jobmatch_pyfunc import reasons as reasons_module
from jobmatch_pyfunc.scoring import sigmoid
from steps.failure import StepError
from steps.rank import RankParameters, rank
from steps.records import Candidate, read
from tests.conftest import SAMPLE

pytestmark = pytest.mark.xdist_group("model")

SCORES = ("match", "probability")


def ranked(folder: Path, **more: object) -> tuple[pl.DataFrame, pl.DataFrame]:
    """ranking.parquet and ranking.csv of a run on the sample."""
    given = {"data_dir": SAMPLE, "version": "1", "by": "vacancy", "codes": "open", "top_k": 3,
             "reasons": 4}
    with mlflow.start_run() as run:
        rank(RankParameters.model_validate(given | more))
    files = Path(mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, dst_path=str(folder)))
    return pl.read_parquet(files / "ranking.parquet"), pl.read_csv(files / "ranking.csv")


@pytest.mark.parametrize("block", [20_000, 7])
def test_reasons_of_every_place_add_up_to_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("steps.rank.EXPLAINED", block)
    ranking, _ = ranked(tmp_path)
    assert ranking.height > 30
    for score in SCORES:
        total = ranking[f"{score}_intercept"] + ranking[f"{score}_other"]
        for number, terms in enumerate(ranking[f"{score}_terms"].to_list()):
            assert set(terms[0]) == {"term", "where", "contribution"}
            assert len(terms) <= 4
            logit = total[number] + sum(term["contribution"] for term in terms)
            assert logit == pytest.approx(ranking[f"{score}_logit"][number], rel=0, abs=1e-9)
            assert sigmoid(logit) == pytest.approx(ranking[score][number], rel=0, abs=1e-9)


def test_csv_has_the_numbers_in_full_and_the_terms_for_reading(tmp_path: Path) -> None:
    ranking, flat = ranked(tmp_path)
    assert [name for name in ranking.columns if name not in flat.columns] == [
        "match_terms", "probability_terms"]
    for score in SCORES:
        for name in (f"{score}_logit", f"{score}_intercept", f"{score}_other", score):
            assert (flat[name] - ranking[name]).abs().max() < 1e-9
        said = flat[f"{score}_reasons"][0].split("; ")
        assert said == [f"{term['term']} {term['contribution']:+.2f}"
                        for term in ranking[f"{score}_terms"][0]]


def test_each_text_is_read_once_for_its_terms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the real records a CV is among the best of 70 vacancies: reading it for each took
    minutes."""
    reads: Counter[str] = Counter()
    written_terms = reasons_module.written_terms

    def counted(text: str) -> dict[str, str]:
        reads[text] += 1
        return written_terms(text)

    monkeypatch.setattr(reasons_module, "written_terms", counted)
    ranking, _ = ranked(tmp_path)
    people, jobs = ranking["candidato"].n_unique(), ranking["vaga"].n_unique()
    assert people < ranking.height / 2
    assert sum(reads.values()) <= people + jobs


def test_reasons_of_the_pool_are_refused_and_not_left_out(pyfunc: PyFuncModel) -> None:
    vacancy = pd.DataFrame([dict.fromkeys(
        ("principais_atividades", "competencia_tecnicas_e_comportamentais"), "java")])
    with pytest.raises(MlflowException) as refused:
        pyfunc.predict(vacancy, params={"top_k": 3, "reasons": 2})
    assert refused.value.message == (
        "params.reasons needs a CV in the row: it cannot go with top_k")
    assert refused.value.error_code == "BAD_REQUEST"
    assert len(pyfunc.predict(vacancy, params={"top_k": 3, "reasons": 0})) == 3


@pytest.mark.parametrize(("by", "column"), [("vacancy", "vaga"), ("candidate", "candidato")])
def test_a_code_given_twice_is_ranked_once(tmp_path: Path, by: str, column: str) -> None:
    every, _ = ranked(tmp_path, by=by, codes="all", top_k=1, reasons=0)
    first, second = every[column].unique(maintain_order=True).head(2)
    ranking, _ = ranked(tmp_path, by=by, codes=f"{second},{first}, {second}", top_k=2, reasons=0)
    assert ranking[column].to_list() == [second, second, first, first]
    assert ranking["rank"].to_list() == [1, 2, 1, 2]


def test_a_candidate_without_a_cv_is_named_not_left_out_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = read(SAMPLE / "applicants.json", Candidate)
    without = next(code for code, person in people.items() if not (person.cv_pt or "").strip())
    with_cv = next(code for code, person in people.items() if (person.cv_pt or "").strip())
    ranking, _ = ranked(tmp_path, by="candidate", codes=f"{without},{with_cv}", reasons=0)
    assert set(ranking["candidato"]) == {with_cv}
    assert f"not ranked, since they have no CV: {without}\n" in capsys.readouterr().out


@pytest.mark.parametrize("codes", [",", " ", " , "])
def test_codes_that_name_nobody_are_told(tmp_path: Path, codes: str) -> None:
    with pytest.raises(StepError, match="codes names no code"):
        ranked(tmp_path, codes=codes)
