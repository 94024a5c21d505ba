"""Why a score is what it is: the terms that moved it, with contributions that add up.

intercept + all contributions = logit, exactly: both logits are sums over terms (see `scoring`).
"""

from typing import Any

import numpy as np

from jobmatch_pyfunc.scoring import Candidates, Floats, Scorer, Vacancies, map_to_latent
from jobmatch_pyfunc.text import written_terms

GATE = "(match)"
"""The entry that says how much a low match draws the probability down."""
NO_KNOWN_TERMS = "no known terms"

Contributions = dict[int, float]


def explain(
    scorer: Scorer, terms: list[str], vacancies: Vacancies, v: int, candidates: Candidates, c: int,
    vacancy_texts: tuple[str, str, str], cv: str, most: int,
) -> dict[str, Any]:
    """The reasons of one pair: for each score its logit, intercept, the `most` strongest terms as
    the texts write them, and the sum of all others."""
    in_cv, in_vacancy = written_terms(cv), written_terms("\n".join(reversed(vacancy_texts)))
    match, from_cv = match_contributions(scorer, vacancies, v, candidates, c)
    match_logit = scorer.weights.match_intercept + sum(match.values())
    vacancy_side, cv_side = hire_contributions(scorer, vacancies, v, candidates, c)
    gate = float(scorer.gate(np.array(match_logit)))
    known = bool(from_cv) and bool(vacancies.body[v].nnz or vacancies.title[v].nnz)
    hire = [
        *((_written(terms[t], in_vacancy), "vacancy", x) for t, x in vacancy_side.items()),
        *((_written(terms[t], in_cv), "cv", x) for t, x in cv_side.items()),
    ]
    w = scorer.weights
    return {
        "match": _summary(
            w.match_intercept,
            [(_written(terms[t], in_cv), "cv", x) for t, x in match.items()], most, known),
        "probability": _summary(
            w.platt_scale * w.hire_intercept + w.platt_intercept,
            ([(GATE, "both", gate)] if gate < 0 else []) + hire, most, known),
    }


def match_contributions(
    scorer: Scorer, vacancies: Vacancies, v: int, candidates: Candidates, c: int
) -> tuple[Contributions, bool]:
    """Contribution of each of the CV's terms to the match logit, and whether there are any."""
    query = scorer.query(vacancies, v).dense(candidates.pivoted.shape[1])
    pivoted, unit = candidates.pivoted[c], candidates.unit[c]
    crossed = pivoted.data * query[pivoted.indices]
    near = scorer.space.latent[unit.indices] @ vacancies.latent[v]
    length = np.linalg.norm(map_to_latent(unit, scorer.space.latent))
    latent = scorer.weights.match_latent * unit.data * near / (length or 1.0)
    return _added((pivoted.indices, crossed), (unit.indices, latent)), unit.nnz > 0


def hire_contributions(
    scorer: Scorer, vacancies: Vacancies, v: int, candidates: Candidates, c: int
) -> tuple[Contributions, Contributions]:
    """Contributions of the vacancy's and of the CV's terms to the probability's logit."""
    w = scorer.weights
    title, body, cv = vacancies.title[v], vacancies.body[v], candidates.unit[c]
    return (
        _added(
            (title.indices, w.platt_scale * title.data * w.hire_title[title.indices]),
            (body.indices, w.platt_scale * body.data * w.hire_body[body.indices]),
        ),
        _added((cv.indices, w.platt_scale * cv.data * w.hire_cv[cv.indices])),
    )


def _added(*parts: tuple[Any, Floats]) -> Contributions:
    total: Contributions = {}
    for columns, values in parts:
        for column, value in zip(columns.tolist(), values.tolist(), strict=True):
            total[column] = total.get(column, 0.0) + value
    return total


def _written(term: str, forms: dict[str, str]) -> str:
    return forms.get(term, term)


def _summary(
    intercept: float, found: list[tuple[str, str, float]], most: int, known: bool
) -> dict[str, Any]:
    found = sorted((x for x in found if x[2]), key=lambda x: -abs(x[2]))
    shown, rest = found[:most], found[most:]
    summary: dict[str, Any] = {
        "logit": float(intercept + sum(x for *_, x in found)),
        "intercept": float(intercept),
        "terms": [
            {"term": term, "where": where, "contribution": float(x)} for term, where, x in shown
        ],
        "other": float(sum(x for *_, x in rest)),
    }
    if not known:
        summary["note"] = NO_KNOWN_TERMS
    return summary
