"""Plots of a judgement: the same images whoever draws them."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from steps import worker
from steps.plots import Drawing, draw, strongest
from steps.scores import Judgement, hire_estimates, pool_estimates
from steps.worker import Calls
from tests.conftest import PROJECT
from tests.processes import children, needs_worker


@pytest.fixture(scope="module")
def drawing() -> Drawing:
    random = np.random.default_rng(0)
    vacancy = np.repeat(np.arange(40), 5)
    hired = (random.random(200) < 0.3).astype(np.int64)
    probability = np.clip(0.3 + 0.2 * hired + random.normal(0, 0.2, 200), 0, 1)
    rank = random.integers(1, 100, 200).astype(float)
    judgement = Judgement(
        "version 1", hire_estimates(hired, probability, vacancy, 0.4, seed=0)
        | pool_estimates(rank, 1 - rank / 100, vacancy, seed=0), probability, 0.4)
    terms = [f"term {number}" for number in range(60)]
    return Drawing(hired, [judgement], *(
        strongest(terms, random.normal(size=60)) for _ in range(2)))


def begun(what: Drawing) -> Calls:
    calls = Calls([draw], what)
    calls.begin()
    return calls


@needs_worker
def test_the_worker_draws_what_this_process_would_draw(
    drawing: Drawing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*worker.LARGE_PAGES)  # what is set for the worker ends here
    mine = draw(drawing)
    assert len(mine) == 9
    worker.start()
    try:
        calls = begun(drawing)
        assert not calls._waiting  # it has been handed over
        worker.forget()
        [theirs] = calls.results()
    finally:
        worker.end()
    assert list(theirs) == list(mine)
    assert all(np.array_equal(theirs[name], image) for name, image in mine.items())


@needs_worker
def test_where_the_worker_is_killed_the_plots_are_drawn_all_the_same(
    drawing: Drawing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*worker.LARGE_PAGES)
    others = set(children(os.getpid(), "popen_loky"))
    worker.start()
    try:
        [process] = set(children(os.getpid(), "popen_loky")) - others
        calls = begun(drawing)
        os.kill(process, signal.SIGKILL)
        worker.forget()
        [images] = calls.results()
    finally:
        worker.end()
    assert "page" in images


def test_nothing_is_imported_to_draw_before_something_is_drawn() -> None:
    code = "import sys, steps.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0


def test_the_terms_shown_are_those_of_the_lowest_and_the_highest_weights() -> None:
    terms = [f"term {number}" for number in range(60)]
    weights = np.random.default_rng(1).permutation(np.linspace(-1, 1, 60))
    shown = strongest(terms, weights)
    assert len(shown) == 24
    assert all(weights[terms.index(term)] == weight for term, weight in shown.items())
    ends = np.sort(weights)
    assert sorted(shown.values()) == [*ends[:12], *ends[-12:]]
    assert strongest(terms[:5], weights[:5]).keys() == set(terms[:5])
