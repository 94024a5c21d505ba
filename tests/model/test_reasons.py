"""Reasons add up to the logit, and are words that people write."""

import math
import re

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.pyfunc import PyFuncModel

from jobmatch_pyfunc.text import WORD, written_terms

pytestmark = pytest.mark.xdist_group("model")

WORDS = st.sampled_from(
    "java spring sap fi hana vendas cozinha python dados gestão de projetos c++ .net contas a "
    "pagar teste folha pagamento enfermagem motorista inglês zzzqqq 123 rescisão".split())
TEXTS = st.one_of(
    st.lists(WORDS, max_size=40).map(" ".join), st.text(max_size=80),
    st.just("Gestão de Projetos e contas a pagar"))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(title=TEXTS, activities=TEXTS, requirements=TEXTS, cv=TEXTS,
       most=st.integers(1, 30))
def test_contributions_add_up_to_the_logit_and_the_score(
    pyfunc: PyFuncModel, title: str, activities: str, requirements: str, cv: str, most: int
) -> None:
    row = {"titulo_vaga": title, "principais_atividades": activities,
           "competencia_tecnicas_e_comportamentais": requirements, "cv_pt": cv}
    answer = pyfunc.predict(pd.DataFrame([row]), params={"reasons": most}).iloc[0]
    for score in ("match", "probability"):
        reasons = answer["reasons"][score]
        total = (reasons["intercept"] + reasons["other"]
                 + sum(term["contribution"] for term in reasons["terms"]))
        assert math.isclose(total, reasons["logit"], abs_tol=1e-9)
        assert math.isclose(1 / (1 + math.exp(-reasons["logit"])), answer[score], abs_tol=1e-9)
        assert len(reasons["terms"]) <= most
        sizes = [abs(term["contribution"]) for term in reasons["terms"]]
        assert sizes == sorted(sizes, reverse=True)


def test_terms_are_shown_as_the_texts_write_them(pyfunc: PyFuncModel) -> None:
    row = {"titulo_vaga": "Analista de Contas a Pagar",
           "principais_atividades": "Rotinas de contas a pagar e conciliação bancária.",
           "competencia_tecnicas_e_comportamentais": "Conciliação bancária.",
           "cv_pt": "Analista Financeiro: Contas a Pagar, Conciliação Bancária e tesouraria."}
    answer = pyfunc.predict(pd.DataFrame([row]), params={"reasons": 50}).iloc[0]
    shown = {term["term"] for term in answer["reasons"]["match"]["terms"]}
    assert "conciliação" in shown
    assert "contas a pagar" in shown
    cv = row["cv_pt"].lower()
    assert all(term in cv for term in shown)


def test_a_low_match_is_among_the_reasons_of_the_probability(pyfunc: PyFuncModel) -> None:
    row = {"principais_atividades": "Consultoria SAP FI/CO em S/4HANA.",
           "competencia_tecnicas_e_comportamentais": "SAP FI, S/4HANA.",
           "cv_pt": "Cozinheiro de restaurante: preparo de carnes, massas e molhos."}
    answer = pyfunc.predict(pd.DataFrame([row]), params={"reasons": 50}).iloc[0]
    gate = [t for t in answer["reasons"]["probability"]["terms"] if t["term"] == "(match)"]
    assert len(gate) == 1
    assert gate[0]["contribution"] < 0


DETAILS = st.sampled_from([
    "(11) 91234-5678", "03/04/1985", "2010", "x", "ana@correio.com.br", "01310-100", "²", "٣",
    "de", "/", " - ", ",", "\n", "e", "(", "R$ 1.500,00", "s/4hana", "java8", "32 anos,"])
MIXED = st.lists(st.one_of(WORDS, DETAILS), max_size=40).map(" ".join)


def strange_digits(term: str) -> list[str]:
    """The digits that a shown term holds outside of its first and last word."""
    found = list(re.finditer(WORD, term))
    own = {i for word in (found[:1] + found[-1:]) for i in range(*word.span())}
    return [sign for i, sign in enumerate(term) if sign.isdigit() and i not in own]


@given(text=st.one_of(MIXED, st.text(max_size=80)))
def test_no_digit_between_the_words_of_a_term_is_shown(text: str) -> None:
    assert [term for term in written_terms(text).values() if strange_digits(term)] == []


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(job=MIXED, cv=MIXED)
def test_no_reason_shows_a_digit_that_is_not_its_own(
    pyfunc: PyFuncModel, job: str, cv: str
) -> None:
    row = {"titulo_vaga": job, "principais_atividades": job,
           "competencia_tecnicas_e_comportamentais": cv, "cv_pt": f"{cv} {job}"}
    answer = pyfunc.predict(pd.DataFrame([row]), params={"reasons": 1000}).iloc[0]
    shown = [term["term"] for score in answer["reasons"].values() for term in score["terms"]]
    assert [term for term in shown if strange_digits(term)] == []


@pytest.mark.parametrize(("text", "shown"), [
    ("java (11) 91234-5678 / spring", "java … spring"), ("java 03/04/1985 spring", "java … spring"),
    ("java 8 spring", "java … spring"), ("java @ spring", "java … spring"),
    ("java r spring", "java … spring"), ("java / - spring", "java … spring"),
    ("java/spring", "java/spring"), ("java & Spring", "java & spring"),
    ("java,\n spring", "java, spring"), ("java e/ou o spring", "java e/ou o spring"),
    ("java" + " " * 31 + "spring", "java … spring"),
])  # fmt: skip
def test_between_the_words_of_a_term_are_stop_words_and_a_connector_only(
    text: str, shown: str
) -> None:
    assert written_terms(text)["jav spring"] == shown
