"""From the texts of a request to vectors; every distinct text is analysed once."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp

from jobmatch_pyfunc.counting import BatchCounter
from jobmatch_pyfunc.scoring import (
    Candidates,
    Ints,
    Space,
    Vacancies,
    candidate_vectors,
    vacancy_vectors,
)
from jobmatch_pyfunc.text import body, words

K = TypeVar("K", bound=Hashable)

MANY_TEXTS = 16
"""From this many texts on, counting them together pays for its preparations."""


@dataclass(frozen=True)
class Analysed:
    """Vectors of the distinct vacancies and CVs, and which of them each row has."""

    vacancies: Vacancies
    vacancy: Ints
    candidates: Candidates
    candidate: Ints


class Analyser:
    """Counts terms over a fitted vocabulary and weighs them."""

    def __init__(self, terms: list[str], space: Space) -> None:
        self.terms = terms
        self._column = {term: i for i, term in enumerate(terms)}
        self._space = space
        self._batch = BatchCounter(terms)

    def analyse(self, vacancies: Sequence[tuple[str, str, str]], cvs: Sequence[str]) -> Analysed:
        """vacancies: (title, activities, requirements) of each row; cvs: the CV of each row."""
        some_vacancies, vacancy = _distinct(vacancies)
        some_cvs, candidate = _distinct(cvs)
        return Analysed(self.vacancies(some_vacancies), vacancy,
                        self.candidates(some_cvs), candidate)

    def vacancies(self, vacancies: Sequence[tuple[str, str, str]]) -> Vacancies:
        if len(vacancies) >= MANY_TEXTS:
            return vacancy_vectors(
                self._batch.count([(title,) for title, *_ in vacancies]),
                self._batch.count([body(*texts) for _, *texts in vacancies]), self._space)
        counted: dict[str, Counter[int]] = {}
        titles, bodies = [], []
        for title, activities, requirements in vacancies:
            titles.append(self._count(title))
            total: Counter[int] = Counter()
            for text in body(activities, requirements):
                if text not in counted:
                    counted[text] = self._count(text)
                total.update(counted[text])
            bodies.append(total)
        return vacancy_vectors(self._matrix(titles), self._matrix(bodies), self._space)

    def candidates(self, cvs: Sequence[str]) -> Candidates:
        if len(cvs) >= MANY_TEXTS:
            return candidate_vectors(self._batch.count([(cv,) for cv in cvs]), self._space)
        return candidate_vectors(self._matrix([self._count(cv) for cv in cvs]), self._space)

    def _count(self, text: str) -> Counter[int]:
        """How often each column's term occurs: `count_terms` over the vocabulary only."""
        single = words(text)
        # chained maps, because a loop over the terms is most of what a row costs
        found: Counter[Any] = Counter(
            map(self._column.get, chain(single, map(" ".join, pairwise(single)))))
        del found[None]
        return found

    def _matrix(self, texts: Sequence[Counter[int]]) -> sp.csr_matrix:
        columns: list[int] = []
        counts: list[int] = []
        indptr = [0]
        for text in texts:
            columns += text.keys()
            counts += text.values()
            indptr.append(len(columns))
        return sp.csr_matrix(
            (np.array(counts, np.float32), np.array(columns, np.int32), np.array(indptr)),
            shape=(len(texts), len(self.terms)),
        )


def _distinct(values: Sequence[K]) -> tuple[list[K], Ints]:
    numbers: dict[K, int] = {}
    rows = np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)
    return list(numbers), rows
