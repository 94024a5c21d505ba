"""Trainings: started as a process group of their own, under a lock, and read from MLflow.

The lock is a flock on a file; the process of `mlflow run` inherits it, so that it is held exactly
as long as that process lives, whatever becomes of the gateway. A run of ours that MLflow calls
RUNNING while the lock is free has lost its process: it is ended as KILLED by whoever looks.

For a backend other than local, `mlflow run` follows a job elsewhere, in a run that it makes itself
(MLflow 3.17 ignores --run-id there). It is given a name that nobody else uses, by which its run is
found and made ours; such a run is under way for as long as MLflow says so.
"""

import fcntl
import json
import logging
import os
import signal
import subprocess  # `mlflow run` is a command  # nosec B404
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gateway.errors import Problem
from gateway.settings import PREFIX, Settings
from gateway.state import exclusive, write_private
from gateway.upstream import MissingError, TrackingServer

_log = logging.getLogger("gateway.training")

EXPERIMENT, NAME = "jobmatch", "train"
TRAINING = "JOBMATCH_TRAINING"
"""In the environment of every process of a training: `stack` lets those go on."""
LAUNCHER_TAG, USER_TAG, ERROR_TAG = "jobmatch.launcher", "jobmatch.requested_by", "jobmatch.error"
UNDER_WAY = ("RUNNING", "SCHEDULED")
STOP_SECONDS, REGISTERING_SECONDS, KILL_SECONDS = 10.0, 60.0, 5.0
REGISTERING = "logging and registering"
"""The stage of `train` in which it is not stopped any more."""
HAND_OVER_SECONDS = 50.0
"""How long `mlflow run` may take to make its run: below the minute that proxies usually wait."""
LOCAL = "local"


