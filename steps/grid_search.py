"""Grid search over C for logistic regressions: one fit a fold and C, on two cores where it pays.

The worker imports this module: it stays apart from what that does not need.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import GroupKFold
from sklearn.utils import check_random_state

from steps.failure import StepError
from steps.scores import auc_and_precision
from steps.worker import Calls

DUAL_TOLERANCE = 0.1
"""Of what ships: its logits differ by less than 0.01 in the mean from those at 0.0001."""
SEARCH_TOLERANCE = 0.3
"""Of a grid's fits, whose out-of-fold logits the calibration and the threshold look at too: by less
than 0.03 in the mean (docs/performance.md)."""
WORTH_SHARING = 3_000_000
"""Stored features times fits from which the worker takes part in a search: a tenth of a second."""

BY_ORDER = {"roc_auc": 0, "average_precision": 1}
"""Scorings that look at the order of the logits alone, and where `auc_and_precision` has them.
scikit-learn's scorers say the same, but compute the logits again and check all that they are given:
a tenth of a fit on few rows."""


@dataclass(frozen=True)
class Settings:
    """How a grid is searched."""

    c_values: tuple[float, ...]
    folds: int
    scoring: str
    """The name of one of scikit-learn's scorers."""
    max_iter: int
    random_state: int

    @property
    def fits(self) -> int:
        return len(self.c_values) * self.folds


@dataclass(frozen=True)
class Grid:
    """A grid search: score of each fold (rows) at each C (columns)."""

    c_values: tuple[float, ...]
    scores: NDArray[np.float64]
    unconverged: int = 0
    """Fits that stopped at `max_iter`."""

    @property
    def best(self) -> int:
        """The most regularised C whose score lies within one standard error of the highest (the
        one-standard-error rule: Breiman et al., Classification and Regression Trees, 1984)."""
        mean = self.scores.mean(axis=0)
        highest = int(np.argmax(mean))
        error = self.scores[:, highest].std() / np.sqrt(len(self.scores))
        good = np.flatnonzero(mean >= mean[highest] - error)
        return int(good[np.argmin(np.array(self.c_values)[good])])

    @property
    def best_c(self) -> float:
        return self.c_values[self.best]

    def mean(self) -> float:
        return float(self.scores.mean(axis=0)[self.best])

    def deviation(self) -> float:
        return float(self.scores.std(axis=0)[self.best])


@dataclass(frozen=True)
class _Fold:
    """What one fit says of the fold that it has not seen."""

    score: float
    logits: NDArray[np.float64]
    stopped: bool
    """At `max_iter`."""


Regression = Callable[[float, Settings], LogisticRegression]


def many_columns(
    c: float, how: Settings, tolerance: float = DUAL_TOLERANCE
) -> LogisticRegression:
    """The classifier for sparse text features, more columns than rows: its dual needs an eighth of
    the primal's time (docs/performance.md)."""
    return LogisticRegression(C=c, solver="liblinear", dual=True, tol=tolerance,
                              random_state=how.random_state, max_iter=how.max_iter)


searched_columns: Regression = partial(many_columns, tolerance=SEARCH_TOLERANCE)
"""The same for a grid's fits."""


def few_columns(c: float, how: Settings) -> LogisticRegression:
    """The classifier for a few dense features, the last of them the intercept, which is
    regularised with them as liblinear does."""
    return LogisticRegression(C=c, solver="newton-cholesky", fit_intercept=False,
                              max_iter=how.max_iter)


def search(
    x: sp.csr_matrix | NDArray, y: NDArray, groups: NDArray, weight: NDArray, how: Settings,
    regression: Regression = searched_columns, row_of: NDArray[np.int64] | None = None,
) -> tuple[Grid, NDArray[np.float64]]:
    """Grid search over C with folds grouped by vacancy (by its text: reposts stay together).

    y, groups, weight: one value a pair; row_of: the row of x with its features, which it shares
    only with pairs of the same group and outcome (by default each has a row of its own). A pair
    that weighs nothing is not learned from, and has an out-of-fold logit as the others.
    `silence_unconverged` is called before, or each fit that stops warns.
    Returns the grid and, for the best C, the out-of-fold logit of every pair.
    Raises StepError where fewer groups than folds hold a positive, or a fold holds nothing else or
    would learn from nothing else.
    """
    return Search(x, y, groups, weight, how, regression, row_of).result()


def begin_search(
    x: sp.csr_matrix | NDArray, y: NDArray, groups: NDArray, weight: NDArray, how: Settings,
    regression: Regression = searched_columns, row_of: NDArray[np.int64] | None = None,
) -> "Search":
    """The search that `search` does, begun: the worker, where there is one and it pays, fits while
    this process does something else. Its `result` is what `search` returns."""
    begun = Search(x, y, groups, weight, how, regression, row_of)
    if x.size * how.fits >= WORTH_SHARING:
        begun.begin()
    return begun


