"""Fits the two scores: logistic regressions over the vectors of `jobmatch_pyfunc.scoring`."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field, field_validator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from jobmatch_pyfunc.scoring import (
    Candidates,
    Scorer,
    Space,
    Vacancies,
    Weights,
    projected,
    row_dots,
    sigmoid,
)
from steps.corpus import Pairs, drawn, row_batches, weights_of_drawn
from steps.failure import StepError
from steps.featurize import FeaturizeParameters
from steps.grid_search import (
    Grid,
    Search,
    Settings,
    begin_search,
    few_columns,
    many_columns,
    search,
)
from steps.memory import give_back
from steps.parameters import FloatList
from steps.scores import auc_standard_error, best_f1_threshold

TITLE_SCALE = 0.4
"""Weight of the title's block beside the body's in the hire features (docs/experiments.md)."""
PROJECTION_RIDGE = 10.0
"""How much the projection is held back (docs/experiments.md)."""
PROJECTED_PAIRS = 10_000
"""At most so many pairs are drawn to fit the projection: dimensions² numbers
(docs/experiments.md)."""
WEIGHED_PAIRS = 3_000
"""At most so many of these, each beside pairs of candidates drawn at random, to fit the match's
four numbers (docs/experiments.md)."""
CALIBRATION_HALF_LIFE = 180.0
"""Days after which a pair counts half in the calibration: the share of hired people drifts."""
GATE_QUANTILE, GATE_DEPTH = 0.1, 2.0
"""The gate is open from this quantile of the match logits of people who were put forward, and
takes `GATE_DEPTH` from the probability's logit where a CV shares nothing with the vacancy."""
SCORERS = ("roc_auc", "average_precision", "neg_log_loss", "neg_brier_score", "f1", "precision",
           "recall", "accuracy", "balanced_accuracy")
"""Those of scikit-learn that judge a classifier of two classes."""
SMALLEST_C = 1e-6
"""Beyond it, and beyond its inverse, liblinear's numbers overflow or do not move."""
PLAUSIBLE_AUC, IMPLAUSIBLE_AUC = 0.76, 0.85
"""A single column that tells the outcome better than the second must have seen it, unless so few
were hired that it could be the first: on real records no column that has not seen it tells more
(docs/model.md)."""
UNDECIDED_KINDS = 5_500
"""At most so many kinds of undecided pairs are learned from, which is more than the real records
hold, or half as many as there are of others where that is more: the rest tell nothing that they do
not (docs/experiments.md)."""
LEAK_PAIRS = 5_000
"""A leak is looked for in at most so many pairs of each outcome: what tells so much shows there."""


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

    @property
    def grid(self) -> Settings:
        return Settings(self.grid_search_c_values, self.grid_search_cv, self.grid_search_scoring,
                        self.logistic_regression_max_iter, self.random_state)


@dataclass(frozen=True)
class Data:
    """What one part is fitted on."""

    vacancies: Vacancies
    """Not moved in the latent space yet, as `space` has no projection but I."""
    candidates: Candidates
    space: Space
    pairs: Pairs
    """Training pairs, with or without a CV."""
    posting: NDArray[np.int64]
    """Of each vacancy: those that were posted again with the same text stay in one fold."""
    age: NDArray[np.float64]
    """Days between each pair's vacancy and the newest one."""
    pool: NDArray[np.int64]
    """Numbers of the candidates that non-matches may be drawn from."""


@dataclass(frozen=True)
class Matching:
    """What `fit_match` has learned."""

    scorer: Scorer
    """Knows nothing of the hire yet."""
    grid: Grid
    vacancies: Vacancies
    """Those of the data, moved by projections that have not seen their pairs."""


@dataclass(frozen=True)
class Fit:
    scorer: Scorer
    threshold: float
    match_grid: Grid
    hire_grid: Grid
    out_of_fold: NDArray[np.float64] = field(repr=False)
    """Hire logit, before calibration, of every training pair with a known outcome."""
    unconverged: int = 0
    """Fits of the grids and of the hire that stopped at `logistic_regression_max_iter`."""


