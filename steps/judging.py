"""A model beside its baselines, on vacancies that none of them has seen."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobmatch_pyfunc.scoring import (
    Candidates,
    Pool,
    Query,
    Scorer,
    Space,
    Vacancies,
    row_dots,
    sigmoid,
    unit_rows,
)
from steps.corpus import Corpus, Pairs, drawn
from steps.described import DescribedModel
from steps.failure import StepError
from steps.scores import (
    Estimate,
    Floats,
    Judgement,
    difference,
    hire_estimates,
    pool_estimates,
    ranks_in_pool,
)
from steps.versions import make_pool

POOL_VACANCIES = 500
"""The pool is ranked for at most so many held-out vacancies, drawn at random."""
MARGINS = {"hire_auc": 0.03, "hire_average_precision": 0.03, "pool_auc": 0.01,
           "pool_recall_at_10": 0.02}
"""What the gate looks at, and by how much a version may fall behind production at no risk."""
FAR = 0.15
"""A version that falls behind by so much fails, however wide the interval is."""

HEADLINE = (
    "hire_auc", "hire_average_precision", "hire_brier", "hire_ece", "hire_f1",
    "hire_within_vacancy_auc", "pool_auc", "pool_recall_at_10", "pool_recall_at_50", "pool_mrr",
    "hired_pool_auc", "hired_pool_recall_at_10", "hired_pool_recall_at_50", "hired_pool_mrr",
)


@dataclass(frozen=True)
class Held:
    """What is judged on: joined pairs of vacancies that the model has not seen, and the pool."""

    pairs: Pairs
    vacancy: NDArray[np.int64]
    """Each pair's vacancy, numbered from 0."""
    pool: NDArray[np.int64]
    """Candidates with a CV."""
    first_day: np.datetime64
    last_day: np.datetime64
    seed: int


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    pool_scores: scores of the whole pool for a vacancy, higher is better.
    hire: a score for each held pair; a probability where `threshold` is given.
    """

    name: str
    pool_scores: Callable[[int], Floats]
    hire: Floats
    threshold: float | None = None


def held(
    pairs: Pairs, judged: NDArray[np.bool_], dates: NDArray, pool: NDArray, seed: int
) -> Held:
    """The joined pairs whose vacancy is judged."""
    pairs = pairs.where(judged[pairs.vacancy] & pairs.joined)
    _, numbers = np.unique(pairs.vacancy, return_inverse=True)
    days = dates[pairs.vacancy]
    return Held(pairs, numbers, pool, days.min(), days.max(), seed)


def judge(contender: Contender, on: Held) -> Judgement:
    """All figures of one contender.

    Raises StepError where a score is not finite: it would stand at the top and at the bottom.
    """
    hired = on.pairs.hired
    _require_finite(contender, contender.hire)
    figures: dict[str, Estimate] = {}
    probability = contender.hire if contender.threshold is not None else sigmoid(contender.hire)
    threshold = 0.5 if contender.threshold is None else contender.threshold
    figures |= hire_estimates(hired, probability, on.vacancy, threshold, on.seed)
    if contender.threshold is None:  # an order, not a probability
        for name in ("hire_brier", "hire_ece", "hire_f1"):
            figures.pop(name)
    place = np.full(int(on.pool.max()) + 1, -1)
    place[on.pool] = np.arange(len(on.pool))
    ranks, aucs, rows = [], [], []
    for number in _drawn(on):
        members = np.flatnonzero(on.vacancy == number)
        scores = contender.pool_scores(int(on.pairs.vacancy[members[0]]))
        _require_finite(contender, scores)
        rank, auc = ranks_in_pool(scores, place[on.pairs.candidate[members]])
        ranks.append(rank)
        aucs.append(auc)
        rows.append(members)
    at = np.concatenate(rows)
    rank, auc = np.concatenate(ranks), np.concatenate(aucs)
    figures |= pool_estimates(rank, auc, on.vacancy[at], on.seed)
    chosen = hired[at] == 1
    figures |= pool_estimates(rank[chosen], auc[chosen], on.vacancy[at][chosen], on.seed,
                              "hired_pool")
    return Judgement(contender.name, figures, probability, contender.threshold)


def _require_finite(contender: Contender, scores: Floats) -> None:
    if not np.isfinite(scores).all():
        raise StepError(f"judging: {contender.name} gave scores that are not finite numbers; "
                        "it cannot be judged")


def _drawn(on: Held) -> NDArray[np.int64]:
    vacancies = np.arange(int(on.vacancy.max()) + 1)
    return drawn(vacancies, POOL_VACANCIES, np.random.default_rng(on.seed))


def pool_of(candidates: Candidates, scorer: Scorer, on: Held) -> Pool:
    """The pool that is judged on, as one ships with a version."""
    return make_pool([str(i) for i in on.pool], candidates, on.pool, scorer)


def model_contender(
    name: str, scorer: Scorer, vacancies: Vacancies, candidates: Candidates, threshold: float,
    on: Held, pool: Pool,
) -> Contender:
    """A fitted model: ranks by match, as a served version ranks its pool (`pool_of`), and predicts
    with its probability."""
    _, hire = scorer.score_pairs(vacancies, candidates, on.pairs.vacancy, on.pairs.candidate)

    def scores(v: int) -> Floats:
        return pool.match_logits(scorer, scorer.query(vacancies, v), vacancies.latent[v])

    return Contender(name, scores, sigmoid(hire), threshold)


def random_contender(on: Held, hired_share: float) -> Contender:
    """Chance: a pool in random order, and for everybody the share of those hired before, which is
    what a probability that knows nothing comes to (AUC 0.5, precision the base rate)."""
    generator = np.random.default_rng(on.seed)
    return Contender("random", lambda _: generator.random(len(on.pool)),
                     np.full(len(on.pairs), hired_share), threshold=0.5)


def cosine_contender(
    vacancies: Vacancies, candidates: Candidates, on: Held, pool: Pool, space: Space
) -> Contender:
    """Cosine of the TF-IDF vectors of title and body with the CV. pool: that of `pool_of`, from
    any model of this space."""
    both = unit_rows((vacancies.title + vacancies.body).tocsr())
    cosine = row_dots(both[on.pairs.vacancy], candidates.unit[on.pairs.candidate])
    # the pool's vectors are the unit ones but for a scale each and relative idf: no second pool
    scale = candidates.scale[on.pool]
    unscaled = 1 / np.where(scale > 0, scale, 1)

    def scores(v: int) -> Floats:
        own = slice(both.indptr[v], both.indptr[v + 1])
        terms = both.indices[own]
        return unscaled * pool.crossed(Query(terms, both.data[own] / space.relative_idf[terms]))

    return Contender("cosine", scores, cosine)


def described_contender(model: DescribedModel, corpus: Corpus, on: Held) -> Contender:
    """The described model: ranks by its one score."""
    of_cv = model.cv_part(corpus, on.pool)
    return Contender("described model", lambda _: of_cv, model.probability(corpus, on.pairs), 0.5)


def table(judgements: list[Judgement]) -> pl.DataFrame:
    """One row a contender, one column a figure with its interval."""
    names = [n for n in HEADLINE if any(n in j.estimates for j in judgements)]
    return pl.DataFrame(
        {"model": [j.name for j in judgements]}
        | {n: [str(j.estimates.get(n, Estimate(float("nan")))) for j in judgements] for n in names}
    )


def changes(new: Judgement, production: Judgement) -> dict[str, Estimate]:
    """new − production of each figure that the gate looks at, on the same vacancies."""
    return {name: difference(new.estimates[name], production.estimates[name])
            for name in MARGINS
            if name in new.estimates and name in production.estimates}


def verdict(new: Judgement, production: Judgement | None) -> tuple[bool, str]:
    """Whether a version may go to production, and why in one line.

    It fails where it is worse than production beyond doubt (the whole 95 % interval of the paired
    difference lies below 0) and by more than the figure's margin, or by more than `FAR` even in
    doubt; and where its ranking is no better than chance.
    """
    pool = new.estimates["pool_auc"]
    if not pool.value > 0.5:
        return False, f"pool_auc {pool.value:.3f} is no better than chance"
    if production is None:
        return True, "no production version to compare with; ranks better than chance"
    found = changes(new, production)
    worse = [name for name, change in found.items()
             if (change.high < 0 and change.value < -MARGINS[name]) or change.value < -FAR]
    told = ", ".join(
        f"{name} {new.estimates[name].value:.3f} against {production.estimates[name].value:.3f} "
        f"({found[name].value:+.3f} [{found[name].low:+.3f}, {found[name].high:+.3f}])"
        for name in worse or found)
    if worse:
        return False, f"worse than {production.name}: {told}"
    return True, f"not worse than {production.name}, within the margins: {told}"
