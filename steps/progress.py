"""Progress of long work: a bar on a terminal, plain lines otherwise, tags on the MLflow run."""

import shutil
import sys
import time

import mlflow
from tqdm import tqdm

from steps.failure import Terminated

EVERY_SECONDS = 10


class Progress:
    """Reports the stages of one step.

    Each stage is given with its share of the whole, in percent; `seconds` holds how long each
    took, without the calls to MLflow that begin it.
    """

    def __init__(self, stages: dict[str, float]) -> None:
        self._shares = stages
        self._total = sum(stages.values())
        self._started = time.perf_counter()
        self._told = self._started
        self._begun = self._started
        self._done = 0.0
        self._current: str | None = None
        self.seconds: dict[str, float] = {}
        columns, lines = shutil.get_terminal_size((100, 24))  # where a terminal tells no size
        self._bar = (
            tqdm(
                total=100,
                bar_format="{desc:<34}{percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}",
                ncols=columns,
                nrows=lines,
            )
            if sys.stderr.isatty()
            else None
        )

    def stage(self, name: str, note: str = "") -> None:
        """Enter the stage `name`; the one before it is over. Raises Terminated where the run has
        been ended from outside."""
        self._close()
        percent = 100 * self._done / self._total
        self._say(f"{name} {note}".rstrip(), percent)
        mlflow.set_tags({"jobmatch.stage": name, "jobmatch.percent": f"{percent:.0f}"})
        for parent in _running_parents():  # whoever watches one of those sees the stage too
            mlflow.MlflowClient().set_tag(parent, "jobmatch.stage", name)
        self._current, self._begun = name, time.perf_counter()

    def within(self, fraction: float) -> None:
        """The current stage is `fraction` (0..1) through."""
        if self._bar and self._current:
            percent = 100 * (self._done + fraction * self._shares[self._current]) / self._total
            self._bar.update(percent - self._bar.n)

    def told(self, fraction: float, note: str) -> None:
        """The same, with a note such as `5,000 of 20,000 rows`: shown at once on a terminal, and
        every `EVERY_SECONDS` otherwise and on the run. Raises Terminated as `stage`."""
        self.within(fraction)
        if self._current is None:
            return
        if self._bar:
            self._bar.set_postfix_str(note)
        if time.perf_counter() - self._told < EVERY_SECONDS:
            return
        self._told = time.perf_counter()
        percent = 100 * (self._done + fraction * self._shares[self._current]) / self._total
        if not self._bar:
            self._say(f"{self._current} {note}", percent)
        mlflow.set_tag("jobmatch.percent", f"{percent:.0f}")
        _running_parents()  # for what it raises

    def finish(self) -> None:
        """All stages are over: their seconds become the run's metrics `seconds_<stage>`."""
        self._close()
        self._say("done", 100)
        if self._bar:
            self._bar.close()
        mlflow.set_tags({"jobmatch.stage": "done", "jobmatch.percent": "100"})
        mlflow.log_metrics(
            {f"seconds_{name.replace(' ', '_')}": took for name, took in self.seconds.items()})

    def _close(self) -> None:
        if self._current is None:
            return
        self.seconds[self._current] = time.perf_counter() - self._begun
        self._done += self._shares[self._current]
        self._current = None

    def _say(self, text: str, percent: float) -> None:
        if self._bar:
            self._bar.set_description(text)
            self._bar.update(percent - self._bar.n)
        else:
            elapsed = time.perf_counter() - self._started
            print(f"[{percent:3.0f}%] {text} ({elapsed:.0f} s)", flush=True)


def _running_parents() -> list[str]:
    """Ids of the runs that brought this one about, the nearest first.

    Raises Terminated when this run or one of those was ended from outside. A training on a cluster
    is stopped that way: MLflow 3.17 deletes its job such that Kubernetes leaves the pod.
    """
    client, active = mlflow.MlflowClient(), mlflow.active_run()
    run = client.get_run(active.info.run_id) if active else None
    parents = []
    while run:
        if run.info.status != "RUNNING":
            raise Terminated
        parent = run.data.tags.get("mlflow.parentRunId")
        if parent:
            parents.append(parent)
        run = client.get_run(parent) if parent else None
    return parents