class Search:
    """A grid search: one fit a fold and C. The fits are shared out to processes, never to threads:
    liblinear draws its random numbers from one generator a process, so that the same data and seed
    would give another model every time."""

    def __init__(
        self, x: sp.csr_matrix | NDArray, y: NDArray, groups: NDArray, weight: NDArray,
        how: Settings, regression: Regression, row_of: NDArray[np.int64] | None,
    ) -> None:
        row_of = np.arange(len(y)) if row_of is None else row_of
        if not isinstance(x, np.ndarray):
            x.sum_duplicates()  # scikit-learn would in place, and what processes share is read-only
        label = np.empty(x.shape[0], y.dtype)
        label[row_of] = y
        folds = list(GroupKFold(how.folds).split(y, y, groups))
        if _lack_a_class(folds, y, weight):
            folds = _spread_folds(y, groups, how)
            if _lack_a_class(folds, y, weight):
                raise StepError(
                    "train: nearly everybody in the training part who was not hired is of one "
                    "vacancy, so that one of the folds learns from nobody else; lower "
                    "grid_search_cv or give more data")
        self._c_values, self._pairs = how.c_values, len(y)
        self._tests = [test for _, test in folds]
        learned = [_row_weights(weight, row_of, test, x.shape[0]) for test in self._tests]
        # the longest first, so that nobody waits for the other at the end
        order = np.argsort(how.c_values, kind="stable")[::-1]
        self._order = [(fold, int(c)) for c in order for fold in range(len(folds))]
        self._calls = Calls([
            partial(_fit_fold, label=label, weight=learned[fold], rows=row_of[self._tests[fold]],
                    y=y[self._tests[fold]], model=regression(how.c_values[c], how),
                    scoring=how.scoring)
            for fold, c in self._order], x)

    def begin(self) -> None:
        """Let the worker begin, where there is one."""
        self._calls.begin()

    def result(self, report: Callable[[float], None] = lambda _: None
               ) -> tuple[Grid, NDArray[np.float64]]:
        """The grid and, for the best C, the out-of-fold logit of every pair. To be asked for once;
        `report` is told the share done (0..1)."""
        found = dict(zip(self._order, self._calls.results(report), strict=True))
        scores = np.array([[found[fold, c].score for c in range(len(self._c_values))]
                           for fold in range(len(self._tests))])
        grid = Grid(self._c_values, scores, sum(fit.stopped for fit in found.values()))
        out_of_fold = np.empty(self._pairs)
        for fold, test in enumerate(self._tests):
            out_of_fold[test] = found[fold, grid.best].logits
        return grid, out_of_fold


def _lack_a_class(
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]], y: NDArray, weight: NDArray
) -> bool:
    """Whether a fold would learn from one class only, or be judged on one."""
    return any(len(np.unique(part)) < 2 for learned, held in folds
               for part in (y[learned][weight[learned] > 0], y[held]))


def _row_weights(weight: NDArray, row_of: NDArray, test: NDArray, rows: int) -> NDArray[np.float64]:
    """The weight of each row where the pairs of one fold are not learned from."""
    learned = weight.copy()
    learned[test] = 0
    return np.bincount(row_of, weights=learned, minlength=rows).astype(np.float64, copy=False)


def _fit_fold(
    x: sp.csr_matrix | NDArray, label: NDArray, weight: NDArray, rows: NDArray, y: NDArray,
    model: LogisticRegression, scoring: str,
) -> _Fold:
    # what is fitted comes from the features, its settings have been checked, and logits that are no
    # numbers would not pass the calibration
    with config_context(assume_finite=True, skip_parameter_validation=True):
        told = np.flatnonzero(weight)  # liblinear would copy the others too, and leave them out
        model.fit(x[told], label[told], sample_weight=weight[told])
        held = x[rows]
        logits = model.decision_function(held)
        if scoring in BY_ORDER:
            score = auc_and_precision(y, logits, np.ones((1, len(y))))[BY_ORDER[scoring]].item()
        else:
            score = float(get_scorer(scoring)(model, held, y))
        return _Fold(score, logits, bool(np.max(model.n_iter_) >= model.max_iter))


def _spread_folds(y: NDArray, groups: NDArray, how: Settings) -> list:
    """Folds by vacancy that each hold both classes: the vacancies with a hire dealt out first."""
    positive = np.unique(groups[y == 1])
    others = np.setdiff1d(np.unique(groups), positive)
    random = check_random_state(how.random_state)
    fold_of = np.zeros(int(groups.max()) + 1, np.int64)
    for part in (positive, others):
        fold_of[random.permutation(part)] = np.arange(len(part)) % how.folds
    if len(positive) < how.folds:
        raise StepError(
            f"train: only {len(positive)} vacancies of the training part hired somebody, fewer "
            f"than the {how.folds} folds; lower grid_search_cv or give more data")
    fold = fold_of[groups]
    if any((y[fold == k] == 1).all() for k in range(how.folds)):
        raise StepError(
            f"train: nearly every vacancy of the training part hired everybody, so that one of the "
            f"{how.folds} folds holds nobody who was not hired; lower grid_search_cv or give more "
            "data")
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(how.folds)]
