"""Counting many texts together finds what counting them one by one finds."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmatch_pyfunc import counting
from jobmatch_pyfunc.columns import Texts, VacancyTexts, as_arrow
from jobmatch_pyfunc.counting import BatchCounter
from jobmatch_pyfunc.model import FittedModel
from jobmatch_pyfunc.text import count_terms
from tests.model.conftest import Trained

pytestmark = pytest.mark.xdist_group("model")

TERMS = ["jav", "sql", "sap", "c++", "c#", "sap fi", "fi", "jav sql", "gest projet", "projet",
         "projet gest", "node", "analis"]  # fmt: skip
PIECES = ["Java", "java,", "SQL", "SAP-FI", "sap fi", "C++", "c#/C++", "Gestão", "de", "projetos",
          "PROJETO", "a", "1999", "ΣΑΣ", "İstanbul", "ﬁ", "node.js", "\ud800", "x" * 60,
          "cafe\u0301", "", ";", "DE", "(SQL)", "_Java_", "12.", "ab", "+sap+", "#"]  # fmt: skip
SPACES = [" ", "\n", "\t", "\u00a0", "\u2003", "\x1c", "\x00", "  "]

texts = st.lists(
    st.tuples(st.sampled_from(PIECES) | st.text(max_size=5), st.sampled_from(SPACES)), max_size=12
).map(lambda parts: "".join(piece + space for piece, space in parts))


def one_by_one(terms: list[str], text: str) -> list[int]:
    counts = count_terms(text)
    return [counts[term] for term in terms]


@given(st.lists(texts, max_size=8), st.sampled_from([1, 20, 4_000_000]))
def test_any_text_gives_the_same_counts(some: list[str], size: int) -> None:
    with pytest.MonkeyPatch.context() as small:
        small.setattr(counting, "BLOCK_BYTES", size)
        small.setattr(counting, "TOGETHER", 3)
        found = BatchCounter(TERMS).count(as_arrow(some))
    assert found.shape == (len(some), len(TERMS))
    assert found.toarray().tolist() == [one_by_one(TERMS, text) for text in some]


def test_a_part_of_an_arrow_column_counts_alone() -> None:
    some = as_arrow(["sap", "java sql", "", "java java", "c++"])
    found = BatchCounter(TERMS).count(some[1:4])
    assert found.toarray().tolist() == [one_by_one(TERMS, text) for text in some[1:4].to_pylist()]


def test_blocks_and_forgotten_pieces_change_nothing(
    monkeypatch: pytest.MonkeyPatch, rows: pd.DataFrame, trained: Trained
) -> None:
    some = as_arrow(list(rows["cv_pt"].unique()))
    whole = BatchCounter(trained.model.terms).count(some)
    monkeypatch.setattr(counting, "BLOCK_BYTES", 3_000)
    for limit in ("_REMEMBERED", "_REMEMBERED_SEVERAL"):
        with monkeypatch.context() as small:
            small.setattr(counting, limit, 5)
            parts = BatchCounter(trained.model.terms).count(some)
        assert (whole != parts).nnz == 0
    assert whole.nnz > 100


def test_a_vocabulary_of_nothing_counts_nothing() -> None:
    assert BatchCounter([]).count(as_arrow(["java sql", ""])).shape == (2, 0)


@pytest.mark.parametrize("vacancies", [1, 40])
def test_rows_score_the_same_alone_and_together(
    trained: Trained, rows: pd.DataFrame, vacancies: int
) -> None:
    """Few and many texts, and few and many pairs of a vacancy, are worked out in other ways."""
    model: FittedModel = trained.model
    cvs = [f"{cv} java {i}" for i, cv in enumerate(rows["cv_pt"][:40])]
    jobs = [(f"Consultor {i}", "SAP FI", f"java {i}") for i in range(vacancies)]
    pairs = [(jobs[i % vacancies], cv) for i, cv in enumerate(cvs)]
    together = model.analyser.analyse(
        VacancyTexts.of(job for job, _ in pairs), Texts.of(cv for _, cv in pairs))
    match, hire = model.scorer.score_pairs(
        together.vacancies, together.candidates, together.vacancy, together.candidate)
    for i, (job, cv) in enumerate(pairs):
        alone = model.analyser.analyse(VacancyTexts.of([job]), Texts.of([cv]))
        scores = model.scorer.score_pairs(
            alone.vacancies, alone.candidates, alone.vacancy, alone.candidate)
        np.testing.assert_allclose([match[i], hire[i]], np.ravel(scores), rtol=0, atol=1e-12)
