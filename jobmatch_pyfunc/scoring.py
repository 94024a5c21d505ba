"""The two scores of a vacancy and a CV, as training fits them and serving computes them.

A vacancy v is two unit TF-IDF vectors over one vocabulary, its title t_v and its body b_v; a
candidate c is a TF-IDF vector u_c of unit length, and p_c, the same with pivoted length
normalisation and weighted once more by idf, so that rare terms in common count for more.
E (terms × k) maps terms to a latent space in which vacancies that the same people were put forward
for lie close together, and A (k × k) moves a vacancy in it towards the CVs that are put forward for
such vacancies; l_v and l_c are the unit vectors of (t_v + b_v) E A and of u_c E. With fitted
weights w, a and constants:

    match logit(v, c) = w₀ + (w₁ t_v + w₂ b_v) · p_c + w₃ l_v · l_c
    hire logit(v, c)  = s (a₀ + a_title · t_v + a_body · b_v + a_cv · u_c) + s₀ + gate(v, c)
    gate(v, c)        = g min(0, match logit(v, c) − m₀)

For a given vacancy both are linear in the candidate, so a ranking is one sparse matrix-vector
product, and every logit is a sum over terms, which is what the reasons show.

Sources: sublinear TF-IDF and idf smoothing as in scikit-learn's TfidfTransformer; pivoted
normalisation: Singhal, Buckley & Mitra, SIGIR 1996; latent semantic analysis: Deerwester et al.,
JASIS 1990; Platt scaling (s, s₀): Platt, Advances in Large Margin Classifiers, 1999.
"""

from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse import _sparsetools

MANY_PAIRS = 16
"""From this many pairs of one vacancy on, a product for it alone pays."""
BLOCK_PAIRS = 10_000
"""Other pairs are multiplied in blocks of this size, which bounds the memory."""
LATENT_ROWS = 4_000
"""So many rows are mapped to the latent space at a time."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Space:
    """What turns counts of terms into vectors: fitted on texts, without outcomes."""

    idf: Floats
    latent: Floats
    """E: (terms × k)."""
    projection: Floats
    """A: (k × k)."""
    slope: float
    pivot: float
    """The mean length (L2 norm) of a CV's unnormalised TF-IDF vector."""

    @cached_property
    def relative_idf(self) -> Floats:
        """idf over its mean."""
        return self.idf / self.idf.mean()

    def weighted_again(self, matrix: sp.csr_matrix) -> sp.csr_matrix:
        """Vectors (rows × terms) with each number times the relative idf of its term."""
        return with_data(matrix, matrix.data * self.relative_idf[matrix.indices])


@dataclass(frozen=True)
class Weights:
    """What was learned from who was put forward and who was hired."""

    match_intercept: float
    match_title: float
    match_body: float
    match_latent: float
    hire_intercept: float
    hire_title: Floats
    hire_body: Floats
    hire_cv: Floats
    platt_scale: float
    platt_intercept: float
    gate_from: float
    """m₀: the match logit below which the probability is drawn down."""
    gate_slope: float
    """g: by how much, for each unit below."""


@dataclass(frozen=True)
class Vacancies:
    title: sp.csr_matrix
    body: sp.csr_matrix
    latent: Floats


@dataclass(frozen=True)
class Candidates:
    unit: sp.csr_matrix
    scale: Floats
    """(candidates,): p_c is u_c times this and the relative idf of each term; 0 for an empty CV."""
    latent: Floats


def tf_idf(counts: sp.csr_matrix, idf: Floats) -> sp.csr_matrix:
    """(1 + ln count) · idf for every term of every text, not normalised."""
    weights = np.log(counts.data, dtype=np.float64)
    weights += 1
    weights *= idf[counts.indices]
    return with_data(counts, weights)


def lengths(matrix: sp.csr_matrix) -> Floats:
    """L2 norm of each row."""
    squares = np.zeros(matrix.shape[0])
    filled = np.diff(matrix.indptr) > 0
    squares[filled] = np.add.reduceat(matrix.data**2, matrix.indptr[:-1][filled])
    return np.sqrt(squares)


def vacancy_vectors(titles: sp.csr_matrix, bodies: sp.csr_matrix, space: Space) -> Vacancies:
    """Vectors of vacancies from the term counts of their titles and bodies (rows × terms)."""
    title, body = unit_rows(tf_idf(titles, space.idf)), unit_rows(tf_idf(bodies, space.idf))
    latent = _unit(map_to_latent(title + body, space.latent))
    return Vacancies(title, body, projected(latent, space.projection))


def projected(latent: Floats, projection: Floats) -> Floats:
    """Unit vectors of vacancies in the latent space (vacancies × k), moved by A (k × k)."""
    return _unit(latent @ projection)


