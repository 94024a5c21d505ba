"""From the texts of a request to vectors; every distinct text is analysed once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from jobmatch_pyfunc.columns import Texts, VacancyTexts, as_arrow, distinct
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

Job = tuple[int, int, int]
"""Which title, activities and requirements a vacancy has."""

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

    def analyse(self, vacancies: VacancyTexts, cvs: Texts) -> Analysed:
        vectors, vacancy = self.vacancies(vacancies)
        return Analysed(vectors, vacancy, self.candidates(cvs), cvs.row)

    def vacancies(self, texts: VacancyTexts) -> tuple[Vacancies, Ints]:
        """Vectors of the distinct vacancies, and which of them each row has."""
        jobs, vacancy = distinct(zip(*(column.row.tolist() for column in texts), strict=True))
        count = self._count_together if len(jobs) >= MANY_TEXTS else self._count_each
        return vacancy_vectors(*count(texts, jobs), self._space), vacancy

    def candidates(self, cvs: Texts) -> Candidates:
        """Vectors of the distinct CVs."""
        if len(cvs.distinct) >= MANY_TEXTS:
            return candidate_vectors(self._batch.count(as_arrow(cvs.distinct)), self._space)
        counts = [self._count(cvs.text(i)) for i in range(len(cvs.distinct))]
        return candidate_vectors(self._matrix(counts), self._space)

    def _count_together(
        self, texts: VacancyTexts, jobs: Sequence[Job]
    ) -> tuple[sp.csr_matrix, sp.csr_matrix]:
        """Counts in the titles and in the bodies, which are `text.body` of two texts."""
        title, first, second = np.array(jobs).T
        columns = [as_arrow(column.distinct) for column in texts[1:]]
        both = pa.concat_arrays([pa.array([""], pa.large_string()), *columns]).dictionary_encode()
        number = np.asarray(both.indices)
        first, second = number[1 + first], number[1 + len(columns[0]) + second]
        counts = self._batch.count(both.dictionary)
        bodies = counts[first] + counts[np.where(second == first, number[0], second)]
        return self._batch.count(as_arrow(texts.title.distinct))[title], bodies

    def _count_each(
        self, texts: VacancyTexts, jobs: Sequence[Job]
    ) -> tuple[sp.csr_matrix, sp.csr_matrix]:
        counted: dict[str, Counter[int]] = {}
        titles, bodies = [], []
        for job in jobs:
            title, *both = (column.text(i) for column, i in zip(texts, job, strict=True))
            titles.append(self._count(title))
            total: Counter[int] = Counter()
            for text in body(*both):
                if text not in counted:
                    counted[text] = self._count(text)
                total.update(counted[text])
            bodies.append(total)
        return self._matrix(titles), self._matrix(bodies)

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
