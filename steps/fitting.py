"""Fits the two scores: logistic regressions over the vectors of `jobmatch_pyfunc.scoring`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field, field_validator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer, roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.utils import check_random_state

from jobmatch_pyfunc.scoring import Candidates, Scorer, Space, Vacancies, Weights, sigmoid
from steps.corpus import Pairs
from steps.failure import StepError
from steps.featurize import FeaturizeParameters
from steps.parameters import FloatList
from steps.scores import best_f1_threshold

TITLE_SCALE = 0.4
"""Weight of the title's block beside the body's in the hire features (docs/experiments.md)."""
MATCH_PAIRS = 20_000
"""At most so many pairs are drawn to fit the match: it has four numbers to learn."""
CALIBRATION_HALF_LIFE = 180.0
"""Days after which a pair counts half in the calibration: the share of hired people drifts."""
GATE_QUANTILE, GATE_DEPTH = 0.1, 2.0
"""The gate is open from this quantile of the match logits of people who were put forward, and
takes `GATE_DEPTH` from the probability's logit where a CV shares nothing with the vacancy."""
DUAL_TOLERANCE = 0.1
"""Logits then differ by less than 0.01 from those at 0.0001 (docs/performance.md)."""
SCORERS = ("roc_auc", "average_precision", "neg_log_loss", "neg_brier_score", "f1", "precision",
           "recall", "accuracy", "balanced_accuracy")
"""Those of scikit-learn that judge a classifier of two classes."""
SMALLEST_C = 1e-6
"""Beyond it, and beyond its inverse, liblinear's numbers overflow or do not move."""
IMPLAUSIBLE_AUC = 0.85
"""A single column that tells the outcome this well must have seen it: on real records those that
have not stay below 0.76 (docs/model.md)."""


class TrainParameters(FeaturizeParameters):
    grid_search_c_values: FloatList
    grid_search_cv: int = Field(ge=2, le=50)
    grid_search_scoring: str
    logistic_regression_max_iter: int = Field(ge=1, le=1_000_000)
    negatives_per_pair: int = Field(ge=1, le=1000)
    undecided_weight: float = Field(gt=0, le=1)

    @field_validator("grid_search_c_values")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or min(values) < SMALLEST_C or max(values) > 1 / SMALLEST_C:
            raise ValueError(f"must be numbers from {SMALLEST_C:g} to {1 / SMALLEST_C:g}, "
                             "separated by commas")
        return values

    @field_validator("grid_search_scoring")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SCORERS:
            raise ValueError(f"must be one of scikit-learn's scorers {', '.join(SCORERS)}")
        return name


@dataclass(frozen=True)
class Grid:
    """A grid search: score of each fold (rows) at each C (columns)."""

    c_values: tuple[float, ...]
    scores: NDArray[np.float64]
    unconverged: int = 0
    """Fits that stopped at `logistic_regression_max_iter`."""

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
class Data:
    """What one part is fitted on."""

    vacancies: Vacancies
    candidates: Candidates
    space: Space
    pairs: Pairs
    """Training pairs, with or without a CV."""
    posting: NDArray[np.int64]
    """Of each vacancy: those that were posted again with the same text stay in one fold."""
    age: NDArray[np.float64]
    """Days between each vacancy and the newest one."""
    pool: NDArray[np.int64]
    """Numbers of the candidates that non-matches may be drawn from."""


@dataclass(frozen=True)
class Fit:
    scorer: Scorer
    threshold: float
    match_grid: Grid
    hire_grid: Grid
    out_of_fold: dict[str, NDArray] = field(repr=False)
    """`hired` and `probability` of the joined training pairs."""


def fit(data: Data, p: TrainParameters, fixed: Fit | None = None,
        report: Callable[[float], None] = lambda _: None) -> Fit:
    """Fit both scores; with `fixed`, at the C that an earlier fit chose."""
    c_values = p.grid_search_c_values
    match_weights, match_grid = fit_match(
        data, p, c_values if fixed is None else (fixed.match_grid.best_c,))
    report(0.2)
    scorer = Scorer(data.space, match_weights)
    return fit_hire(data, p, scorer, match_grid, fixed, report)


