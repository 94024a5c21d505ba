"""The recruiters' tables as numbers.

Vacancies and candidates are numbered in the order of their tables. Texts are kept as tokens, so
that any vocabulary, an older version's too, can be counted without reading a text again.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from jobmatch_pyfunc.scoring import (
    Candidates,
    Space,
    Vacancies,
    candidate_vectors,
    projected,
    vacancy_vectors,
    with_data,
)
from steps.records import HIRED, UNDECIDED
from steps.tokens import Tokens, count_matrix, vocabulary_of

ROWS_AT_ONCE = 2_000
"""Rows of a sparse matrix that are worked on together where not all need be in memory at once: few
enough to stay in the cache, and for malloc to hand out the same memory again."""


@dataclass(frozen=True)
class Pairs:
    """Who was put forward for what, and what came of it. One entry a pair."""

    vacancy: NDArray[np.int64]
    candidate: NDArray[np.int64]
    """Number of the candidate; −1 where no CV is on file."""
    person: NDArray[np.int64]
    """Number of the person, with or without a CV."""
    hired: NDArray[np.int64]
    undecided: NDArray[np.bool_]
    known: NDArray[np.bool_]
    """False where the outcome is one that is not known."""

    def __len__(self) -> int:
        return len(self.vacancy)

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Pairs":
        return Pairs(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    @property
    def joined(self) -> NDArray[np.bool_]:
        """With a vacancy, a CV and a known outcome."""
        return (self.candidate >= 0) & self.known


@dataclass(frozen=True)
class Corpus:
    """The texts, each distinct one tokenised once, and which of them each record carries."""

    tokens: Tokens
    title: NDArray[np.int64]
    activities: NDArray[np.int64]
    requirements: NDArray[np.int64]
    cv: NDArray[np.int64]
    _counts: dict[tuple[str, ...], sp.csr_matrix] = field(default_factory=dict, repr=False)
    _vectors: list[tuple[list[str], Space, Vacancies, Candidates]] = field(
        default_factory=list, repr=False)

    def counts(self, terms: list[str]) -> sp.csr_matrix:
        """Counts of the terms of some vocabulary in every distinct text: (texts × terms)."""
        key = tuple(terms)
        counts = self._counts.get(key)  # which another thread may forget meanwhile
        if counts is None:
            counts = count_matrix(self.tokens, vocabulary_of(self.tokens, terms))
            self._counts[key] = counts
        return counts

    def remember_counts(self, terms: list[str], counts: sp.csr_matrix) -> None:
        """Counts that are known already."""
        self._counts[tuple(terms)] = counts

    def vectors(self, terms: list[str], space: Space) -> tuple[Vacancies, Candidates]:
        """Vectors of every vacancy and every candidate; made once, whatever the projection. The
        counts that they are made from are forgotten, for the memory: hardly ever has another space
        just these terms."""
        # how threads divide a product shows in its last bit, and they would wait busily for another
        with threadpool_limits(1, "blas"):
            vacancies, candidates = (
                self._known_vectors(terms, space) or self._new_vectors(terms, space))
            latent = projected(vacancies.latent, space.projection)
        return replace(vacancies, latent=latent), candidates

    def _known_vectors(
        self, terms: list[str], space: Space
    ) -> tuple[Vacancies, Candidates] | None:
        for their_terms, theirs, vacancies, candidates in self._vectors:
            if their_terms == terms and _same_but_for_the_projection(theirs, space):
                return vacancies, candidates
        return None

    def _new_vectors(self, terms: list[str], space: Space) -> tuple[Vacancies, Candidates]:
        counts = self.counts(terms)
        self._counts.pop(tuple(terms), None)
        bodies = self.bodies @ counts
        bodies.sort_indices()  # what is in order adds up faster
        unmoved = replace(space, projection=np.eye(space.latent.shape[1]))
        vacancies = vacancy_vectors(counts[self.title], bodies, unmoved)
        candidates = _candidate_vectors(counts[self.cv], space)
        self._vectors.append((terms, space, vacancies, candidates))
        return vacancies, candidates

    @property
    def postings(self) -> NDArray[np.int64]:
        """Number of each vacancy's text: vacancies that were posted again share it."""
        both = np.column_stack([self.activities, self.requirements])
        return np.unique(both, axis=0, return_inverse=True)[1].ravel()

    @property
    def bodies(self) -> sp.csr_matrix:
        """(vacancies × texts): which texts are a vacancy's body; the same text counts once."""
        n = len(self.activities)
        other = np.flatnonzero(self.requirements != self.activities)
        rows = np.concatenate([np.arange(n), other])
        texts = np.concatenate([self.activities, self.requirements[other]])
        ones = np.ones(len(rows), np.float32)
        return sp.csr_matrix((ones, (rows, texts)), shape=(n, len(self.tokens)))


