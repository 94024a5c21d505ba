"""How a model is judged: figures of merit with bootstrap intervals over vacancies.

Rows of one vacancy are not independent, so every interval resamples whole vacancies (the cluster
bootstrap; Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 300
TOGETHER = 16
"""So many resamples at once: memory that is used again is faster than new memory."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % bootstrap interval; NaN where it cannot be computed."""

    value: float
    low: float = float("nan")
    high: float = float("nan")
    samples: tuple[float, ...] = field(default=(), repr=False, compare=False)

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "–"
        if np.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Judgement:
    """All figures of one model, and what it said of each pair."""

    name: str
    estimates: dict[str, Estimate]
    hire: Floats = field(repr=False)
    threshold: float | None = None
    """Where `hire` is a probability."""


def expected_calibration_error(
    hired: Ints, probability: Floats, weights: Floats, bins: int = 10
) -> Floats:
    """Mean absolute gap between predicted and observed share over bins of as many rows each,
    weighted by what the rows weigh (Naeini, Cooper & Hauskrecht, AAAI 2015, with quantile bins):
    one value for each row of weights (resamples × rows), over those that weigh something."""
    order = np.argsort(probability, kind="stable")
    gap = (probability - hired)[order]
    errors = []
    for begin in range(0, len(weights), TOGETHER):
        drawn = weights[begin:begin + TOGETHER, order]
        kept = np.insert(np.cumsum(drawn > 0, axis=1), 0, 0, axis=1)
        gaps = np.insert(np.cumsum(drawn * gap, axis=1), 0, 0, axis=1)
        for upto, total, rows in zip(kept, gaps, drawn, strict=True):
            even, larger = divmod(int(upto[-1]), bins)
            # the first `larger` bins hold one more
            ends = even * np.arange(bins + 1) + np.minimum(np.arange(bins + 1), larger)
            of_bins = np.diff(total[np.searchsorted(upto, ends)])
            errors.append(np.abs(of_bins).sum() / rows.sum())
    return np.array(errors)


def f1(hired: Ints, predicted: NDArray[np.bool_], weights: Floats) -> Floats:
    """F1 of the class hired, one value for each row of weights (resamples × rows); 0 where nobody
    is hired or predicted to be."""
    true = weights @ (predicted & (hired == 1))
    wrong = weights @ (predicted != (hired == 1))
    return 2 * true / np.where(true + wrong > 0, 2 * true + wrong, 1)


def best_f1_threshold(hired: Ints, probability: Floats) -> float:
    """The threshold with the highest F1 on these (out-of-fold) predictions."""
    order = np.argsort(-probability, kind="stable")
    true = np.cumsum(hired[order])
    f1 = 2 * true / (np.arange(1, len(order) + 1) + hired.sum())
    last_of_ties = np.append(np.diff(probability[order]) != 0, True)
    best = int(np.argmax(np.where(last_of_ties, f1, -1)))
    return float(probability[order][best])


def auc_standard_error(auc: float, positives: int, negatives: int) -> float:
    """Standard error of a ROC AUC (0..1) of so many positives and negatives, at least one of each
    (Hanley & McNeil, The meaning and use of the area under a ROC curve, Radiology 143, 1982)."""
    two_positives, two_negatives = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (positives - 1) * (two_positives - auc**2)
                + (negatives - 1) * (two_negatives - auc**2)) / (positives * negatives)
    return float(np.sqrt(max(variance, 0)))


