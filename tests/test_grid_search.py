"""Fits in other processes: the same answers, and no process that outlives the training."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.model_selection import GroupKFold, cross_val_score

from steps import grid_search, worker
from steps.corpus import ROWS_AT_ONCE, weights_of_drawn
from steps.failure import StepError
from steps.fitting import SCORERS, side_by_side
from steps.grid_search import Settings, begin_search, few_columns, search
from steps.records import FILES
from tests.conftest import PROJECT
from tests.processes import alive, children, needs_worker

HOW = Settings((0.1, 10.0), 3, "roc_auc", 1000, 7)

BEGINNING = """
import json, os, signal, sys, time
import numpy as np, scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from steps import grid_search, worker
from tests.processes import alive, children
grid_search.WORTH_SHARING = 0
parent = os.getpid()
class Slow(LogisticRegression):
    def fit(self, *given, **named):
        if os.getpid() != parent:
            os.write(1, b"fitting\\n")  # in one piece: print's line and its end may be two
            time.sleep(1000)
        return super().fit(*given, **named)
x = sp.csr_matrix(np.random.default_rng(0).random((200, 20)))
y, groups, weight = np.arange(200) % 2, np.arange(200), np.ones(200)
how = grid_search.Settings((1.0,), 5, "roc_auc", 100, 0)
def begin(model=LogisticRegression):
    return grid_search.begin_search(x, y, groups, weight, how, lambda c, _: model(C=c))
alone = begin().result()[0].scores.tolist()
worker.start()
"""

STARTED_EARLY = BEGINNING + """
while not (early := children(parent, "popen_loky")):
    time.sleep(0.1)
shared = begin().result()[0].scores.tolist()
print(json.dumps([early, children(parent, "popen_loky"), shared == alone]))
"""

SEARCH_WITHOUT_END = BEGINNING + """
shared = begin(Slow).result()[0].scores.tolist()
print(json.dumps(shared == alone))
"""

KILLED_WHILE_STARTING = BEGINNING + """
while not (early := children(parent, "popen_loky")):
    time.sleep(0.01)
os.kill(early[0], signal.SIGKILL)
shared = begin().result()[0].scores.tolist()
print(json.dumps(shared == alone))
"""

GROWS = BEGINNING + """
def grow(value):
    time.sleep(1.1)  # loky looks at a worker's memory once a second
    kept = np.ones(50_000_000)
    worker.kept = kept
    return os.getpid()
calls = worker.Calls([grow] * 4, None)
calls.begin()
while len(calls._elsewhere) < 4:
    time.sleep(0.1)
pids = calls.results()
print(json.dumps([len(set(pids)), parent in pids]))
"""

ENDED_WHILE_IT_FITS = BEGINNING + """
number = worker._executor.submit(os.getpid).result()
begun = begin(Slow)
time.sleep(1)
worker.end()
"""

ENDED_WHEN_IT_IS_IDLE = BEGINNING + """
number = worker._executor.submit(os.getpid).result()
begin().result()
worker.end()
while alive(number):
    time.sleep(0.1)