class Trainings:
    """Starts, watches and stops the trainings of this gateway; one at a time."""

    def __init__(
        self, settings: Settings, tracking: TrackingServer, count: Callable[[str], None]
    ) -> None:
        """`count` is told "finished", "failed", "stopped" or "lost" when a training is over."""
        self._settings = settings
        self._tracking = tracking
        self._count = count
        self._lock = settings.state_dir / "training.lock"
        self._record_lock = settings.state_dir / "training.json.lock"
        self._record = settings.state_dir / "training.json"
        self._logs = settings.state_dir / "training"
        self._launcher = _identity(settings.state_dir)

    # --- start

    def start(self, parameters: Mapping[str, object], user: str) -> str:
        """Start `mlflow run . -e train` and return the run's id.

        Raises Problem: one is under way, the tracking server does not answer, or `mlflow run`
        cannot be started or ends without having made a run.
        """
        self.reconcile()
        with self._locked_or_busy() as lock:
            self._settle()  # it may have ended since
            with exclusive(self._record_lock):
                self._remember()
            if self._local:
                return self._start_here(parameters, user, lock)
            if other := self._under_way():
                raise _busy(other)
            return self._hand_over(parameters, user, lock)

    @property
    def _local(self) -> bool:
        return self._settings.project_backend == LOCAL

    def _start_here(self, parameters: Mapping[str, object], user: str, lock: int) -> str:
        run_id = self._create_run(user)
        try:
            process = self._launch(run_id, parameters, lock, run_id=run_id)
        except Problem as problem:
            self._end(run_id, "FAILED", problem.detail)
            raise
        self._watch(run_id, process)
        return run_id

    def _hand_over(self, parameters: Mapping[str, object], user: str, lock: int) -> str:
        name = uuid.uuid4().hex
        process = self._launch(name, parameters, lock, run_name=name, user=user)
        try:
            run_id = self._made_by(process, name)
        except Exception:
            if process.poll() is None:
                _stop_group(process.pid, name, signal.SIGINT, lambda: process.poll() is not None)
                process.wait()
            with suppress(Problem, MissingError):  # it may have made one after all
                if made := self._adopt():
                    self._end(made, "FAILED", "the training could not be handed over")
            self._remember()
            raise
        self._watch(run_id, process)
        return run_id

    def _made_by(self, process: subprocess.Popen[bytes], name: str) -> str:
        """The id of the run that `mlflow run` makes, once it has. Raises Problem: it made none."""
        deadline = time.monotonic() + HAND_OVER_SECONDS
        while True:
            ended = process.poll() is not None  # before the look: it may end right after making it
            if run_id := self._adopt():
                return run_id
            if ended or time.monotonic() > deadline:
                raise Problem("internal", "the training could not be handed over: see "
                                          f"training/{name}.log in the gateway's state")
            time.sleep(0.5)

    def _adopt(self) -> str | None:
        """The recorded training's id; a run that `mlflow run` made is made ours before.

        None as long as it has made none.
        """
        with exclusive(self._record_lock):
            recorded = self._recorded()
            name = recorded.get("run_name")
            if name is None:
                return recorded.get("run_id")
            run = next(iter(self._runs(f"attributes.run_name = '{name}'")), None)
            if run is None:
                return None
            run_id, known = str(run["info"]["run_id"]), tags_of(run)
            for key, value in self._tags(recorded["user"]).items():
                if key not in known or key == "mlflow.user":  # it may have got on already
                    self._tracking.tag_run(run_id, key, value)
            with suppress(FileNotFoundError):
                (self._logs / f"{name}.log").rename(self._logs / f"{run_id}.log")
            self._remember(run_id=run_id, pid=recorded["pid"])
            # last, because until here the run is found by its name
            self._tracking.tag_run(run_id, "mlflow.runName", NAME)
        return run_id

    @contextmanager
    def _locked_or_busy(self) -> Iterator[int]:
        # closed here in any case: the child has its own copy, and the lock goes with the last one
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _take(lock):
                raise _busy(self._running_id())
            yield lock
        finally:
            os.close(lock)

    def _running_id(self) -> str | None:
        """The id of the run that holds the lock, which may be about to be created."""
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            time.sleep(0.1)
            if run_id := self._recorded().get("run_id"):
                return str(run_id)
        return None

    def _create_run(self, user: str) -> str:
        run = self._tracking.post(
            "runs/create",
            experiment_id=self._tracking.experiment_id(EXPERIMENT),
            start_time=_now(),
            run_name=NAME,
            tags=[{"key": key, "value": value} for key, value in self._tags(user).items()],
        )
        return str(run["run"]["info"]["run_id"])

    def _tags(self, user: str) -> dict[str, str]:
        """What a run of ours begins with."""
        return {
            "mlflow.user": user, "jobmatch.stage": "starting", "jobmatch.percent": "0",
            LAUNCHER_TAG: self._launcher, USER_TAG: user,
        }  # fmt: skip

    def _launch(
        self, name: str, parameters: Mapping[str, object], lock: int, **facts: str
    ) -> subprocess.Popen[bytes]:
        """Start `mlflow run`, which holds the lock from now on, and record it with these facts.

        Raises Problem when it cannot be started.
        """
        try:
            self._logs.mkdir(mode=0o700, exist_ok=True)
            log = os.open(
                self._logs / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
            )
            try:
                process = subprocess.Popen(  # a list, never a shell  # nosec B603
                    self._command(name, parameters),
                    cwd=self._settings.project_dir,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=(lock,),
                )
            finally:
                os.close(log)
            try:
                self._remember(pid=process.pid, **facts)
            except OSError:  # nobody could stop what is not recorded
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
        except OSError as error:
            _log.error("cannot start `mlflow run`: %s", error.strerror)
            raise Problem("internal", "the training process could not be started") from error
        return process

    def _command(self, name: str, parameters: Mapping[str, object]) -> list[str]:
        settings = self._settings
        known_by = (["--run-id", name] if self._local
                    else ["--experiment-name", EXPERIMENT, "--run-name", name])
        command = [
            sys.executable, "-m", "mlflow", "run", ".", "-e", "train", *known_by,
            "--env-manager", "local", "--backend", settings.project_backend,
        ]  # fmt: skip
        if settings.project_backend_config:
            command += ["--backend-config", str(settings.project_backend_config)]
        given = {name: value for name, value in parameters.items() if value is not None}
        if settings.train_data_dir:
            given["data_dir"] = settings.train_data_dir
        for name, value in given.items():
            command += ["-P", f"{name}={value}"]
        return command

    def _environment(self) -> dict[str, str]:
        # the gateway's own secrets are no business of the training
        kept = {k: v for k, v in os.environ.items() if not k.startswith((PREFIX, "GUNICORN"))}
        kept.pop("PROMETHEUS_MULTIPROC_DIR", None)
        # the entry point says `python` and means this one, also in an environment not activated
        ours = str(Path(sys.executable).parent)
        kept["PATH"] = os.pathsep.join([ours, *filter(None, [kept.get("PATH")])])
        kept |= {"MLFLOW_TRACKING_URI": self._settings.tracking_uri, "PYTHONUNBUFFERED": "1",
                 TRAINING: "1"}
        # a gateway that `mlflow run` started has a run and an experiment of its own
        for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
            kept.pop(name, None)
        if self._settings.tracking_username and self._settings.tracking_password:
            kept["MLFLOW_TRACKING_USERNAME"] = self._settings.tracking_username
            kept["MLFLOW_TRACKING_PASSWORD"] = self._settings.tracking_password.get_secret_value()
        return kept

    def _watch(self, run_id: str, process: subprocess.Popen[bytes]) -> None:
        threading.Thread(target=self._wait, args=(run_id, process), daemon=True).start()

    def _wait(self, run_id: str, process: subprocess.Popen[bytes]) -> None:
        """Collect the process when it ends, so that no zombie stays, and see to its run."""
        status = process.wait()
        # an interrupted `mlflow run` exits as if it had failed: whoever stopped it ends the run
        recorded = self._recorded()
        stopping = recorded.get("run_id") == run_id and "stopping" in recorded
        with suppress(Problem, MissingError):  # then whoever looks next sees to it
            if status > 0 and not stopping and self._status(run_id) in UNDER_WAY:
                self._end(run_id, "FAILED",
                          f"the training process ended with status {status}: see its log")
            self._settle()

    # --- look and stop

    def is_busy(self) -> bool:
        """Whether the process of a training is at work."""
        return not self._lock_is_free()

    def run(self, run_id: str) -> dict[str, Any]:
        """The run of a training as MLflow has it. Raises Problem when it is not one, any more."""
        run = self._found(run_id)
        if _is_deleted(run):
            raise _no_training(run_id)
        return run

    def _found(self, run_id: str) -> dict[str, Any]:
        """The same, also where it was deleted on MLflow's screen."""
        self.reconcile()
        try:
            run = self._tracking.run(run_id)
        except MissingError:
            raise _no_training(run_id) from None
        if run["info"]["experiment_id"] != self._tracking.experiment_id(EXPERIMENT):
            raise _no_training(run_id)
        return run

    def stop(self, run_id: str) -> None:
        """Stop a training; its run ends as KILLED.

        Raises Problem when it is not one of this gateway, or not under way. Where the run was
        deleted meanwhile there is no such training, but its processes are stopped all the same.
        """
        run = self._found(run_id)
        if tags_of(run).get(LAUNCHER_TAG) != self._launcher:
            raise Problem("conflict", "this training was not started here: stop it where it runs")
        if run["info"]["status"] not in UNDER_WAY and not _is_deleted(run):
            raise Problem("conflict", f"this training is over ({run['info']['status'].lower()})")
        with exclusive(self._record_lock):
            recorded = self._recorded()
            here = recorded.get("run_id") == run_id
            if here:
                self._remember(**(recorded | {"stopping": True}))
        if here and not self._lock_is_free():
            # `mlflow run` cancels a job on another backend when it is interrupted
            ask = signal.SIGTERM if self._local else signal.SIGINT
            _stop_group(int(recorded["pid"]), run_id, ask, self._lock_is_free,
                        lambda: self._registers(run_id))
        if _is_deleted(run):
            raise _no_training(run_id)
        status = self._status(run_id)
        if status == "FINISHED":  # it was registering its version, which is not broken off
            raise Problem("conflict", "this training came to its end before it could be stopped")
        if status != "KILLED":
            self._end(run_id, "KILLED", None)
            if not here:
                self._count_end(None, "stopped")
        self._settle()

    def _registers(self, run_id: str) -> bool:
        return tags_of(self._tracking.run(run_id)).get("jobmatch.stage") == REGISTERING

    def reconcile(self) -> None:
        """End as KILLED every run of ours that has lost its process, and count what became of the
        last training. Raises Problem.

        On another backend the training is not a process of this machine: there it completes what
        a gateway that is gone had begun.
        """
        if not self._local:
            self._adopt()
        if not self._lock_is_free():
            return
        if self._local:
            for run in self._runs_under_way():
                self._end_lost(run["info"]["run_id"])
        self._settle()

    def _end_lost(self, run_id: str) -> None:
        with exclusive(self._record_lock):
            # since the first look a training may have begun, and this one have been ended
            if not self._lock_is_free() or self._status(run_id) not in UNDER_WAY:
                return
            recorded = self._recorded()
            here = recorded.get("run_id") == run_id
            if here:
                _kill_group(int(recorded["pid"]), run_id)
            if here and "stopping" in recorded:  # by whom it is about to be ended
                self._end(run_id, "KILLED", None)
                return
            _log.warning("the training %s has lost its process: ended as KILLED", run_id)
            self._end(run_id, "KILLED", "the training process died")
            self._count_end(recorded if here else None, "lost")

    def _settle(self) -> None:
        """Count what became of the recorded training if it is over: once, whoever looks."""
        with exclusive(self._record_lock):
            recorded = self._recorded()
            if "run_id" not in recorded or "counted" in recorded:
                return
            try:
                status = self._status(recorded["run_id"])
            except MissingError:
                return
            if status == "FINISHED":
                self._count_end(recorded, "finished")
            elif status not in UNDER_WAY:
                self._count_end(recorded, "stopped" if "stopping" in recorded else "failed")

    def _count_end(self, recorded: dict[str, Any] | None, outcome: str) -> None:
        """Count it, and keep in the record, where there is one, that it is counted."""
        with suppress(OSError):  # the disk is full: counted by who looks when it is not
            if recorded:
                self._remember(**recorded, counted=outcome)
            self._count(outcome)

    def _under_way(self) -> str | None:
        return next((run["info"]["run_id"] for run in self._runs_under_way()), None)

    def _runs_under_way(self) -> list[dict[str, Any]]:
        return self._runs(f"attributes.status = 'RUNNING' AND "
                          f"tags.`{LAUNCHER_TAG}` = '{self._launcher}'")

    def _runs(self, which: str) -> list[dict[str, Any]]:
        return list(self._tracking.pages(
            "POST", "runs/search", "runs",
            experiment_ids=[self._tracking.experiment_id(EXPERIMENT)], filter=which,
        ))  # fmt: skip

    def _status(self, run_id: str) -> str:
        return str(self._tracking.run(run_id)["info"]["status"])

    def _end(self, run_id: str, status: str, error: str | None) -> None:
        if error:
            self._tracking.tag_run(run_id, ERROR_TAG, error)
        self._tracking.end_run(run_id, status, _now())

    def _remember(self, **facts: object) -> None:
        write_private(self._record, json.dumps(facts))

    def _recorded(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._record.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def _lock_is_free(self) -> bool:
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return True


def _take(lock: int) -> bool:
    """Take the lock unless a training holds it; a look at it by another worker is very short."""
    for _ in range(5):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False


def tags_of(run: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a run as MLflow's REST API gives it."""
    return {tag["key"]: tag["value"] for tag in run.get("data", {}).get("tags", [])}


def _identity(directory: Path) -> str:
    """Tells this gateway's runs from those of others on the same tracking server."""
    path = directory / "launcher-id"
    with exclusive(directory / "launcher-id.lock"):
        if not path.exists():
            write_private(path, uuid.uuid4().hex)
        return path.read_text(encoding="utf-8").strip()


def _busy(run_id: str | None) -> Problem:
    if run_id is None:
        return Problem("training-under-way", "a training is starting")
    where = f"/train/{run_id}"
    return Problem("training-under-way", f"training {run_id} is under way",
                   {"run_id": run_id, "status_url": where}, {"Location": where})


def _is_deleted(run: Mapping[str, Any]) -> bool:
    return bool(run["info"].get("lifecycle_stage") == "deleted")


def _no_training(run_id: str) -> Problem:
    return Problem("not-found", f"there is no training {run_id}")


def _stop_group(
    group: int, run_id: str, ask: signal.Signals, gone: Callable[[], bool],
    registers: Callable[[], bool] = lambda: False,
) -> None:
    """Ask a training to end, and make it after ten seconds, or a minute where it registers.

    The step is asked, and `mlflow run` ends with it: ended at once, it would let go of the lock
    while the step still puts things in order, and whoever looked would call the training dead.
    """
    step = _members(group, run_id)
    with suppress(ProcessLookupError):
        for process in step:
            os.kill(process, ask)
        if not step or ask != signal.SIGTERM:  # it has not begun, or is a job on a cluster
            os.killpg(group, ask)
    for seconds in (STOP_SECONDS, REGISTERING_SECONDS):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (not gone() or _members(group, run_id)):
            time.sleep(0.1)
        if gone() or not registers():
            break
    with suppress(ProcessLookupError):
        if not gone():
            os.killpg(group, signal.SIGKILL)
    _kill_group(group, run_id)


def _kill_group(group: int, run_id: str) -> None:
    """Kill what is left of a training whose leading process has gone, and see it go: whoever is
    told that it was stopped may start the next one."""
    deadline = time.monotonic() + KILL_SECONDS
    while (left := _members(group, run_id)) and time.monotonic() < deadline:
        for process in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


def _members(group: int, run_id: str) -> list[int]:
    """Processes of the group that belong to the run: the number alone may be someone else's now."""
    mark = f"MLFLOW_RUN_ID={run_id}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            if os.getpgid(int(entry.name)) == group and mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def _now() -> int:
    return int(time.time() * 1000)