def fit_match(
    data: Data, p: TrainParameters, c_values: tuple[float, ...]
) -> tuple[Weights, Grid]:
    """Learn who is put forward: real pairs against candidates drawn at random."""
    real = data.pairs.where(data.pairs.candidate >= 0)
    _require_groups(data.posting[real.vacancy], p.grid_search_cv)
    generator = np.random.default_rng(p.random_state)
    if len(real) > MATCH_PAIRS:
        drawn = np.zeros(len(real), bool)
        drawn[generator.choice(len(real), MATCH_PAIRS, replace=False)] = True
        real = real.where(drawn)
    v = np.concatenate([real.vacancy, np.repeat(real.vacancy, p.negatives_per_pair)])
    c = np.concatenate(
        [real.candidate, generator.choice(data.pool, len(real) * p.negatives_per_pair)])
    put_forward = np.arange(len(v)) < len(real)
    width = data.candidates.unit.shape[0]
    with_cv = data.pairs.where(data.pairs.candidate >= 0)
    known = np.isin(v * width + c, with_cv.vacancy * width + with_cv.candidate)
    kept = put_forward | ~known
    v, c, y = v[kept], c[kept], put_forward[kept].astype(np.int64)
    x = match_features(data.vacancies, data.candidates, v, c)
    x = np.column_stack([x, np.ones(len(x))])
    scale = np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    grid, _ = search(x / scale, y, data.posting[v], np.ones(len(y)), p, c_values, few_columns)
    model = few_columns(grid.best_c, p).fit(x / scale, y)
    title, body, latent, intercept = model.coef_[0] / scale
    nothing = np.zeros(0)
    return Weights(float(intercept), title, body, latent,
                   0.0, nothing, nothing, nothing, 1.0, 0.0, -np.inf, 0.0), grid


def match_features(
    vacancies: Vacancies, candidates: Candidates, v: NDArray, c: NDArray
) -> NDArray[np.float64]:
    """t_v · p_c, b_v · p_c and l_v · l_c of each pair: (pairs × 3)."""
    blocks = [np.zeros((0, 3))]
    for rows in _batches(len(v)):
        mine = candidates.pivoted[c[rows]]
        blocks.append(np.column_stack([
            _row_dots(vacancies.title[v[rows]], mine),
            _row_dots(vacancies.body[v[rows]], mine),
            np.einsum("ij,ij->i", vacancies.latent[v[rows]], candidates.latent[c[rows]]),
        ]))
    return np.concatenate(blocks)


def hire_features(data: Data, pairs: Pairs) -> sp.csr_matrix:
    """Title, body and CV side by side; the CV's block is empty where there is no CV."""
    n, width = data.candidates.unit.shape
    unit = sp.vstack([data.candidates.unit, sp.csr_matrix((1, width))]).tocsr()
    v, c = pairs.vacancy, np.where(pairs.candidate < 0, n, pairs.candidate)
    return side_by_side(
        [TITLE_SCALE * data.vacancies.title[v], data.vacancies.body[v], unit[c]])


