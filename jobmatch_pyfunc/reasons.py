"""Why a score is what it is: the terms that moved it, with contributions that add up.

intercept + all contributions = logit, exactly: both logits are sums over terms (see `scoring`).
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import numpy as np

from jobmatch_pyfunc.scoring import Candidates, Floats, Ints, Scorer, Vacancies, map_to_latent
from jobmatch_pyfunc.text import written_terms

GATE = "(match)"
"""The entry that says how much a low match draws the probability down."""
NO_KNOWN_TERMS = "no known terms"

Where = Literal["vacancy", "cv", "both"]
TextOf = Callable[[Where, int], str]
"""The text of a vacancy (see `vacancy_text`) or of a CV, by its number."""

_GATE_COLUMN = -1


class Term(NamedTuple):
    term: str
    """As the text writes it."""
    where: Where
    contribution: float


@dataclass(frozen=True, slots=True)
class Reasons:
    """One score of one pair: intercept + contributions of the strongest terms + other = logit."""

    logit: float
    intercept: float
    terms: list[Term]
    other: float
    """The sum of all terms that are not in `terms`."""
    known: bool
    """Whether the vacancy and the CV have any term that the model knows."""

    def as_dict(self) -> dict[str, Any]:
        """As the pyfunc answers it."""
        told = {
            "logit": self.logit, "intercept": self.intercept,
            "terms": [term._asdict() for term in self.terms], "other": self.other,
        }
        return told if self.known else told | {"note": NO_KNOWN_TERMS}


class PairReasons(NamedTuple):
    match: Reasons
    probability: Reasons

    def as_dict(self) -> dict[str, Any]:
        return {score: reasons.as_dict() for score, reasons in self._asdict().items()}


def vacancy_text(title: str, activities: str, requirements: str) -> str:
    """What the terms of a vacancy are quoted from."""
    return "\n".join((requirements, activities, title))


class _Part(NamedTuple):
    """What terms of one text add to a logit."""

    where: Where
    columns: Ints
    values: Floats


class _Shown(NamedTuple):
    """A strong term, before it is quoted."""

    where: Where
    column: int
    contribution: float


class _Sum(NamedTuple):
    """A logit, before its terms are quoted."""

    logit: float
    intercept: float
    shown: list[_Shown]
    other: float


class _Asked(NamedTuple):
    """What is the same for every candidate of a vacancy."""

    term_weights: Floats
    latent: Floats
    hire: _Part
    known: bool


class _Found(NamedTuple):
    v: int
    c: int
    match: _Sum
    probability: _Sum
    known: bool


class Explainer:
    """Finds the reasons of pairs of these vacancies and candidates."""

    def __init__(
        self, scorer: Scorer, terms: list[str], vacancies: Vacancies, candidates: Candidates
    ) -> None:
        self._scorer = scorer
        self._terms = terms
        self._vacancies = vacancies
        self._candidates = candidates
        mapped = map_to_latent(candidates.unit, scorer.space.latent)
        lengths = np.linalg.norm(mapped, axis=1)
        self._latent_lengths = np.where(lengths > 0, lengths, 1)

    def explain(
        self, pairs: Iterable[tuple[int, int]], text_of: TextOf, most: int
    ) -> list[PairReasons]:
        """The reasons of each pair (vacancy, candidate), `most` terms a score.

        Every text is read once, however many pairs it is in; pairs of one vacancy in a row share
        what it asks for.
        """
        found = []
        for v, group in groupby(pairs, key=itemgetter(0)):
            asked = self._asked(v)
            found += [self._find(asked, v, c, most) for _, c in group]
        quoted = self._quoted(found, text_of)
        return [_reasons(one, quoted) for one in found]

    def _asked(self, v: int) -> _Asked:
        scorer, vacancies = self._scorer, self._vacancies
        term_weights = scorer.term_weights(scorer.query(vacancies, v))
        columns, values = [], []
        for weights, part in ((scorer.weights.hire_title, vacancies.title),
                              (scorer.weights.hire_body, vacancies.body)):
            own = slice(part.indptr[v], part.indptr[v + 1])
            columns.append(part.indices[own])
            values.append(scorer.weights.platt_scale * part.data[own] * weights[part.indices[own]])
        used, at = np.unique(np.concatenate(columns), return_inverse=True)
        total = np.zeros(len(used))
        np.add.at(total, at, np.concatenate(values))
        return _Asked(term_weights, vacancies.latent[v], _Part("vacancy", used, total),
                      len(used) > 0)

    def _find(self, asked: _Asked, v: int, c: int, most: int) -> _Found:
        w = self._scorer.weights
        unit = self._candidates.unit
        own = slice(unit.indptr[c], unit.indptr[c + 1])
        columns, data = unit.indices[own], unit.data[own]
        near = self._scorer.space.latent[columns] @ asked.latent
        crossed = self._candidates.scale[c] * data * asked.term_weights[columns]
        latent = w.match_latent * data * near / self._latent_lengths[c]
        match = _strongest(w.match_intercept, [_Part("cv", columns, crossed + latent)], most)
        gate = self._scorer.gate(np.array([match.logit]))
        hire = _strongest(
            w.platt_scale * w.hire_intercept + w.platt_intercept,
            [_Part("both", np.array([_GATE_COLUMN]), gate), asked.hire,
             _Part("cv", columns, w.platt_scale * data * w.hire_cv[columns])], most)
        return _Found(v, c, match, hire, asked.known and len(columns) > 0)

    def _quoted(
        self, found: list[_Found], text_of: TextOf
    ) -> dict[tuple[Where, int], dict[int, str]]:
        """For each text the shown terms as it writes them, by column."""
        needed: dict[tuple[Where, int], set[int]] = defaultdict(set)
        for one in found:
            for where, column, _ in one.match.shown + one.probability.shown:
                if column != _GATE_COLUMN:
                    needed[where, one.v if where == "vacancy" else one.c].add(column)
        quoted = {}
        for (where, number), columns in needed.items():
            written = written_terms(text_of(where, number))
            terms = ((column, self._terms[column]) for column in columns)
            quoted[where, number] = {column: written.get(term, term) for column, term in terms}
        return quoted


def _strongest(intercept: float, parts: list[_Part], most: int) -> _Sum:
    values = np.concatenate([part.values for part in parts])
    columns = np.concatenate([part.columns for part in parts])
    ends = list(accumulate(len(part.values) for part in parts))
    order = np.argsort(-np.abs(values), kind="stable")
    first = order[:most][values[order[:most]] != 0]
    shown = [
        _Shown(parts[bisect_right(ends, i)].where, column, value)
        for i, column, value in zip(
            first.tolist(), columns[first].tolist(), values[first].tolist(), strict=True)
    ]
    return _Sum(float(intercept + values.sum()), float(intercept), shown,
                float(values[order[most:]].sum()))


def _reasons(found: _Found, quoted: dict[tuple[Where, int], dict[int, str]]) -> PairReasons:
    def term(shown: _Shown) -> Term:
        where, column, contribution = shown
        if column == _GATE_COLUMN:
            return Term(GATE, where, contribution)
        number = found.v if where == "vacancy" else found.c
        return Term(quoted[where, number][column], where, contribution)

    def reasons(total: _Sum) -> Reasons:
        return Reasons(total.logit, total.intercept, [term(shown) for shown in total.shown],
                       total.other, found.known)

    return PairReasons(reasons(found.match), reasons(found.probability))
