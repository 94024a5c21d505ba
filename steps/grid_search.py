"""Grid search over C for logistic regressions: one fit a fold and C, on two cores where it pays.

Every worker process imports this module: it stays apart from what they do not need.
"""

import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass

import joblib
import numpy as np
import scipy.sparse as sp
from joblib.externals.loky import get_reusable_executor
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import GroupKFold
from sklearn.utils import check_random_state

from steps.failure import StepError
from steps.memory import keep_freed
from steps.parent import end_with

DUAL_TOLERANCE = 0.1
"""Logits then differ by less than 0.01 from those at 0.0001 (docs/performance.md)."""
WORKERS = 2
"""At most so many processes: they share the features, but liblinear copies them for each fit."""
WORTH_WORKERS = 2_000_000_000
"""Bytes of records times fits from which other processes pay: each imports for a second."""
WORTH_SHARING = 3_000_000
"""Stored features times fits from which a search is shared out to them: a tenth of a second."""
LARGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
"""For the workers: a quarter off each fit, which begins by copying all features
(docs/performance.md). Other processes that are started later have it too; what the environment
says already is left as it is."""


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


_starting: threading.Thread | None = None
"""What has started the processes to share a search with, where there are any."""

Regression = Callable[[float, Settings], LogisticRegression]
Scoring = Callable[[LogisticRegression, sp.csr_matrix | NDArray, NDArray], float]


def many_columns(c: float, how: Settings) -> LogisticRegression:
    """The classifier for sparse text features, more columns than rows: its dual needs an eighth of
    the primal's time (docs/performance.md)."""
    return LogisticRegression(C=c, solver="liblinear", dual=True, tol=DUAL_TOLERANCE,
                              random_state=how.random_state, max_iter=how.max_iter)


def few_columns(c: float, how: Settings) -> LogisticRegression:
    """The classifier for a few dense features, the last of them the intercept, which is
    regularised with them as liblinear does."""
    return LogisticRegression(C=c, solver="newton-cholesky", fit_intercept=False,
                              max_iter=how.max_iter)


def search(
    x: sp.csr_matrix | NDArray, y: NDArray, groups: NDArray, weight: NDArray, how: Settings,
    regression: Regression = many_columns, row_of: NDArray[np.int64] | None = None,
    report: Callable[[float], None] = lambda _: None,
) -> tuple[Grid, NDArray[np.float64]]:
    """Grid search over C with folds grouped by vacancy (by its text: reposts stay together).

    y, groups, weight: one value a pair; row_of: the row of x with its features, which it shares
    only with pairs of the same group and outcome (by default each has a row of its own); report is
    told the share done (0..1).
    In this process `silence_unconverged` is called before, or each fit that stops warns.
    Returns the grid and, for the best C, the out-of-fold logit of every pair.
    Raises StepError where fewer groups than folds hold a positive, a fold holds nothing else, or a
    worker is killed.
    """
    row_of = np.arange(len(y)) if row_of is None else row_of
    if not isinstance(x, np.ndarray):
        x.sum_duplicates()  # scikit-learn would in place, and what processes share is read-only
    label = np.empty(x.shape[0], y.dtype)
    label[row_of] = y
    folds = list(GroupKFold(how.folds).split(y, y, groups))
    if any(len(np.unique(y[part])) < 2 for fold in folds for part in fold):
        folds = _spread_folds(y, groups, how)
    learned = [_row_weights(weight, row_of, test, x.shape[0]) for _, test in folds]
    # the longest first, so that no core waits for the other at the end
    order = np.argsort(how.c_values, kind="stable")[::-1]
    fits = [(int(c), fold) for c in order for fold in range(len(folds))]
    # never in threads: liblinear draws its random numbers from one generator a process, so the
    # same data and seed would give another model every time
    workers = 1
    if _starting and x.size * len(fits) >= WORTH_SHARING:
        _starting.join()  # where a worker is killed, two threads with one executor wait for ever
        workers = _workers()
    scorer = get_scorer(how.scoring)
    results = {}
    try:
        with _parallel(workers) as parallel:
            found = parallel(
                joblib.delayed(_fit_fold)(x, label, learned[fold], row_of[folds[fold][1]],
                                          y[folds[fold][1]], how.c_values[c], how, regression,
                                          scorer)
                for c, fold in fits)
            for number, (fit, result) in enumerate(zip(fits, found, strict=True), 1):
                results[fit] = result
                report(number / len(fits))
    except BrokenProcessPool as error:
        raise StepError(
            f"train: one of {workers} processes that search the grid was killed, as happens "
            "where memory runs out; give more memory or less data") from error
    scores = np.array([[results[c, fold][0] for c in range(len(how.c_values))]
                       for fold in range(len(folds))])
    grid = Grid(how.c_values, scores, sum(stopped for *_, stopped in results.values()))
    out_of_fold = np.empty(len(y))
    for fold, (_, test) in enumerate(folds):
        out_of_fold[test] = results[grid.best, fold][1]
    return grid, out_of_fold


def worth_workers(records: int, fits: int) -> bool:
    """Whether so many fits on records of so many bytes are worth processes of their own."""
    return records * fits >= WORTH_WORKERS


def start_workers() -> None:
    """Start the processes that share the next searches; they import while others work."""
    global _starting
    workers = _workers()
    prepared = _parallel(workers)

    def start() -> None:
        with suppress(Exception), prepared as parallel:  # a search that fails too will say why
            list(parallel(joblib.delayed(os.getpid)() for _ in range(workers)))

    _starting = threading.Thread(target=start, daemon=True)
    _starting.start()


def end_workers() -> None:
    """End those processes, which keep memory for the next search, where there are any."""
    global _starting
    if _starting:
        _starting.join()  # or they would start after their end
        get_reusable_executor(reuse=True).shutdown(wait=False)
    _starting = None


def _workers() -> int:
    return min(joblib.cpu_count(), WORKERS)


def _parallel(workers: int) -> joblib.Parallel:
    """Searches with the same number of workers share the processes."""
    if workers > 1:
        os.environ.setdefault(*LARGE_PAGES)  # glibc reads it where a process starts
    return joblib.Parallel(workers, return_as="generator", initializer=_begin_worker,
                           initargs=(os.getpid(),))


def silence_unconverged() -> None:
    """No warnings of fits that stop at `max_iter`, in this process: the grid counts them."""
    warnings.simplefilter("ignore", ConvergenceWarning)


def _begin_worker(parent: int) -> None:
    keep_freed()
    silence_unconverged()
    end_with(parent)


def _row_weights(weight: NDArray, row_of: NDArray, test: NDArray, rows: int) -> NDArray[np.float64]:
    """A weight of 0 leaves a row out, without copying the others."""
    learned = weight.copy()
    learned[test] = 0
    return np.bincount(row_of, weights=learned, minlength=rows).astype(np.float64, copy=False)


def _fit_fold(
    x: sp.csr_matrix | NDArray, label: NDArray, weight: NDArray, rows: NDArray, y: NDArray,
    c: float, how: Settings, regression: Regression, scorer: Scoring,
) -> tuple[float, NDArray[np.float64], bool]:
    """Score and logits of the rows left out, and whether the fit stopped at `max_iter`."""
    model = regression(c, how).fit(x, label, sample_weight=weight)
    held = x[rows]
    return (float(scorer(model, held, y)), model.decision_function(held),
            bool(np.max(model.n_iter_) >= how.max_iter))


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
