"""Figures of merit agree with their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from steps.scores import (
    auc_and_precision,
    auc_standard_error,
    best_f1_threshold,
    difference,
    expected_calibration_error,
    f1,
    hire_estimates,
    pool_estimates,
    ranks_in_pool,
)

WEIGHTED_ROWS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40)
"""Whether each is hired, its score, and its weight."""


@given(arrays(float, st.integers(2, 60), elements=st.floats(-3, 3).map(lambda x: round(x, 1))),
       st.data())
def test_rank_counts_those_above_and_half_of_the_ties(scores: np.ndarray, data: st.DataObject
                                                      ) -> None:
    member = data.draw(st.integers(0, len(scores) - 1))
    rank, auc = ranks_in_pool(scores, np.array([member]))
    above = (scores > scores[member]).sum()
    ties = (scores == scores[member]).sum() - 1
    assert rank[0] == 1 + above + ties / 2
    assert auc[0] == pytest.approx(1 - (rank[0] - 1) / (len(scores) - 1))


def test_pool_auc_of_one_member_is_the_usual_auc() -> None:
    scores = np.random.default_rng(0).random(50)
    _, auc = ranks_in_pool(scores, np.array([7]))
    assert auc[0] == pytest.approx(roc_auc_score(np.arange(50) == 7, scores))


@pytest.mark.parametrize(("positives", "auc"), [(5, 0.6), (10, 0.75), (50, 0.85), (200, 0.65)])
def test_standard_error_of_an_auc_is_how_far_draws_lie_apart(positives: int, auc: float) -> None:
    """The formula is exact where the scores of both are exponentially distributed."""
    y = np.repeat([1, 0], [positives, 300])
    scale = np.where(y == 1, auc / (1 - auc), 1)
    scores = np.random.default_rng(2).exponential(scale, (1000, len(y)))
    # how many of the others each positive beats (Mann & Whitney): there are no ties
    beaten = scores.argsort(axis=1).argsort(axis=1)[:, :positives].sum(axis=1)
    aucs = (beaten - positives * (positives - 1) / 2) / (positives * 300)
    assert aucs[0] == pytest.approx(roc_auc_score(y, scores[0]))
    assert np.mean(aucs) == pytest.approx(auc, abs=0.02)
    assert auc_standard_error(auc, positives, 300) == pytest.approx(np.std(aucs), rel=0.1)
    assert auc_standard_error(1.0, positives, 300) == 0


def test_best_threshold_has_the_highest_f1() -> None:
    generator = np.random.default_rng(1)
    hired = (generator.random(300) < 0.1).astype(int)
    probability = np.round(np.clip(0.1 * hired + generator.random(300) * 0.4, 0, 1), 2)
    best = best_f1_threshold(hired, probability)
    reached = f1_score(hired, probability >= best)
    assert all(f1_score(hired, probability >= t, zero_division=0) <= reached + 1e-12
               for t in np.unique(probability))


def test_calibration_error_is_zero_for_the_true_shares_and_large_for_wrong_ones() -> None:
    hired = np.tile([1, 0, 0, 0], 500)
    once = np.ones((1, 2000))
    right, wrong = (expected_calibration_error(hired, np.full(2000, p), once) for p in (0.25, 0.75))
    assert right < 0.01
    assert wrong == pytest.approx(0.5, abs=0.01)


@given(WEIGHTED_ROWS)
def test_calibration_error_and_f1_of_resamples_are_those_of_the_rows_that_they_draw(
    rows: list[tuple[bool, int, int]]
) -> None:
    hired, fifths, weight = (np.array(column) for column in zip(*rows, strict=True))
    hired, probability = hired.astype(int), fifths / 4
    weight[0] = max(weight[0], 1)
    weights = np.stack([np.ones(len(rows)), weight.astype(float)])
    errors = expected_calibration_error(hired, probability, weights)
    scores = f1(hired, probability >= 0.5, weights)
    for drawn, error, score in zip(weights, errors, scores, strict=True):
        kept = np.argsort(probability, kind="stable")
        kept = kept[drawn[kept] > 0]
        gaps = [abs(np.sum(drawn[some] * (probability - hired)[some]))
                for some in np.array_split(kept, 10)]
        assert error == pytest.approx(sum(gaps) / drawn.sum(), abs=1e-12)
        assert score == pytest.approx(f1_score(
            hired, probability >= 0.5, sample_weight=drawn, zero_division=0))


def test_intervals_hold_the_figure_and_resample_whole_vacancies() -> None:
    generator = np.random.default_rng(2)
    vacancy = np.repeat(np.arange(80), 5)
    hired = (generator.random(400) < 0.2).astype(int)
    probability = np.clip(0.2 + 0.2 * hired + generator.normal(0, 0.15, 400), 0, 1)
    estimates = hire_estimates(hired, probability, vacancy, 0.4, seed=3)
    auc = estimates["hire_auc"]
    assert auc.value == pytest.approx(roc_auc_score(hired, probability))
    assert auc.low < auc.value < auc.high
    assert estimates == hire_estimates(hired, probability, vacancy, 0.4, seed=3)
    # the same rows in one vacancy: no interval can be had from one cluster
    alone = hire_estimates(hired, probability, np.zeros(400, int), 0.4, seed=3)["hire_auc"]
    assert alone.high - alone.low < 1e-9


@given(WEIGHTED_ROWS)
def test_weighted_auc_and_precision_are_those_of_scikit_learn(
    rows: list[tuple[bool, int, int]]
) -> None:
    hired, scores, weight = (np.array(column) for column in zip(*rows, strict=True))
    auc, precision = auc_and_precision(
        hired.astype(int), scores.astype(float), weight[None].astype(float))
    kept = weight > 0
    if len(np.unique(hired[kept])) < 2:
        assert np.isnan(auc[0])
        assert np.isnan(precision[0])
        return
    assert auc[0] == pytest.approx(roc_auc_score(hired, scores, sample_weight=weight))
    assert precision[0] == pytest.approx(
        average_precision_score(hired, scores, sample_weight=weight))


def test_within_vacancy_auc_compares_only_inside_a_vacancy() -> None:
    vacancy = np.array([0, 0, 1, 1, 2])
    hired = np.array([1, 0, 1, 0, 1])
    probability = np.array([0.2, 0.1, 0.8, 0.9, 0.0])
    estimates = hire_estimates(hired, probability, vacancy, 0.5, seed=0)
    assert estimates["hire_within_vacancy_pairs"].value == 2
    assert estimates["hire_within_vacancy_auc"].value == 0.5


def test_difference_of_a_model_with_itself_is_exactly_nothing() -> None:
    rank, auc = np.array([1.0, 4, 20]), np.array([1.0, 0.9, 0.5])
    one = pool_estimates(rank, auc, np.array([0, 1, 2]), seed=0)["pool_auc"]
    change = difference(one, one)
    assert (change.value, change.low, change.high) == (0, 0, 0)