def candidate_vectors(cvs: sp.csr_matrix, space: Space) -> Candidates:
    """Vectors of candidates from the term counts of their CVs (rows × terms)."""
    weights = tf_idf(cvs, space.idf)
    length = lengths(weights)
    unit = _unit_rows(weights, length)
    pivoted = (1 - space.slope) * space.pivot + space.slope * length
    scale = length / np.where(length > 0, pivoted, 1)
    return Candidates(unit, scale, _unit(map_to_latent(unit, space.latent)))


def unit_rows(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Each row divided by its L2 norm, in the matrix's precision; empty rows stay empty."""
    return _unit_rows(matrix, lengths(matrix))


def _unit_rows(matrix: sp.csr_matrix, length: Floats) -> sp.csr_matrix:
    factors = np.repeat(1 / np.where(length > 0, length, 1), np.diff(matrix.indptr))
    return with_data(matrix, np.multiply(matrix.data, factors, dtype=matrix.dtype))


def with_data(matrix: sp.csr_matrix, data: NDArray[np.number]) -> sp.csr_matrix:
    """The matrix with other numbers in the same places."""
    other = copy(matrix)  # shares the indices; the constructor would check them all once more
    other.data = data
    return other


def map_to_latent(matrix: sp.csr_matrix, latent: Floats) -> Floats:
    """matrix · E."""
    if matrix.shape[0] == 1:
        return (matrix.data @ latent[matrix.indices])[np.newaxis]
    mapped = np.empty((matrix.shape[0], latent.shape[1]))
    for begin in range(0, len(mapped), LATENT_ROWS):
        rows = matrix[begin:begin + LATENT_ROWS]
        # term by term: E is read once from end to end, and what is added to stays in the cache
        mapped[begin:begin + LATENT_ROWS] = rows.tocsc() @ latent
    return mapped


def _unit(mapped: Floats) -> Floats:
    length = np.linalg.norm(mapped, axis=1, keepdims=True)
    return mapped / np.where(length > 0, length, 1)


@dataclass(frozen=True)
class Query:
    """What a vacancy asks of a CV's terms: w₁ t_v + w₂ b_v, over its terms in ascending order."""

    indices: NDArray[np.int32]
    data: Floats


class Scorer:
    """Scores of vacancies against candidates."""

    def __init__(self, space: Space, weights: Weights) -> None:
        self.space = space
        self.weights = weights

    def query(self, vacancies: Vacancies, v: int) -> Query:
        """w₁ t_v + w₂ b_v."""
        w = self.weights
        columns, values = [], []
        for weight, part in ((w.match_title, vacancies.title), (w.match_body, vacancies.body)):
            own = slice(part.indptr[v], part.indptr[v + 1])
            columns.append(part.indices[own])
            values.append(weight * part.data[own])
        indices, where = np.unique(np.concatenate(columns), return_inverse=True)
        data = np.bincount(where, weights=np.concatenate(values), minlength=len(indices))
        return Query(indices, data.astype(np.float64))

    def match_logits(self, vacancies: Vacancies, v: int, candidates: Candidates) -> Floats:
        """Match logits of vacancy v with every candidate."""
        return self.match_logits_of(self.query(vacancies, v), vacancies.latent[v], candidates)

    def match_logits_of(
        self, query: Query, latent: Floats, candidates: Candidates
    ) -> Floats:
        w = self.weights
        crossed = candidates.scale * (candidates.unit @ self.term_weights(query))
        return w.match_intercept + crossed + w.match_latent * (candidates.latent @ latent)

    def term_weights(self, query: Query) -> Floats:
        """What each term of a CV's unit vector counts for, before the CV's scale."""
        values = np.zeros(len(self.space.idf))
        values[query.indices] = query.data * self.space.relative_idf[query.indices]
        return values

    def match_logits_of_candidate(
        self, vacancies: Vacancies, candidates: Candidates, c: int
    ) -> Floats:
        """Match logits of candidate c with every vacancy."""
        w = self.weights
        cv = candidates.unit[c].toarray().ravel() * self.space.relative_idf * candidates.scale[c]
        crossed = w.match_title * (vacancies.title @ cv) + w.match_body * (vacancies.body @ cv)
        near = vacancies.latent @ candidates.latent[c]
        return w.match_intercept + crossed + w.match_latent * near

    def vacancy_part(self, vacancies: Vacancies) -> Floats:
        """a_title · t_v + a_body · b_v of each vacancy."""
        return vacancies.title @ self.weights.hire_title + vacancies.body @ self.weights.hire_body

    def candidate_part(self, candidates: Candidates) -> Floats:
        """a_cv · u_c of each candidate."""
        return candidates.unit @ self.weights.hire_cv

    def gate(self, match: Floats) -> Floats:
        """How far the probability's logit is drawn down, given the match logits."""
        return self.weights.gate_slope * np.minimum(0, match - self.weights.gate_from)

    def hire_logits(self, vacancy_part: Floats, candidate_part: Floats, match: Floats) -> Floats:
        """Logits of being hired; the three arguments broadcast."""
        w = self.weights
        raw = w.hire_intercept + vacancy_part + candidate_part
        return w.platt_scale * raw + w.platt_intercept + self.gate(match)

    def score_pairs(
        self, vacancies: Vacancies, candidates: Candidates, v: Ints, c: Ints
    ) -> tuple[Floats, Floats]:
        """Match and hire logits of the pairs (v[i], c[i]).

        One matrix-vector product for each vacancy of many pairs, and one product row by row for
        all others.
        """
        match = np.empty(len(v))
        alone = np.bincount(v, minlength=vacancies.title.shape[0])[v] >= MANY_PAIRS
        if len(v) - alone.sum() < MANY_PAIRS:
            alone[:] = True
        rest = np.flatnonzero(~alone)
        for begin in range(0, len(rest), BLOCK_PAIRS):
            rows = rest[begin:begin + BLOCK_PAIRS]
            match[rows] = self._match_row_by_row(vacancies, candidates, v[rows], c[rows])
        many = np.flatnonzero(alone)
        order = many[np.argsort(v[many], kind="stable")]
        bounds = np.flatnonzero(np.diff(v[order], prepend=-1))
        whole = candidates.unit.shape[0]
        for rows in np.split(order, bounds[1:]) if len(order) else []:
            mine = c[rows]
            if len(np.unique(mine)) * 2 < whole:  # only those asked for
                asked, where = np.unique(mine, return_inverse=True)
                some = take(candidates, asked)
                match[rows] = self.match_logits(vacancies, v[rows[0]], some)[where]
            else:
                match[rows] = self.match_logits(vacancies, v[rows[0]], candidates)[mine]
        hire = self.hire_logits(
            self.vacancy_part(vacancies)[v], self.candidate_part(candidates)[c], match
        )
        return match, hire

    def _match_row_by_row(
        self, vacancies: Vacancies, candidates: Candidates, v: Ints, c: Ints
    ) -> Floats:
        w = self.weights
        asked = w.match_title * vacancies.title[v] + w.match_body * vacancies.body[v]
        crossed = candidates.scale[c] * row_dots(
            self.space.weighted_again(asked), candidates.unit[c])
        near = np.einsum("ij,ij->i", vacancies.latent[v], candidates.latent[c])
        return w.match_intercept + crossed + w.match_latent * near


def row_dots(left: sp.csr_matrix, right: sp.csr_matrix) -> Floats:
    """The product of each row with the other's: one number a row."""
    return np.asarray(left.multiply(right).sum(axis=1)).ravel()


def take(candidates: Candidates, rows: Ints) -> Candidates:
    """Some of the candidates."""
    return Candidates(candidates.unit[rows], candidates.scale[rows], candidates.latent[rows])


def sigmoid(logit: Floats) -> Floats:
    """1 / (1 + e^−x), without overflow for any finite x."""
    return 0.5 * (1 + np.tanh(0.5 * logit))


@dataclass(frozen=True)
class Pool:
    """The candidates that came with the training data: codes and vectors, no text.

    The vectors are kept by term (CSC), so that a vacancy touches only its own terms.
    """

    codes: list[str]
    indptr: Ints
    indices: NDArray[np.int32]
    data: NDArray[np.float32]
    latent: NDArray[np.float32]
    candidate_part: Floats

    @cached_property
    def size(self) -> int:
        return len(self.codes)

    def match_logits(self, scorer: Scorer, query: Query, latent: Floats) -> Floats:
        """Match logits of a vacancy's query with the whole pool."""
        w = scorer.weights
        logits = self.crossed(query)
        logits += w.match_intercept
        logits += w.match_latent * (self.latent @ latent.astype(np.float32))
        return logits

    def crossed(self, query: Query) -> Floats:
        """The query times the pivoted vector of each candidate."""
        sums: Floats = np.zeros(self.size)
        # a term at a time: what one of them needs fits into the cache, all together need megabytes.
        # scipy's public product would copy the terms' columns first, and numpy's `add.at` takes
        # twice as long and keeps the interpreter's lock (docs/performance.md). This loop of scipy's
        # is not public, and checks nothing: the version is pinned, and `read_pool` looks before
        for begin, end, weight in zip(
            self.indptr[query.indices], self.indptr[query.indices + 1], query.data, strict=True
        ):
            _sparsetools.csc_matvec(
                self.size, 1, np.array([0, end - begin], np.int32), self.indices[begin:end],
                self.data[begin:end].astype(np.float64), np.array([weight]), sums)
        return sums


def best_first(logits: Floats, k: int) -> Ints:
    """Indices of the k highest, best first; of equals the earlier comes first."""
    k = min(k, len(logits))
    chosen = np.argpartition(-logits, k - 1)[:k] if k < len(logits) else np.arange(k)
    return chosen[np.lexsort((chosen, -logits[chosen]))]