@dataclass(frozen=True)
class Earlier:
    """What a fit on the earlier vacancies has found for a fit on all of them."""

    match_grid: Grid
    hire_grid: Grid
    logits: NDArray[np.float64]
    """Hire logit, before calibration, of every pair with a known outcome, by a model that has not
    seen its vacancy."""
    unseen: NDArray[np.bool_]
    """Of each of these pairs: whether that model has not seen the vacancy's text either."""


def fit(data: Data, p: TrainParameters, earlier: Earlier | None = None,
        report: Callable[[float], None] = lambda _: None) -> Fit:
    """Fit both scores: after a grid search, or with what an earlier one has found. `report` is
    told the share done (0..1)."""
    learned = hire_rows(data, p)
    report(0.1)
    give_back()  # liblinear is about to copy features, here and in the worker
    x = None if earlier else hire_features(data, learned.pairs.where(learned.distinct))
    found: Search | Earlier = earlier or begin_search(
        x, learned.pairs.hired, learned.posting, learned.weight, p.grid,
        row_of=learned.row_of)  # goes on while the match is fitted
    # BLAS's own threads would wait busily on the worker's core, and show in the last bit
    with threadpool_limits(1, "blas"):
        matching = fit_match(data, p, earlier.match_grid if earlier else None)
        report(0.2)
        return fit_hire(data, p, learned, x, matching, found, report)


def fit_match(
    data: Data, p: TrainParameters, grid: Grid | None = None
) -> Matching:
    """Learn who is put forward: real pairs against candidates drawn at random."""
    with_cv = data.pairs.where(data.pairs.candidate >= 0)
    generator = np.random.default_rng(p.random_state)
    seen = with_cv.where(drawn(np.arange(len(with_cv)), PROJECTED_PAIRS, generator))
    real = seen.where(drawn(np.arange(len(seen)), WEIGHED_PAIRS, generator))
    _require_groups(data.posting[real.vacancy], p.grid_search_cv)
    v = np.concatenate([real.vacancy, np.repeat(real.vacancy, p.negatives_per_pair)])
    c = np.concatenate(
        [real.candidate, generator.choice(data.pool, len(real) * p.negatives_per_pair)])
    put_forward = np.arange(len(v)) < len(real)
    width = data.candidates.unit.shape[0]
    known = np.isin(v * width + c, with_cv.vacancy * width + with_cv.candidate)
    kept = put_forward | ~known
    v, c, y = v[kept], c[kept], put_forward[kept].astype(np.int64)
    found = projection(data, seen)
    vacancies = replace(
        data.vacancies, latent=out_of_fold(data, seen, found, p.grid_search_cv))
    x = match_features(vacancies, data.candidates, data.space, v, c)
    x = np.column_stack([x, np.ones(len(x))])
    scale = np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    if grid is None:
        grid, _ = search(x / scale, y, data.posting[v], np.ones(len(y)), p.grid, few_columns)
    model = few_columns(grid.best_c, p.grid).fit(x / scale, y)
    title, body, latent, intercept = model.coef_[0] / scale
    nothing = np.zeros(0)
    scorer = Scorer(replace(data.space, projection=found), Weights(
        float(intercept), title, body, latent,
        0.0, nothing, nothing, nothing, 1.0, 0.0, -np.inf, 0.0))
    return Matching(scorer, grid, vacancies)


def projection(data: Data, pairs: Pairs) -> NDArray[np.float64]:
    """A of `jobmatch_pyfunc.scoring`: (k × k), the identity plus W.

    W is the ridge regression (Hoerl & Kennard, Technometrics 1970), one row a pair with a CV, of
    the CV's unit vector in the latent space, less the mean of all, on the vacancy's: which CVs are
    put forward for such a vacancy rather than for any.
    """
    asked, given = data.vacancies.latent[pairs.vacancy], data.candidates.latent[pairs.candidate]
    model = Ridge(PROJECTION_RIDGE, fit_intercept=False).fit(asked, given - given.mean(axis=0))
    dimensions = asked.shape[1]
    return np.eye(dimensions) + model.coef_.reshape(dimensions, dimensions).T