def alike(pairs: Pairs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs without a CV, of one vacancy and with one outcome, have the same features: one of each
    kind, and for every pair its kind. Their weights add up to the same loss."""
    vacancies = int(pairs.vacancy.max()) + 1
    kind = np.where(pairs.candidate < 0, pairs.vacancy + vacancies * pairs.hired,
                    2 * vacancies + np.arange(len(pairs)))
    _, distinct, row_of = np.unique(kind, return_index=True, return_inverse=True)
    return distinct, row_of


def side_by_side(blocks: Sequence[sp.csr_matrix]) -> sp.csr_matrix:
    """The blocks' columns one after the other, as `scipy.sparse.hstack`, which would write every
    entry's row out on the way."""
    width = sum(block.shape[1] for block in blocks)
    placed, begin = sp.csr_matrix((blocks[0].shape[0], width)), 0
    for block in blocks:
        shifted = (block.data, block.indices + begin, block.indptr)
        placed = placed + sp.csr_matrix(shifted, shape=placed.shape)
        begin += block.shape[1]
    return placed


def fit_hire(data: Data, p: TrainParameters, scorer: Scorer, match_grid: Grid,
             fixed: Fit | None, report: Callable[[float], None]) -> Fit:
    """Learn who is hired, from every pair with a known outcome, with or without a CV.

    An undecided pair counts as not hired, with less weight; the pairs of a vacancy with n pairs
    weigh √n together, so that a vacancy with a hundred prospects does not drown the others. The
    calibration counts every pair in full.
    """
    kept = data.pairs.known
    pairs, age = data.pairs.where(kept), data.age[kept]
    posting = data.posting[pairs.vacancy]
    _require_groups(posting, p.grid_search_cv)
    y = pairs.hired
    distinct, row_of = alike(pairs)
    x = hire_features(data, pairs.where(distinct))
    require_no_leak(x, y[distinct], posting[distinct], data, p)
    report(0.35)
    per_vacancy = np.bincount(pairs.vacancy)[pairs.vacancy]
    weight = np.where(pairs.undecided, p.undecided_weight, 1) / np.sqrt(per_vacancy)
    c_values = p.grid_search_c_values if fixed is None else (fixed.hire_grid.best_c,)
    grid, out_of_fold = search(x, y, posting, weight, p, c_values, row_of=row_of)
    report(0.9)
    model = many_columns(grid.best_c, p).fit(
        x, y[distinct], sample_weight=np.bincount(row_of, weights=weight))
    platt = LogisticRegression(C=1e9).fit(
        out_of_fold[:, None], y, sample_weight=0.5 ** (age / CALIBRATION_HALF_LIFE))
    terms = data.candidates.unit.shape[1]
    title, body, cv = np.split(model.coef_[0], [terms, 2 * terms])
    weights = replace(
        scorer.weights,
        hire_intercept=float(model.intercept_[0]), hire_title=TITLE_SCALE * title,
        hire_body=body, hire_cv=cv,
        platt_scale=float(platt.coef_[0, 0]), platt_intercept=float(platt.intercept_[0]))
    joined = pairs.candidate >= 0
    features = match_features(data.vacancies, data.candidates,
                              pairs.vacancy[joined], pairs.candidate[joined])
    match = weights.match_intercept + features @ np.array(
        [weights.match_title, weights.match_body, weights.match_latent])
    opens = float(np.quantile(match, GATE_QUANTILE))
    depth = max(opens - weights.match_intercept, 0.5)  # from there down to a CV that shares nothing
    weights = replace(weights, gate_from=opens, gate_slope=GATE_DEPTH / depth)
    scorer = Scorer(data.space, weights)
    probability = sigmoid(weights.platt_scale * out_of_fold[joined] + weights.platt_intercept
                          + scorer.gate(match))
    return Fit(scorer, best_f1_threshold(y[joined], probability), match_grid, grid,
               {"hired": y[joined], "probability": probability})


def many_columns(c: float, p: TrainParameters) -> LogisticRegression:
    """The classifier for sparse text features, more columns than rows: its dual needs an eighth of
    the primal's time (docs/performance.md)."""
    return LogisticRegression(C=c, solver="liblinear", dual=True, tol=DUAL_TOLERANCE,
                              random_state=p.random_state, max_iter=p.logistic_regression_max_iter)


def few_columns(c: float, p: TrainParameters) -> LogisticRegression:
    """The classifier for a few dense features, the last of them the intercept, which is
    regularised with them as liblinear does."""
    return LogisticRegression(C=c, solver="newton-cholesky", fit_intercept=False,
                              max_iter=p.logistic_regression_max_iter)


def search(
    x: sp.csr_matrix | NDArray, y: NDArray, groups: NDArray, weight: NDArray, p: TrainParameters,
    c_values: tuple[float, ...],
    regression: Callable[[float, TrainParameters], LogisticRegression] = many_columns,
    row_of: NDArray[np.int64] | None = None,
) -> tuple[Grid, NDArray[np.float64]]:
    """Grid search over C with folds grouped by vacancy (by its text: reposts stay together).

    y, groups, weight: one value a pair; row_of: the row of x with its features, which it shares
    only with pairs of the same group and outcome (by default each has a row of its own).
    Returns the grid and, for the best C, the out-of-fold logit of every pair.
    """
    row_of = np.arange(len(y)) if row_of is None else row_of
    label = np.empty(x.shape[0], y.dtype)
    label[row_of] = y
    folds = list(GroupKFold(p.grid_search_cv).split(y, y, groups))
    if any(len(np.unique(y[part])) < 2 for fold in folds for part in fold):
        folds = _spread_folds(y, groups, p)
    scorer = get_scorer(p.grid_search_scoring)

    def one(test: NDArray, c: float) -> tuple[float, NDArray, bool]:
        weight_here = weight.copy()  # a weight of 0 leaves a row out, without copying the others
        weight_here[test] = 0
        model = regression(c, p).fit(
            x, label, sample_weight=np.bincount(row_of, weights=weight_here))
        held = x[row_of[test]]
        return (float(scorer(model, held, y[test])), model.decision_function(held),
                bool(np.max(model.n_iter_) >= p.logistic_regression_max_iter))

    # one after the other: liblinear draws its random numbers from one generator a process, so
    # threads would take each other's, and the same data and seed give another model every time
    results = [one(test, c) for c in c_values for _, test in folds]
    scores = np.array([score for score, *_ in results]).reshape(len(c_values), len(folds)).T
    grid = Grid(c_values, scores, sum(stopped for *_, stopped in results))
    out_of_fold = np.empty(len(y))
    for (_, test), (_, logits, _) in zip(
        folds, results[grid.best * len(folds):(grid.best + 1) * len(folds)], strict=True
    ):
        out_of_fold[test] = logits
    return grid, out_of_fold


def _spread_folds(y: NDArray, groups: NDArray, p: TrainParameters) -> list:
    """Folds by vacancy that each hold both classes: the vacancies with a hire dealt out first."""
    positive = np.unique(groups[y == 1])
    others = np.setdiff1d(np.unique(groups), positive)
    random = check_random_state(p.random_state)
    fold_of = np.zeros(int(groups.max()) + 1, np.int64)
    for part in (positive, others):
        fold_of[random.permutation(part)] = np.arange(len(part)) % p.grid_search_cv
    if len(positive) < p.grid_search_cv:
        raise StepError(
            f"train: only {len(positive)} vacancies of the training part hired somebody, fewer "
            f"than the {p.grid_search_cv} folds; lower grid_search_cv or give more data")
    fold = fold_of[groups]
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k))
            for k in range(p.grid_search_cv)]


