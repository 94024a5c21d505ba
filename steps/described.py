"""The described model, as a baseline: logistic regression on the TF-IDF of both job texts and of
the CV, side by side."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from jobmatch_pyfunc.scoring import sigmoid, unit_rows, with_data
from jobmatch_pyfunc.storage import read_json, write_json
from steps.corpus import Corpus, Pairs, weights_of_drawn
from steps.fitting import TrainParameters, side_by_side
from steps.grid_search import begin_search, many_columns
from steps.memory import give_back

FIELDS = ("activities", "requirements", "cv")
NOT_HIRED = 10_000
"""C is searched for with at most so many people who were not hired; all are learned from then."""
FOLDS = 3
"""C is searched for in at most so many folds: more choose the same (docs/experiments.md)."""


@dataclass(frozen=True)
class Vectoriser:
    """A fitted TF-IDF vectoriser (scikit-learn's defaults)."""

    terms: list[str]
    idf: list[float]

    def transform(
        self, corpus: Corpus, texts: NDArray
    ) -> tuple[sp.csr_matrix, NDArray[np.int64]]:
        """Unit TF-IDF of the distinct ones of the texts with these numbers, and each text's row."""
        used, where = np.unique(texts, return_inverse=True)
        counts = corpus.counts(self.terms)[used]
        weights = counts.data * np.array(self.idf, np.float32)[counts.indices]
        return unit_rows(with_data(counts, weights)), where


@dataclass(frozen=True)
class DescribedModel:
    vectorisers: dict[str, Vectoriser]
    coefficients: list[float]
    intercept: float
    c: float
    """As the grid search chose it."""

    def logits(self, corpus: Corpus, pairs: Pairs) -> NDArray[np.float64]:
        return _side_by_side(self.vectorisers, corpus, pairs) @ self.coefficients + self.intercept

    def probability(self, corpus: Corpus, pairs: Pairs) -> NDArray[np.float64]:
        return sigmoid(self.logits(corpus, pairs))

    def cv_part(self, corpus: Corpus, candidates: NDArray) -> NDArray[np.float64]:
        """What the CV adds to the logit. The job's part is the same for a whole pool, so this
        alone orders it."""
        vectoriser = self.vectorisers["cv"]
        mine = np.array(self.coefficients[-len(vectoriser.terms):])
        weights, row = vectoriser.transform(corpus, corpus.cv[candidates])
        return (weights @ mine)[row]


def fit_described(
    vectorisers: dict[str, Vectoriser], corpus: Corpus, pairs: Pairs, p: TrainParameters,
    fixed: DescribedModel | None = None,
) -> DescribedModel:
    """Fit on the joined training pairs, with a grid over the same C; with `fixed`, at its C."""
    x = _side_by_side(vectorisers, corpus, pairs)
    c = _best_c(x, corpus, pairs, p) if fixed is None else fixed.c
    model = many_columns(c, p.grid).fit(x, pairs.hired)
    return DescribedModel(vectorisers, model.coef_[0].tolist(), float(model.intercept_[0]), c)


def _best_c(x: sp.csr_matrix, corpus: Corpus, pairs: Pairs, p: TrainParameters) -> float:
    posting = corpus.postings[pairs.vacancy]
    folds = min(FOLDS, p.grid_search_cv, len(np.unique(posting[pairs.hired == 1])))
    if folds < 2:  # all its hires are of one vacancy: there is nothing to search on
        return float(np.median(p.grid_search_c_values))
    how = replace(p.grid, folds=folds)
    weight = weights_of_drawn(pairs.hired == 0, NOT_HIRED, p.random_state)
    give_back()  # the worker needs memory now
    grid, _ = begin_search(x, pairs.hired, posting, weight, how).result()
    return grid.best_c


def write_described(path: Path, model: DescribedModel) -> None:
    write_json(path, asdict(model))


def read_described(path: Path) -> DescribedModel:
    value = read_json(path)
    vectorisers = {name: Vectoriser(**v) for name, v in value["vectorisers"].items()}
    return DescribedModel(vectorisers, value["coefficients"], value["intercept"], value["c"])


def _side_by_side(
    vectorisers: dict[str, Vectoriser], corpus: Corpus, pairs: Pairs
) -> sp.csr_matrix:
    texts = {"activities": corpus.activities[pairs.vacancy],
             "requirements": corpus.requirements[pairs.vacancy],
             "cv": corpus.cv[pairs.candidate]}
    return side_by_side([vectorisers[name].transform(corpus, texts[name]) for name in FIELDS])
