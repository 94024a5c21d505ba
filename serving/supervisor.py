"""Keeps the server and its workers up, follows the registry beside it, ends all on a signal."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from types import FrameType

from uvicorn.config import STARTUP_FAILURE

from serving.follower import Follower
from serving.registry import Registry
from serving.settings import PROJECT, Settings, without_credentials
from serving.state import StateDirectory, Version

SECONDS_TO_END = 8
LONGEST_BACKOFF = 10.0
FAILURES_BEFORE_DISCARDING = 5
"""How often a version may fail to load when there is no other on disk, before it is discarded."""

_log = logging.getLogger("serving")


class PortTaken(Exception):
    """The address cannot be listened on; the message says which and why."""


class Server:
    """The uvicorn process and, in its process group, the workers."""

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self._settings = settings
        self._listening = listening
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: set[int] = set()

    def start(self) -> None:
        """Start it, or start it again after its end."""
        self._signal(0)  # forgets the groups that are gone
        descriptor = self._listening.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serving.server", str(descriptor), str(self._settings.workers),
             str(int(self._settings.swap_seconds)), str(os.getpid())],
            cwd=PROJECT,
            env={**without_credentials(os.environ), "MODEL_STATE": str(self._settings.state)},
            pass_fds=(descriptor,), stdin=subprocess.DEVNULL, start_new_session=True,
        )
        self._groups.add(self._process.pid)

    def ended(self) -> int | None:
        """Its exit status once it has ended."""
        return self._process.poll() if self._process else None

    def reload(self) -> None:
        """Replace the workers one by one."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGHUP)

    def end(self, seconds: float) -> None:
        """Ask it and its workers to end, and make them end after `seconds`."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while self._signal(0) and time.monotonic() < deadline:
            self.ended()  # or it would stay in its group as a zombie
            time.sleep(0.05)
        self._signal(signal.SIGKILL)
        if self._process:
            self._process.wait()

    def _signal(self, number: int) -> bool:
        """Signal every group; whether there is one left. A server that was killed leaves workers
        behind that finish their requests."""
        for group in list(self._groups):
            try:
                os.killpg(group, number)
            except (ProcessLookupError, PermissionError):  # gone, and its number someone else's
                self._groups.discard(group)
        return bool(self._groups)


class Supervisor:
    """Runs the server until SIGTERM or Ctrl-C."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._state = StateDirectory(settings.state)
        self._stop = threading.Event()
        self._ending = False
        self._failures: Counter[Version] = Counter()

    def run(self) -> None:
        """Serve until told to end. Raises StateError, PortTaken."""
        self._state.take()
        with listen(self._settings.host, self._settings.port) as listening:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._end)
            server = Server(self._settings, listening)
            server.start()
            _log.info("listening on http://%s:%d, %d workers, state in %s", self._settings.host,
                      self._settings.port, self._settings.workers, self._settings.state)
            follower = Follower(
                self._settings, self._state, Registry(), server, self._stop)
            threading.Thread(target=follower.run, name="follower", daemon=True).start()
            self._keep_up(server)
            self._stop.set()
            server.end(SECONDS_TO_END)
            _log.info("ended")

    def _keep_up(self, server: Server) -> None:
        started, backoff = time.monotonic(), 0.0
        while not self._ending:
            time.sleep(0.1)
            status = server.ended()
            if status is None or self._ending:
                continue
            steady = time.monotonic() - started > 30
            if steady:
                self._failures.clear()
            if status == STARTUP_FAILURE:
                self._fall_back()
            backoff = 0.0 if steady else min(LONGEST_BACKOFF, 2 * backoff + 0.5)
            _log.info("the server ended with status %d; starting it again", status)
            self._sleep(backoff)
            server.start()
            started = time.monotonic()

    def _fall_back(self) -> None:
        """The workers cannot load what the link names: go back to the version before it."""
        current = self._state.current()
        if current is None:
            return
        self._failures[current] += 1
        others = self._state.others(current)
        if others:
            _log.info("version %d does not load; falling back to %d", current.number,
                      others[0].number)
            self._state.point(others[0])
            self._state.keep_only(*others)
        elif self._failures[current] >= FAILURES_BEFORE_DISCARDING:
            _log.info("version %d does not load from disk; discarded", current.number)
            # off the disk first: the follower, in its thread, would take what is there without
            # being pointed to for a version to go back to
            self._state.keep_only()
            self._state.point(None)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._ending and time.monotonic() < until:
            time.sleep(0.1)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ending = True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, held by the supervisor so that no connection is refused while the
    server behind it is replaced. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + 3  # the workers of a killed supervisor need a moment to end
    while True:
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(2048)
        except OSError as error:
            listening.close()
            if time.monotonic() > deadline:
                raise PortTaken(f"cannot listen on {host}:{port} ({error.strerror}); stop what "
                                "uses it, or set MODEL_PORT") from error
            time.sleep(0.2)
        else:
            return listening
