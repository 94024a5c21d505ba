"""Run a service without a run of its own in the experiment in which people compare models.

    python -m stack.unlisted python -m serving

`mlflow run` makes a run for every entry point, wherever the environment says, and updates it when
the entry point ends: a run that is deleted meanwhile makes it fail. So the run of a service is
moved to the experiment `services`; on a tracking server, which cannot move runs, it is deleted
when `mlflow run` has ended.

A SIGTERM to `mlflow run` ends that process and no other. So a process of ours, started afresh
because MLflow would take 175 MB of it, stays between and ends the service with `mlflow run`.
"""

import logging
import os
import signal
import subprocess  # a list of our own, never a shell  # nosec B404
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from gateway.settings import PROJECT
from serving.lifeline import end_with_parent
from stack.ancestry import RUN, Ancestor, ancestors

EXPERIMENT = "services"
_DELETE, _WATCH = "--delete-after", "--watch"
SECONDS_TO_END = 9.0


def unlist_run() -> None:
    """Take the run that `mlflow run` made for this process out of sight and of the environment.

    Without such a run it does nothing. Where it cannot be done the run stays and a line says so.
    """
    line = ancestors()
    run_id = os.environ.pop(RUN, None)
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
    if not run_id:
        return
    for name in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        _move(run_id)
    except _NotHere:
        if line:
            outer = line[-1]
            subprocess.Popen(  # nosec B603
                [sys.executable, "-m", "stack.unlisted", _DELETE, str(outer.pid), outer.started,
                 run_id],
                cwd=PROJECT, start_new_session=True, stdin=subprocess.DEVNULL,
            )
    except Exception as error:  # whatever a store's driver raises: the service starts all the same
        print(f"the run {run_id} stays in its experiment ({type(error).__name__})",
              file=sys.stderr, flush=True)


class _NotHere(Exception):
    """The store is not a database that this process can open."""


def _move(run_id: str) -> None:
    """MLflow has no call that moves a run; its table has."""
    from mlflow import MlflowClient
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    client = MlflowClient()
    store = client._tracking_client.store
    if not isinstance(store, SqlAlchemyStore):
        raise _NotHere
    found = client.get_experiment_by_name(EXPERIMENT)
    target = found.experiment_id if found else client.create_experiment(EXPERIMENT)
    with store.ManagedSessionMaker() as session:
        session.query(SqlRun).filter_by(run_uuid=run_id).update({"experiment_id": int(target)})


def _delete_after(outer: Ancestor, run_id: str) -> None:
    while outer.is_alive():
        time.sleep(1)
    from mlflow import MlflowClient

    MlflowClient().delete_run(run_id)


def watch(line: Sequence[Ancestor], command: Sequence[str]) -> int:
    """Run the command until it ends, a signal asks it to, or one of the ancestors is gone; its exit
    status."""
    own = os.getpid()
    try:
        process = subprocess.Popen(  # a list, never a shell  # nosec B603
            command, preexec_fn=lambda: end_with_parent(own, signal.SIGTERM))
    except OSError as error:
        sys.exit(f"error: {command[0]} cannot be started: {error.strerror}")

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    while process.poll() is None and all(ancestor.is_alive() for ancestor in line):
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def main() -> None:
    """Take the run out of sight and run the command that the arguments name."""
    command = sys.argv[1:]
    if not command:
        sys.exit("error: say which command to run: python -m stack.unlisted COMMAND …")
    if command[0] == _DELETE:
        _delete_after(Ancestor(int(command[1]), command[2]), command[3])
        return
    if command[0] == _WATCH:
        line = [Ancestor(int(pid), started) for pid, _, started in
                (each.partition(":") for each in command[1].split(",") if each)]
        sys.exit(watch(line, command[2:]))
    line = ancestors()
    unlist_run()
    told = ",".join(f"{ancestor.pid}:{ancestor.started}" for ancestor in line)
    os.execv(sys.executable, [  # a list, never a shell  # noqa: S606  # nosec B606
        sys.executable, "-m", "stack.unlisted", _WATCH, told, *command])


if __name__ == "__main__":
    main()