def out_of_fold(
    data: Data, pairs: Pairs, whole: NDArray[np.float64], folds: int
) -> NDArray[np.float64]:
    """Latent vectors (vacancies × k), each moved by a projection that has not seen its pairs: one
    that has makes its pairs look nearer than those of a new vacancy will be. Vacancies without a
    pair are moved by `whole`, which has seen all pairs."""
    latent = data.vacancies.latent
    moved = projected(latent, whole)
    split = GroupKFold(folds).split(pairs.vacancy, groups=data.posting[pairs.vacancy])
    for learned, left in split:
        v = np.unique(pairs.vacancy[left])
        moved[v] = projected(latent[v], projection(data, pairs.where(learned)))
    return moved


def match_features(
    vacancies: Vacancies, candidates: Candidates, space: Space, v: NDArray, c: NDArray
) -> NDArray[np.float64]:
    """t_v · p_c, b_v · p_c and l_v · l_c of each pair: (pairs × 3)."""
    title, body = map(space.weighted_again, (vacancies.title, vacancies.body))

    def block(rows: slice) -> NDArray[np.float64]:
        mine, scale = candidates.unit[c[rows]], candidates.scale[c[rows]]
        return np.column_stack([
            scale * row_dots(title[v[rows]], mine),
            scale * row_dots(body[v[rows]], mine),
            np.einsum("ij,ij->i", vacancies.latent[v[rows]], candidates.latent[c[rows]]),
        ])

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # scipy lets go of the interpreter's lock
        blocks = threads.map(block, row_batches(len(v)))
        return np.concatenate([np.zeros((0, 3)), *blocks])


def hire_features(data: Data, pairs: Pairs) -> sp.csr_matrix:
    """Title, body and CV side by side; the CV's block is empty where there is no CV."""
    unit = data.candidates.unit
    n, width = unit.shape
    unit = sp.csr_matrix(  # with an empty row for those without a CV; the numbers are shared
        (unit.data, unit.indices, np.append(unit.indptr, unit.indptr[-1])), shape=(n + 1, width))
    v, c = pairs.vacancy, np.where(pairs.candidate < 0, n, pairs.candidate)
    return side_by_side(
        [(TITLE_SCALE * data.vacancies.title, v), (data.vacancies.body, v), (unit, c)])