def _candidate_vectors(counts: sp.csr_matrix, space: Space) -> Candidates:
    """Vectors of candidates (rows × terms), some at a time in each thread: the steps on the way are
    then in memory that was used before."""
    unit, scale = np.empty(counts.nnz), np.empty(counts.shape[0])
    latent = np.empty((counts.shape[0], space.latent.shape[1]))

    def place(rows: slice) -> None:
        some = candidate_vectors(counts[rows], space)
        at = slice(counts.indptr[rows.start], counts.indptr[rows.stop])
        unit[at], scale[rows], latent[rows] = some.unit.data, some.scale, some.latent

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # numpy lets go of the interpreter's lock
        list(threads.map(place, row_batches(counts.shape[0])))  # raises what they raise
    return Candidates(with_data(counts, unit), scale, latent)


def has_cv(candidates: pl.DataFrame) -> NDArray[np.bool_]:
    """Of each candidate, whether the CV holds more than white space."""
    return (candidates["cv_pt"].str.strip_chars() != "").to_numpy()


def candidates_seen(
    filled: NDArray[np.bool_], pairs: Pairs, training: Pairs
) -> NDArray[np.int64]:
    """Numbers of the candidates with a CV (filled: one flag each), without those who were put
    forward for vacancies outside the training pairs only."""
    seen = filled.copy()
    others = np.setdiff1d(pairs.candidate, training.candidate)
    seen[others[others >= 0]] = False
    return np.flatnonzero(seen)


def pairs_of(table: pl.DataFrame, vacancies: pl.DataFrame, candidates: pl.DataFrame) -> Pairs:
    """Number the pairs of the tables."""
    vacancy = {code: i for i, code in enumerate(vacancies["codigo"])}
    filled = has_cv(candidates)
    candidate = {code: i for i, code in enumerate(candidates["codigo"]) if filled[i]}
    person: dict[str, int] = {}
    codes = table["candidato"].to_list()
    outcome = table["outcome"].to_numpy()
    return Pairs(
        np.array([vacancy[code] for code in table["vaga"]], np.int64),
        np.array([candidate.get(code, -1) for code in codes], np.int64),
        np.array([person.setdefault(code, len(person)) for code in codes], np.int64),
        (outcome == HIRED).astype(np.int64),
        outcome == UNDECIDED,
        table["outcome"].is_not_null().to_numpy(),
    )


def corpus_of(
    vacancies: pl.DataFrame, candidates: pl.DataFrame
) -> tuple[pl.Series, dict]:
    """The distinct texts, and for each field the number of each record's text."""
    fields = {
        "title": vacancies["titulo_vaga"],
        "activities": vacancies["principais_atividades"],
        "requirements": vacancies["competencia_tecnicas_e_comportamentais"],
        "cv": candidates["cv_pt"],
    }
    every = pl.DataFrame({"text": pl.concat(fields.values())})
    texts = every["text"].unique(maintain_order=True)
    numbers = every.join(pl.DataFrame({"text": texts}).with_row_index("number"), on="text",
                         how="left", maintain_order="left")["number"].to_numpy().astype(np.int64)
    ends = np.cumsum([len(column) for column in fields.values()])
    return texts, dict(zip(fields, np.split(numbers, ends[:-1]), strict=True))


def drawn(
    numbers: NDArray[np.int64], count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """At most so many of the numbers, in their order."""
    if len(numbers) <= count:
        return numbers
    return np.sort(generator.choice(numbers, count, replace=False))


def weights_of_drawn(rows: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.float64]:
    """Of the marked rows at most so many are drawn, and weigh for all of them: the weight of each
    row, 0 of those not drawn, 1 of those not marked."""
    marked = np.flatnonzero(rows)
    told = drawn(marked, count, np.random.default_rng(seed))
    weight = np.where(rows, 0.0, 1.0)
    weight[told] = len(marked) / max(len(told), 1)
    return weight


def row_batches(rows: int) -> Iterator[slice]:
    """So many rows, at most `ROWS_AT_ONCE` at a time."""
    for begin in range(0, rows, ROWS_AT_ONCE):
        yield slice(begin, min(begin + ROWS_AT_ONCE, rows))


def _same_but_for_the_projection(one: Space, other: Space) -> bool:
    return ((one.slope, one.pivot) == (other.slope, other.pivot)
            and np.array_equal(one.idf, other.idf)
            and (one.latent is other.latent or np.array_equal(one.latent, other.latent)))