"""

ENDED_WHILE_IT_IMPORTS = BEGINNING + """
worker.end()
"""


def rows() -> tuple[sp.csr_matrix, np.ndarray, np.ndarray, np.ndarray]:
    """Features (unordered, and large enough to be shared as a file), labels, groups and weights of
    1200 pairs."""
    random = np.random.default_rng(0)
    x = sp.random(1200, 500, 0.3, "csr", random_state=0)
    y = (np.asarray(x[:, :3].sum(axis=1)).ravel() + random.random(1200) > 0.9).astype(np.int64)
    x = x[:, random.permutation(500)]
    assert not x.has_sorted_indices
    assert x.data.nbytes > 2**20
    return x, y, np.arange(1200) // 3, random.random(1200)


def test_another_process_gives_the_same_grid_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[float] = []
    alone, logits = search(*rows(), HOW)
    monkeypatch.setattr(grid_search, "WORTH_SHARING", 0)
    monkeypatch.setenv(*worker.LARGE_PAGES)  # what is set for the worker ends here
    worker.start()
    try:
        together, again = begin_search(*rows(), HOW).result(told.append)
    finally:
        worker.end()
    assert worker.KILLED not in capsys.readouterr().err
    assert told == sorted(told)
    assert told[-1] == 1
    assert np.array_equal(alone.scores, together.scores)
    assert np.array_equal(logits, again)
    assert alone.best_c == together.best_c


def said_by(script: str) -> tuple[Any, str]:
    """What a script that ends well says at last, and its messages."""
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, text=True, timeout=120,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None, done.stderr


@needs_worker
def test_a_worker_that_started_early_is_the_one_that_shares_the_search() -> None:
    (early, searching, same), _ = said_by(STARTED_EARLY)
    assert early == searching
    assert len(early) == 1
    assert same


@needs_worker
@pytest.mark.parametrize(
    "script", [ENDED_WHILE_IT_FITS, ENDED_WHEN_IT_IS_IDLE, ENDED_WHILE_IT_IMPORTS],
    ids=["fitting", "idle", "importing"])
def test_a_worker_can_be_ended_at_any_time_and_the_process_too(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")  # small images have neither ps nor pgrep
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, timeout=60,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    assert not list(tmp_path.rglob("value"))


@needs_worker
@pytest.mark.parametrize(("size", "processes"), [
    (worker.WORTH_STARTING, 1), (worker.WORTH_STARTING - 1, 0), (None, 0)])
def test_a_worker_is_started_where_the_records_are_many(
    size: int | None, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*worker.LARGE_PAGES)
    before = set(children(os.getpid(), "popen_loky"))
    if size is not None:
        with (tmp_path / next(iter(FILES))).open("wb") as file:
            file.truncate(size)
    worker.start_where_worth(["train", "--test_size", "0.3", "--data_dir", str(tmp_path)])
    try:
        assert len(set(children(os.getpid(), "popen_loky")) - before) == processes
    finally:
        worker.end()


def test_blocks_side_by_side_are_those_of_scipy() -> None:
    random = np.random.default_rng(0)
    rows = ROWS_AT_ONCE + 3
    left, right = (sp.random(50, width, 0.3, "csr", random_state=1) for width in (7, 11))
    chosen = [(matrix, random.integers(0, 50, rows)) for matrix in (left, right)]
    expected = sp.hstack([matrix[at] for matrix, at in chosen], format="csr")
    placed = side_by_side(chosen)
    assert placed.shape == expected.shape
    assert (placed != expected.astype(np.float32)).nnz == 0


@pytest.mark.parametrize("scoring", SCORERS)
def test_a_fold_scores_as_scikit_learn_says(scoring: str) -> None:
    x, y, groups, weight = rows()
    few = x[:, :3].toarray().round()
    assert len(np.unique(few, axis=0)) < 10  # so that many are scored alike
    how = replace(HOW, scoring=scoring)
    grid, _ = search(few, y, groups, np.ones_like(weight), how, few_columns)
    for c, scores in zip(how.c_values, grid.scores.T, strict=True):
        said = cross_val_score(few_columns(c, how), few, y, groups=groups,
                               cv=GroupKFold(how.folds), scoring=scoring)
        assert scores == pytest.approx(said, abs=1e-12)


def test_pairs_that_share_a_row_count_as_rows_of_their_own() -> None:
    x, y, groups, weight = rows()
    twice, label = np.repeat(np.arange(1200), 2), np.repeat(y, 2)
    apart, _ = search(x[twice], label, groups[twice], weight[twice], HOW)
    shared, _ = search(x, label, groups[twice], weight[twice], HOW, row_of=twice)
    assert shared.scores == pytest.approx(apart.scores, abs=0.02)


def test_a_pair_that_weighs_nothing_is_scored_but_not_learned_from() -> None:
    x, y, groups, weight = rows()
    left_out = np.arange(1200) % 4 == 0
    weight[left_out] = 0
    how = replace(HOW, c_values=(1.0,))  # they count where the best C is chosen
    _, logits = search(x, y, groups, weight, how)
    x.data[np.repeat(left_out, np.diff(x.indptr))] *= -1
    _, again = search(x, y, groups, weight, how)
    assert np.array_equal(logits[~left_out], again[~left_out])
    assert np.abs(logits - again)[left_out].min() > 1e-6


def test_those_drawn_weigh_for_all_of_their_kind() -> None:
    marked = np.arange(1000) % 3 > 0
    weight = weights_of_drawn(marked, 100, seed=1)
    assert (weight[~marked] == 1).all()
    assert (weight[marked] > 0).sum() == 100
    assert weight[marked].sum() == pytest.approx(marked.sum())
    assert (weights_of_drawn(marked, 1000, seed=1) == 1).all()


def test_a_search_stops_early_but_near_the_end() -> None:
    grid, logits = search(*rows(), HOW)
    strict, exact = search(*rows(), HOW, partial(grid_search.many_columns, tolerance=1e-4))
    assert grid.best_c == strict.best_c
    assert np.abs(logits - exact).mean() < 0.02 * exact.std()
    assert grid.scores == pytest.approx(strict.scores, abs=0.002)


def wait_for(path: Path, _: Any) -> bool:
    for _ in range(300):
        if path.exists():
            return True
        time.sleep(0.1)
    return False


def touch(path: Path, _: Any) -> None:
    path.touch()


@needs_worker
def test_what_comes_last_does_not_wait_for_a_worker_that_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*worker.LARGE_PAGES)
    worker.start()
    try:
        calls: worker.Calls[Any] = worker.Calls(
            [partial(wait_for, tmp_path / "done"), partial(touch, tmp_path / "done")], None)
        calls.begin()
        assert calls.results()[0]
    finally:
        worker.end()


def test_a_fold_where_everybody_was_hired_is_told() -> None:
    groups = np.repeat(np.arange(7), 4)
    hired = (groups < 5).astype(np.int64)  # five vacancies with nobody else, for five folds
    x = sp.csr_matrix(np.random.default_rng(0).random((len(groups), 3)))
    with pytest.raises(StepError, match="holds nobody who was not hired; lower grid_search_cv"):
        search(x, hired, groups, np.ones(len(groups)), replace(HOW, folds=5))


def test_a_fold_that_would_learn_from_the_hired_alone_is_told() -> None:
    groups = np.array([0, 1, 2, 3] + [4] * 90 + [5] * 3)
    hired = (groups < 4).astype(np.int64)
    x = sp.csr_matrix(np.random.default_rng(0).random((len(groups), 3)))
    weight = np.where(groups == 5, 0.0, 1.0)  # none of them was drawn
    with pytest.raises(StepError, match=r"not hired is of one vacancy.*lower grid_search_cv"):
        search(x, hired, groups, weight, replace(HOW, folds=2))


@contextmanager
def searching() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that waits for its worker, which never ends its fit."""
    with subprocess.Popen([sys.executable, "-c", SEARCH_WITHOUT_END], cwd=PROJECT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "fitting\n", "it ended by itself"
            (number,) = children(process.pid, "popen_loky")
            yield process, number
        finally:
            process.kill()


@needs_worker
def test_a_worker_and_what_it_reads_go_with_a_training_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with searching() as (process, number):
        started = children(process.pid, "")  # the worker, and what tracks it
        assert number in started
        assert list(tmp_path.rglob("value"))
        process.kill()
        process.wait()
        deadline = time.monotonic() + 15
        while any(map(alive, started)):
            assert time.monotonic() < deadline, "a worker outlives the training"
            time.sleep(0.2)
        assert not list(tmp_path.rglob("value"))


@needs_worker
def test_a_worker_may_need_much_memory() -> None:
    (processes, here), messages = said_by(GROWS)
    assert processes == 1
    assert not here
    assert "worker" not in messages


@needs_worker
def test_a_search_goes_on_alone_where_its_worker_is_killed() -> None:
    with searching() as (process, number):
        os.kill(number, signal.SIGKILL)
        said, messages = process.communicate(timeout=60)
        assert process.returncode == 0
        assert json.loads(said) is True
        assert messages.count(worker.KILLED) == 1


@needs_worker
def test_a_search_goes_on_alone_where_its_worker_is_killed_while_it_starts() -> None:
    same, messages = said_by(KILLED_WHILE_STARTING)
    assert same is True
    assert messages.count(worker.KILLED) == 1
