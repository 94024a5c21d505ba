"""Starts the services, shows one log, restarts what dies, stops all of it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import IO

from gateway.settings import PROJECT
from stack.ancestry import Ancestor
from stack.processes import MARK, SERVICE, end_all, end_remains
from stack.services import GATEWAY, MLFLOW, Service, environment_for

SECONDS_TO_START = 180.0
LONGEST_BACKOFF, STEADY_SECONDS = 30.0, 60.0
_LOGIN = ("curl -s {}/login -H 'Content-Type: application/json' "
          """-d '{{"username": "admin", "password": "…"}}'""")


class StackError(Exception):
    """The stack cannot go on; says why in one line."""


class Running:
    """A service, its process, and how often it had to be started again."""

    def __init__(self, service: Service, mark: str, log: "Log") -> None:
        self.service = service
        self._mark = mark
        self._log = log
        self._backoff = 0.0
        self._start()

    def _start(self) -> None:
        self._started = time.monotonic()
        self._again_at: float | None = None
        environment = environment_for(self.service, os.environ)
        self.process = subprocess.Popen(
            self.service.command,
            env=environment | {MARK: self._mark, SERVICE: self.service.name},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is the launcher's, which ends them in order
        )
        assert self.process.stdout  # noqa: S101  # nosec B101 - it is a pipe
        self._log.follow(self.service.name, self.process.stdout)

    def answers(self) -> bool:
        """Whether it answers at /health."""
        try:
            with urllib.request.urlopen(f"{self.service.url}/health", timeout=2) as answer:  # noqa: S310  # nosec B310
                return bool(answer.status == 200)
        except (OSError, ValueError):
            return False

    def keep_up(self) -> None:
        """Start it again when it has died, later each time."""
        status = self.process.poll()
        if status is None:
            return
        now = time.monotonic()
        if self._again_at is None:
            steady = now - self._started > STEADY_SECONDS
            self._backoff = 1.0 if steady else min(LONGEST_BACKOFF, 2 * self._backoff or 1.0)
            self._again_at = now + self._backoff
            self._log.say(f"{self.service.name} ended with status {status}; "
                          f"started again in {self._backoff:.0f} s")
            end_remains(self._mark, self.service.name)
        elif now >= self._again_at:
            self._start()


class Log:
    """Lines of all services on standard output, each with the name of its service before it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._width = max(map(len, names))
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def say(self, line: str, name: str = "stack") -> None:
        """One line."""
        with self._lock, suppress(OSError):  # whoever read it is gone: the services are not
            print(f"{name:<{self._width}} | {line}", flush=True)

    def follow(self, name: str, output: IO[bytes]) -> None:
        """Show what a service prints until it closes its output."""
        thread = threading.Thread(target=self._follow, args=(name, output), daemon=True)
        thread.start()
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]

    def finish(self) -> None:
        """Wait a moment for the last lines."""
        for thread in self._threads:
            thread.join(1)

    def _follow(self, name: str, output: IO[bytes]) -> None:
        with output:
            for raw in output:
                line = raw.decode(errors="replace").rstrip()
                if line:
                    self.say(_readable(line) if name == GATEWAY else line, name)


def _readable(line: str) -> str:
    """The gateway's log of a request in words; any other line as it is."""
    try:
        facts = json.loads(line)
        clock = facts["time"][11:19]
        if "route" not in facts:
            return f"{clock} {facts['message']}"
    except (ValueError, KeyError, TypeError):
        return line
    version = facts.get("model_version")
    words = [clock, facts["method"], facts["route"], facts["status"], f"{facts['ms']} ms",
             facts.get("user") or "", f"version {version}" if version else ""]
    return " ".join(str(word) for word in words if word != "")


class Launcher:
    """Runs a stack until SIGTERM, Ctrl-C, or the end of the `mlflow run` around it."""

    def __init__(self, services: Sequence[Service], ancestors: Sequence[Ancestor]) -> None:
        """It also ends when one of `ancestors` does."""
        self._services = services
        self._mark = uuid.uuid4().hex
        self._log = Log([service.name for service in services])
        self._running: list[Running] = []
        self._stop = threading.Event()
        self._ancestors = ancestors

    def run(self) -> None:
        """Start, watch, stop. Raises StackError when a service does not come up."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._end)
        # holds the other end of its standard input: whatever becomes of us, it notices
        with subprocess.Popen([sys.executable, "-m", "stack.processes", self._mark], cwd=PROJECT,
                              stdin=subprocess.PIPE, start_new_session=True) as guard:
            try:
                self._start()
                while not self._over(0.5):
                    for running in self._running:
                        running.keep_up()
                    if guard.poll() is not None:
                        raise StackError("its guard, python -m stack.processes, was killed")
            finally:
                self._log.say("stopping")
                end_all(self._mark)
                for running in self._running:
                    running.process.kill()  # where end_all finds nothing (not on Linux)
                    running.process.wait()
                self._log.finish()
                self._log.say("all has ended")

    def _start(self) -> None:
        for service in self._services:
            running = Running(service, self._mark, self._log)
            self._running.append(running)
            deadline = time.monotonic() + SECONDS_TO_START
            while not running.answers():
                status = running.process.poll()
                if status is not None:
                    raise StackError(f"{service.name} ended with status {status} before it "
                                     "answered: its lines above say why")
                if time.monotonic() > deadline:
                    raise StackError(f"{service.name} does not answer at {service.url}/health")
                if self._over(0.2):
                    return
        self._welcome()

    def _welcome(self) -> None:
        urls = {service.name: service.url for service in self._services}
        lines = ["up; Ctrl-C stops all of it",
                 f"gateway  {urls[GATEWAY]}  the API; its page is {urls[GATEWAY]}/docs"]
        if MLFLOW in urls:
            lines.append(f"MLflow   {urls[MLFLOW]}  runs, plots, the registry")
        lines += [
            "log in:  " + _LOGIN.format(urls[GATEWAY]),
            "the password of admin was given or shown once, at the first start; a new one: "
            "flask --app gateway users passwd admin (where requirements.txt is installed)",
        ]
        for line in lines:
            self._log.say(line)

    def _over(self, seconds: float) -> bool:
        """Wait; whether it is time to stop."""
        return self._stop.wait(seconds) or not all(
            ancestor.is_alive() for ancestor in self._ancestors)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()