def require_no_leak(
    x: sp.csr_matrix, y: NDArray, groups: NDArray, data: Data, p: TrainParameters
) -> None:
    """Raises StepError where one column alone, or whether it is filled at all, tells the outcome
    implausibly well."""
    terms = data.candidates.unit.shape[1]
    quick = p.model_copy(update={"grid_search_cv": 2, "grid_search_scoring": "roc_auc"})
    for number, name in enumerate(("titulo_vaga", "principais_atividades and "
                                   "competencia_tecnicas_e_comportamentais", "cv_pt")):
        block = x[:, number * terms:(number + 1) * terms]
        told = np.diff(block.indptr) > 0
        presence = float(roc_auc_score(y, told))
        _require_plausible(max(presence, 1 - presence), f"whether {name} is filled")
        if len(np.unique(groups[told & (y == 1)])) < 2:
            continue
        grid, _ = search(block[told], y[told], groups[told], np.ones(told.sum()), quick, (1.0,))
        _require_plausible(grid.mean(), name)


def _require_plausible(auc: float, what: str) -> None:
    if auc > IMPLAUSIBLE_AUC:
        raise StepError(
            f"train: {what} alone predicts who is hired with an AUC of {auc:.3f}, which nothing "
            "written before the decision does; look for the outcome in it and take it out")


def _require_groups(vacancies: NDArray, folds: int) -> None:
    groups = len(np.unique(vacancies))
    if groups < folds:
        raise StepError(f"train: {groups} vacancies in the training part, fewer than the {folds} "
                        "folds; lower grid_search_cv or give more data")


def _row_dots(left: sp.csr_matrix, right: sp.csr_matrix) -> NDArray[np.float64]:
    return np.asarray(left.multiply(right).sum(axis=1)).ravel()


def _batches(rows: int, size: int = 20_000) -> Iterator[slice]:
    for begin in range(0, rows, size):
        yield slice(begin, begin + size)
