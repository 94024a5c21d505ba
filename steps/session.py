"""The frame around every step: its MLflow run, its errors, its signals."""

import gc
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from tempfile import gettempdir
from types import FrameType
from typing import Any, TypeVar

import mlflow
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException

from steps.failure import StepError, Terminated
from steps.parameters import Parameters, parse
from steps.processes import end_abandoned, mark_own
from steps.scratch import own_folder

P = TypeVar("P", bound=Parameters)
ERROR = "jobmatch.error"
STOP = (signal.SIGTERM, signal.SIGINT)
SECONDS_TO_FINISH_A_WRITE = 5.0
STOPPED = "stopped; nothing was registered or moved"


def run_step(entry_point: str, model: type[P], body: Callable[[P], object]) -> None:
    """Run a step as `mlflow run . -e entry_point` or `python -m steps.entry_point` starts it.

    The MLflow run that `mlflow run` made is continued; without one a new run is started. On a
    StepError the process prints its line and exits with 1; the run ends FAILED and carries the
    line in the tag `jobmatch.error`. On SIGTERM or Ctrl-C the run ends KILLED; a run that has been
    ended elsewhere meanwhile stops the step too.
    """
    _quiet()
    for number in STOP:
        signal.signal(number, _terminate)
    try:
        parameters = _parse(model, entry_point)
        end_abandoned()  # the first to open the store, which imports more
        gc.freeze()  # what has been imported stays: looking through it again is 4 % of a training
        gc.enable()  # a training imports without it
        if _continued() and not _still_running():  # a pod that starts when it is stopped already
            raise Terminated
        with own_folder(), step_run(run_name=None if _continued() else entry_point) as run:
            _log_parameters(run.info.run_id, parameters)
            body(parameters)
            past_stopping()
    except StepError as error:
        sys.exit(f"error: {error}")
    except (MlflowException, OSError) as error:
        sys.exit(f"error: {one_line(error)}")
    except Terminated:
        past_stopping()
        _end_continued("KILLED")  # where the signal came before the run was taken over
        print(STOPPED, file=sys.stderr)
        sys.exit(143)


@contextmanager
def step_run(**start: Any) -> Iterator[mlflow.ActiveRun]:
    """An MLflow run that says which process it belongs to, why it failed, and whether it was
    stopped. Takes what `mlflow.start_run` takes."""
    with mlflow.start_run(**start) as run:
        mark_own()
        try:
            yield run
        except Terminated:
            # `mlflow run` of 3.17 sets FAILED over KILLED after Ctrl-C: the tag says what it was
            mlflow.set_tag(ERROR, STOPPED)
            mlflow.end_run("KILLED")
            raise
        except Exception as error:
            with suppress(MlflowException):  # the store may be what failed
                mlflow.set_tag(ERROR, one_line(error))
            raise


def past_stopping() -> None:
    """From here on SIGTERM and Ctrl-C come too late: what has begun is brought to its end."""
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)


def one_line(error: Exception) -> str:
    """What went wrong, without anything that could hold a text of the records, and without the
    login that an address in it may hold."""
    return re.sub(r"://[^/\s]*@", "://…@", _said(error))


def _said(error: Exception) -> str:
    if isinstance(error, StepError):
        return str(error)
    if isinstance(error, MlflowException):
        first, *more = (error.message or type(error).__name__).splitlines()
        why = f" {more[0].strip()}" if first.endswith(":") and more else ""
        return f"MLflow at {mlflow.get_tracking_uri()}: {first}{why}"
    if isinstance(error, OSError):
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        if type(error) is OSError and error.errno is None:  # numpy's: it could not write all
            return (f"a file could not be written or read whole ({first}); is there room in "
                    f"{gettempdir()}?")
        return first
    return f"unexpected {type(error).__name__}; the step's output tells where"


def _quiet() -> None:
    """Keep MLflow's own chatter out of the step's output; warnings and errors stay."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if "@" in mlflow.get_tracking_uri():  # it would print that address, login and all
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("mlflow.store.db.utils", "alembic", "mlflow.tracking._model_registry",
                 "mlflow.store.model_registry"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _continued() -> bool:
    return "MLFLOW_RUN_ID" in os.environ


def _parse(model: type[P], entry_point: str) -> P:
    try:
        return parse(model, entry_point, sys.argv[1:])
    except StepError as error:
        if _continued():  # so that whoever looks at the run sees why it failed
            mlflow.MlflowClient().set_tag(os.environ["MLFLOW_RUN_ID"], ERROR, str(error))
            _end_continued("FAILED")
        raise


def _end_continued(status: str) -> None:
    """End the run that `mlflow run` made, where there is one that still runs."""
    if _continued() and _still_running():
        mlflow.MlflowClient().set_terminated(os.environ["MLFLOW_RUN_ID"], status)


def _still_running() -> bool:
    run = mlflow.MlflowClient().get_run(os.environ["MLFLOW_RUN_ID"])
    return not RunStatus.is_terminated(RunStatus.from_string(run.info.status))


def _log_parameters(run_id: str, parameters: Parameters) -> None:
    # `mlflow run` has logged them already, except when it was given a run id
    known = mlflow.get_run(run_id).data.params
    mlflow.log_params({k: v for k, v in parameters.as_strings().items() if k not in known})


def _terminate(signum: int, frame: FrameType | None) -> None:
    """Stop at once, but not in the middle of a write to the store: broken off, it can leave the
    database locked for the very process that has to say there that it was stopped. And again where
    it was in vain: what is raised in a destructor, which may run at any moment, is lost."""
    for number in STOP:  # Ctrl-C under `mlflow run` brings both signals: one is enough
        signal.signal(number, signal.SIG_IGN)
    deadline = time.monotonic() + SECONDS_TO_FINISH_A_WRITE

    def stop(_signum: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        stopping = isinstance(sys.exception(), Terminated)
        if not stopping and not (_writes(frame) and time.monotonic() < deadline):
            raise Terminated

    signal.signal(signal.SIGALRM, stop)
    stop(signum, frame)


def _writes(frame: FrameType | None) -> bool:
    """Whether this frame, or one that called it, is MLflow's."""
    while frame:
        if frame.f_globals.get("__name__", "").startswith("mlflow."):
            return True
        frame = frame.f_back
    return False