def alike(pairs: Pairs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs without a CV, of one vacancy and with one outcome, have the same features: one of each
    kind, and for every pair its kind. Their weights add up to the same loss."""
    vacancies = int(pairs.vacancy.max()) + 1
    kind = np.where(pairs.candidate < 0, pairs.vacancy + vacancies * pairs.hired,
                    2 * vacancies + np.arange(len(pairs)))
    _, distinct, row_of = np.unique(kind, return_index=True, return_inverse=True)
    return distinct, row_of


def side_by_side(blocks: Sequence[tuple[sp.csr_matrix, NDArray]]) -> sp.csr_matrix:
    """Chosen rows of some matrices, the blocks' columns one after the other: what
    `scipy.sparse.hstack` gives, some rows at a time and in single precision, so that only the
    result is in memory as a whole."""
    rows = len(blocks[0][1])
    sizes = sum(np.diff(matrix.indptr)[chosen].astype(np.int64) for matrix, chosen in blocks)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    for some in row_batches(rows):
        part = sp.hstack([matrix[chosen[some]] for matrix, chosen in blocks], format="csr")
        place = slice(indptr[some.start], indptr[some.stop])
        indices[place], data[place] = part.indices, part.data
    return sp.csr_matrix((data, indices, indptr),
                         shape=(rows, sum(matrix.shape[1] for matrix, _ in blocks)))


@dataclass(frozen=True)
class HireRows:
    """What the hire is learned from: every pair with a known outcome, with or without a CV.

    An undecided pair counts as not hired, with less weight; the pairs of a vacancy with n pairs
    weigh √n together, so that a vacancy with a hundred prospects does not drown the others. Of
    many kinds with undecided pairs only, some are drawn, which weigh for the others: those are not
    learned from (Horvitz & Thompson, JASA 1952).
    """

    pairs: Pairs
    posting: NDArray[np.int64]
    weight: NDArray[np.float64]
    age: NDArray[np.float64]
    """As in `Data`. One entry a pair, all four."""
    distinct: NDArray[np.int64]
    """A pair of each kind: those of a kind have the same features."""
    row_of: NDArray[np.int64]
    """The kind of each pair."""


def hire_rows(data: Data, p: TrainParameters) -> HireRows:
    """The rows that the hire is learned from. Raises StepError where fewer vacancies than folds
    have one."""
    kept = data.pairs.known
    pairs = data.pairs.where(kept)
    posting = data.posting[pairs.vacancy]
    _require_groups(posting, p.grid_search_cv)
    distinct, row_of = alike(pairs)
    per_vacancy = np.bincount(pairs.vacancy)[pairs.vacancy]
    weight = np.where(pairs.undecided, p.undecided_weight, 1) / np.sqrt(per_vacancy)
    decided = np.bincount(row_of, weights=~pairs.undecided) > 0
    weight *= weights_of_drawn(
        ~decided, max(UNDECIDED_KINDS, int(decided.sum()) // 2), p.random_state)[row_of]
    return HireRows(pairs, posting, weight, data.age[kept], distinct, row_of)


def fit_hire(
    data: Data, p: TrainParameters, learned: HireRows, x: sp.csr_matrix | None,
    matching: Matching, found: Search | Earlier, report: Callable[[float], None],
) -> Fit:
    """Learn who is hired, with what a grid search or an earlier fit has found. x: the features of
    each kind of pair, where they have been made.

    The calibration counts every pair in full, and looks at hire logits of models that have not
    seen the pair's vacancy: out of fold, or as the earlier fit foretold it. The gate looks at
    match logits with the vacancy moved by a projection that has not seen it.
    """
    pairs, y = learned.pairs, learned.pairs.hired
    if isinstance(found, Search):
        grid, logits = found.result(lambda share: report(0.2 + 0.7 * share))
        unseen = np.ones(len(y), bool)
    else:
        grid, logits, unseen = found.hire_grid, found.logits, found.unseen
    weight = np.bincount(learned.row_of, weights=learned.weight)
    told = np.flatnonzero(weight)
    drawn_pairs = pairs.where(learned.distinct[told])
    model = many_columns(grid.best_c, p.grid).fit(
        hire_features(data, drawn_pairs) if x is None else x[told], drawn_pairs.hired,
        sample_weight=weight[told])
    platt = LogisticRegression(C=1e9, solver="newton-cholesky").fit(
        logits[:, None], y, sample_weight=unseen * 0.5 ** (learned.age / CALIBRATION_HALF_LIFE))
    terms = data.candidates.unit.shape[1]
    title, body, cv = np.split(model.coef_[0], [terms, 2 * terms])
    weights = replace(
        matching.scorer.weights,
        hire_intercept=float(model.intercept_[0]), hire_title=TITLE_SCALE * title,
        hire_body=body, hire_cv=cv,
        platt_scale=float(platt.coef_[0, 0]), platt_intercept=float(platt.intercept_[0]))
    joined = pairs.candidate >= 0
    features = match_features(matching.vacancies, data.candidates, data.space,
                              pairs.vacancy[joined], pairs.candidate[joined])
    match = weights.match_intercept + features @ np.array(
        [weights.match_title, weights.match_body, weights.match_latent])
    opens = float(np.quantile(match, GATE_QUANTILE))
    depth = max(opens - weights.match_intercept, 0.5)  # from there down to a CV that shares nothing
    weights = replace(weights, gate_from=opens, gate_slope=GATE_DEPTH / depth)
    scorer = Scorer(matching.scorer.space, weights)
    probability = sigmoid(weights.platt_scale * logits[joined] + weights.platt_intercept
                          + scorer.gate(match))
    judged = unseen[joined]
    unconverged = int(np.max(model.n_iter_) >= p.logistic_regression_max_iter)
    if isinstance(found, Search):
        unconverged += matching.grid.unconverged + grid.unconverged
    return Fit(scorer, best_f1_threshold(y[joined][judged], probability[judged]), matching.grid,
               grid, logits, unconverged)


def unseen_logits(
    pairs: Pairs, held_out: NDArray[np.bool_], first: Fit, vacancies: Vacancies,
    candidates: Candidates,
) -> NDArray[np.float64]:
    """Hire logit, before calibration, of every pair with a known outcome, by a model that has not
    seen its vacancy: those of the training part out of fold, those held out (held_out: one flag a
    pair) by `first` itself. The vectors are those of its vocabulary."""
    vacancy_part = first.scorer.vacancy_part(vacancies)
    candidate_part = np.append(first.scorer.candidate_part(candidates), 0)  # −1: no CV
    logits = (first.scorer.weights.hire_intercept + vacancy_part[pairs.vacancy]
              + candidate_part[pairs.candidate])
    logits[~held_out & pairs.known] = first.out_of_fold
    return logits[pairs.known]


def require_no_leak(data: Data, p: TrainParameters) -> None:
    """Raises StepError where one column alone, or whether it is filled at all, tells the outcome
    implausibly well."""
    pairs = data.pairs.where(data.pairs.known)
    pairs = pairs.where(alike(pairs)[0])
    generator = np.random.default_rng(p.random_state)
    some = [drawn(np.flatnonzero(pairs.hired == outcome), LEAK_PAIRS, generator)
            for outcome in (0, 1)]
    pairs = pairs.where(np.sort(np.concatenate(some)))
    x, y, groups = hire_features(data, pairs), pairs.hired, data.posting[pairs.vacancy]
    terms = data.candidates.unit.shape[1]
    quick = replace(p.grid, c_values=(1.0,), folds=2, scoring="roc_auc")
    for number, name in enumerate(("titulo_vaga", "principais_atividades and "
                                   "competencia_tecnicas_e_comportamentais", "cv_pt")):
        block = x[:, number * terms:(number + 1) * terms]
        told = np.diff(block.indptr) > 0
        presence = float(roc_auc_score(y, told))
        require_plausible(max(presence, 1 - presence), y, f"whether {name} is filled")
        if len(np.unique(groups[told & (y == 1)])) < 2:
            continue
        grid, _ = search(block[told], y[told], groups[told], np.ones(told.sum()), quick)
        require_plausible(grid.mean(), y[told], name)


def require_plausible(auc: float, hired: NDArray[np.int64], what: str) -> None:
    """Raises StepError where an AUC on these outcomes is beyond what `what` can tell by itself."""
    doubt = 1.96 * auc_standard_error(auc, int(hired.sum()), int((1 - hired).sum()))
    if auc > IMPLAUSIBLE_AUC and auc - doubt > PLAUSIBLE_AUC:
        raise StepError(
            f"train: {what} alone predicts who is hired with an AUC of {auc:.3f}, which nothing "
            "written before the decision does; look for the outcome in it and take it out")


def _require_groups(vacancies: NDArray, folds: int) -> None:
    groups = len(np.unique(vacancies))
    if groups < folds:
        raise StepError(f"train: {groups} vacancies in the training part, fewer than the {folds} "
                        "folds; lower grid_search_cv or give more data")