def auc_and_precision(
    hired: Ints, scores: Floats, weights: Floats
) -> tuple[Floats, Floats]:
    """ROC AUC and average precision under each row of weights (resamples × rows); NaN where the
    weights leave one class only.

    Equal to scikit-learn's roc_auc_score and average_precision_score with `sample_weight`, sorting
    once for all resamples.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    up = hired[order] == 1
    found = [_auc_and_precision(weights[some:some + TOGETHER, order], up, last_of_ties)
             for some in range(0, len(weights), TOGETHER)]
    auc, precision = (np.concatenate(part) for part in zip(*found, strict=True))
    return auc, precision


def _auc_and_precision(
    drawn: Floats, up: NDArray[np.bool_], last_of_ties: Ints
) -> tuple[Floats, Floats]:
    """The same where the rows come in descending order of their scores."""
    true = np.cumsum(drawn * up, axis=1)[:, last_of_ties]
    false = np.cumsum(drawn * ~up, axis=1)[:, last_of_ties]
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, fall_out = true / true[:, -1:], false / false[:, -1:]
        precision = true / (true + false)
        auc = np.trapezoid(np.insert(recall, 0, 0, axis=1), np.insert(fall_out, 0, 0, axis=1))
        gained = np.diff(recall, axis=1, prepend=0)
        average = np.sum(gained * np.where(gained > 0, precision, 0), axis=1)
    one_class = (true[:, -1] == 0) | (false[:, -1] == 0)
    return np.where(one_class, np.nan, auc), np.where(one_class, np.nan, average)


def hire_estimates(
    hired: Ints, probability: Floats, vacancy: Ints, threshold: float, seed: int
) -> dict[str, Estimate]:
    """Figures of the probability of being hired.

    hired, probability, vacancy: one value a pair; vacancy numbers the vacancies from 0.
    """
    order = np.argsort(probability, kind="stable")  # what is in order sorts fast in each resample
    hired, probability, vacancy = hired[order], probability[order], vacancy[order]
    draws = _draws(int(vacancy.max()) + 1, seed)
    weights = np.vstack([np.ones(len(hired)), draws[:, vacancy]])  # the first row is the figure
    auc, precision = auc_and_precision(hired, probability, weights)
    figures = {
        "hire_brier": weights @ (probability - hired) ** 2 / weights.sum(axis=1),
        "hire_ece": expected_calibration_error(hired, probability, weights),
        "hire_f1": f1(hired, probability >= threshold, weights),
    }
    if 0 < hired.sum() < len(hired):
        figures = {"hire_auc": auc, "hire_average_precision": precision, **figures}
    both = ~np.isnan(auc[1:])
    estimates = {
        name: _estimate(float(values[0]), values[1:][both].tolist())
        for name, values in figures.items()
    }
    return estimates | _within_vacancy(hired, probability, vacancy, draws)


def _within_vacancy(
    hired: Ints, probability: Floats, vacancy: Ints, draws: Floats
) -> dict[str, Estimate]:
    """AUC over the pairs (hired, not hired) of the same vacancy, and how many such pairs."""
    vacancies = draws.shape[1]
    won, compared = np.zeros(vacancies), np.zeros(vacancies)
    for number in np.unique(vacancy[hired == 1]):  # the others hold no such pair
        rows = vacancy == number
        up, down = probability[rows & (hired == 1)], probability[rows & (hired == 0)]
        if len(up) and len(down):
            difference = up[:, None] - down[None, :]
            won[number] = np.sum(difference > 0) + 0.5 * np.sum(difference == 0)
            compared[number] = difference.size
    total = compared.sum()
    if not total:
        return {"hire_within_vacancy_auc": Estimate(float("nan")),
                "hire_within_vacancy_pairs": Estimate(0.0)}
    samples = [
        float(draw @ won / (draw @ compared)) for draw in draws if draw @ compared
    ]
    return {
        "hire_within_vacancy_auc": _estimate(float(won.sum() / total), samples),
        "hire_within_vacancy_pairs": Estimate(float(total)),
    }


def ranks_in_pool(scores: Floats, members: Ints) -> tuple[Floats, Floats]:
    """Where `members` (indices into the pool) stand when the pool is ordered by `scores`.

    Returns each member's rank (1 is best; ties share their mean rank) and its AUC: the share of
    the rest of the pool that it beats. Each member is a pass over the pool: for a few of them.
    Scores are finite.
    """
    mine = scores[members]
    above = np.array([np.count_nonzero(scores > score) for score in mine], float)
    equal = np.array([np.count_nonzero(scores == score) for score in mine], float)
    rank = 1 + above + (equal - 1) / 2
    return rank, 1 - (rank - 1) / max(len(scores) - 1, 1)


def pool_estimates(
    rank: Floats, auc: Floats, vacancy: Ints, seed: int, name: str = "pool"
) -> dict[str, Estimate]:
    """Figures of a ranking, averaged over those who were really put forward (or hired).

    rank, auc, vacancy: one value a person, as `ranks_in_pool` gives them.
    """
    if not len(rank):
        return {}
    values = {
        f"{name}_auc": auc,
        f"{name}_recall_at_10": (rank <= 10).astype(float),
        f"{name}_recall_at_50": (rank <= 50).astype(float),
        f"{name}_mrr": 1 / rank,
    }
    draws = _draws(int(vacancy.max()) + 1, seed)
    weights = draws[:, vacancy]
    weights = weights[weights.sum(axis=1) > 0]
    return {
        key: _estimate(float(value.mean()), (weights @ value / weights.sum(axis=1)).tolist())
        for key, value in values.items()
    }


@lru_cache(4)
def _draws(vacancies: int, seed: int) -> Floats:
    """How often each vacancy is drawn in each resample: (RESAMPLES, vacancies). The same for every
    contender."""
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(
        vacancies, np.full(vacancies, 1 / vacancies), size=RESAMPLES
    ).astype(float)
    draws.setflags(write=False)
    return draws


def _estimate(value: float, samples: list[float]) -> Estimate:
    if len(samples) < RESAMPLES // 2:
        return Estimate(value)
    low, high = np.quantile(samples, [0.025, 0.975])
    return Estimate(value, float(low), float(high), tuple(samples))


def difference(new: Estimate, old: Estimate) -> Estimate:
    """new − old, with the interval of the paired differences: both were judged on the same rows,
    so their resamples are the same."""
    if len(new.samples) != len(old.samples):
        return Estimate(new.value - old.value)
    pairs = zip(new.samples, old.samples, strict=True)
    return _estimate(new.value - old.value, [a - b for a, b in pairs])
