"""Fits in other processes: the same answers, and no process that outlives the training."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
import scipy.sparse as sp

from steps import grid_search
from steps.failure import StepError
from steps.grid_search import Settings, end_workers, search, start_workers
from tests.conftest import PROJECT
from tests.serving.conftest import alive, children

HOW = Settings((0.1, 10.0), 3, "roc_auc", 1000, 7)

STARTED_EARLY = """
import json, os, time
import numpy as np, scipy.sparse as sp
from steps import grid_search
from tests.serving.conftest import children
grid_search.WORTH_SHARING = 0
grid_search.start_workers()
while len(early := children(os.getpid(), "popen_loky")) < 2:
    time.sleep(0.1)
x = sp.csr_matrix(np.random.default_rng(0).random((200, 20)))
how = grid_search.Settings((1.0,), 5, "roc_auc", 100, 0)
grid_search.search(x, np.arange(200) % 2, np.arange(200), np.ones(200), how)
print(json.dumps([early, children(os.getpid(), "popen_loky")]))
"""

SEARCH_WITHOUT_END = """
import os
import numpy as np, scipy.sparse as sp
from steps import grid_search
def says_so(c, how):
    os.write(1, b"fitting\\n")  # in one piece: print's line and its end may be two
    return grid_search.many_columns(c, how)
grid_search.WORTH_SHARING = 0
grid_search.start_workers()
random = np.random.default_rng(0)
x = sp.csr_matrix(random.random((20_000, 200)))
y = np.arange(20_000) % 2
how = grid_search.Settings((1e6,) * 50, 5, "roc_auc", 1_000_000, 0)
grid_search.search(x, y, np.arange(20_000), np.ones(20_000), how, says_so)
"""

KILLED_WHILE_STARTING = """
import json, os, signal, time
import numpy as np, scipy.sparse as sp
from steps import grid_search
from tests.serving.conftest import children
grid_search.WORTH_SHARING = 0
grid_search.start_workers()
while not (early := children(os.getpid(), "popen_loky")):
    time.sleep(0.01)
os.kill(early[0], signal.SIGKILL)
x = sp.csr_matrix(np.random.default_rng(0).random((200, 20)))
how = grid_search.Settings((1.0,), 5, "roc_auc", 100, 0)
grid, _ = grid_search.search(x, np.arange(200) % 2, np.arange(200), np.ones(200), how)
print(json.dumps([early[0], children(os.getpid(), "popen_loky"), len(grid.scores)]))
"""


needs_workers = pytest.mark.skipif(
    not Path("/proc/self/task").exists() or joblib.cpu_count() < 2,
    reason="needs Linux' /proc and two cores")


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


def test_other_processes_give_the_same_grid_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    alone, logits = search(*rows(), HOW, report=told.append)
    assert told == pytest.approx([n / 6 for n in range(1, 7)])
    monkeypatch.setattr(grid_search, "WORTH_SHARING", 0)
    monkeypatch.setenv(*grid_search.LARGE_PAGES)  # what is set for the workers ends here
    start_workers()
    together, again = search(*rows(), HOW)
    end_workers()
    assert np.array_equal(alone.scores, together.scores)
    assert np.array_equal(logits, again)
    assert alone.best_c == together.best_c


@needs_workers
def test_workers_that_started_early_are_those_that_search() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTED_EARLY], cwd=PROJECT, text=True,
                          stdout=subprocess.PIPE) as process:
        try:
            said, _ = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0
    early, searching = map(set, json.loads(said))
    assert early == searching
    assert len(early) == 2


def test_pairs_that_share_a_row_count_as_rows_of_their_own() -> None:
    x, y, groups, weight = rows()
    twice, label = np.repeat(np.arange(1200), 2), np.repeat(y, 2)
    apart, _ = search(x[twice], label, groups[twice], weight[twice], HOW)
    shared, _ = search(x, label, groups[twice], weight[twice], HOW, row_of=twice)
    assert shared.scores == pytest.approx(apart.scores, abs=0.02)


def test_a_fold_where_everybody_was_hired_is_told() -> None:
    groups = np.repeat(np.arange(7), 4)
    hired = (groups < 5).astype(np.int64)  # five vacancies with nobody else, for five folds
    x = sp.csr_matrix(np.random.default_rng(0).random((len(groups), 3)))
    with pytest.raises(StepError, match="holds nobody who was not hired; lower grid_search_cv"):
        search(x, hired, groups, np.ones(len(groups)), replace(HOW, folds=5))


@contextmanager
def searching() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that searches without end, and its children: the workers, and what tracks them."""
    with subprocess.Popen([sys.executable, "-c", SEARCH_WITHOUT_END], cwd=PROJECT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout
            # each worker: one killed before it has a fit to do is replaced by another
            for _ in range(2):
                assert process.stdout.readline() == "fitting\n", "it ended by itself"
            yield process, children(process.pid, "")
        finally:
            process.kill()


@needs_workers
def test_a_worker_that_is_killed_while_it_starts_is_replaced() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED_WHILE_STARTING], cwd=PROJECT, text=True,
                          stdout=subprocess.PIPE) as process:
        try:
            said, _ = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0
    killed, searching, folds = json.loads(said)
    assert killed not in searching
    assert len(searching) == 2
    assert folds == 5


@needs_workers
def test_workers_end_with_a_training_that_is_killed() -> None:
    with searching() as (process, started):
        assert all(map(alive, started))
        process.kill()
        process.wait()
        deadline = time.monotonic() + 15
        while any(map(alive, started)):
            assert time.monotonic() < deadline, "a worker outlives the training"
            time.sleep(0.2)


@needs_workers
def test_a_worker_that_is_killed_is_told_in_one_line() -> None:
    with searching() as (process, _):
        worker = children(process.pid, "popen_loky")[0]
        os.kill(worker, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
        assert re.match(
            r"steps.failure.StepError: train: one of \d processes that search the grid was killed",
            said.strip().splitlines()[-1])
