"""Follows the alias `production`: fetch a version, check it, swap it in, verify, or put back.

One thread runs it. It alone writes the status; the link and the versions on disk are the
supervisor's too, where the workers cannot load what the link names.
"""

import http.client
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

from mlflow.models import Model

from jobmatch_pyfunc import contract
from serving.errors import where
from serving.registry import (
    ALIAS,
    MODEL,
    REFUSED_BECAUSE,
    SERVING_SINCE,
    Forbidden,
    NotNow,
    Registry,
    Unreachable,
)
from serving.server import GRACE_SECONDS
from serving.settings import PROJECT, Settings, without_credentials
from serving.state import READY, SWAPPING, WAITING, StateDirectory, Status, Version

RETRY_POLLS = 6
"""A version that could not be had or checked in time is tried again after so many polls."""

_log = logging.getLogger("serving")


class Reloads(Protocol):
    """The server, as far as the follower needs it."""

    def reload(self) -> None:
        """Have the workers replaced by ones that load what the link names."""


class Refused(Exception):
    """A version must not serve; the message says why, for the registry's screen."""


class Stopped(Exception):
    """The supervisor ends."""


class Follower:
    """`run` polls the registry until `stop` is set; `step` is one poll."""

    def __init__(
        self, settings: Settings, state: StateDirectory, registry: Registry, server: Reloads,
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._state = state
        self._registry = registry
        self._server = server
        self._stop = stop
        self._serving: Version | None = None
        self._refused: Version | None = None
        self._broken: Version | None = None
        """What is on disk and did not come up."""
        self._later: tuple[Version, float] | None = None
        """A version that is tried again, and when."""
        self._untold: list[tuple[Version, str, str | None]] = []
        self._last_said = ""

    def run(self) -> None:
        """Poll until stopped."""
        self._report()
        while not self._stop.is_set():
            try:
                self.step()
            except Stopped:
                return
            except Exception as error:  # following must go on, whatever a poll met
                self._say(f"following the registry failed ({where(error)}); trying again")
            self._stop.wait(self._settings.poll_seconds)

    def step(self) -> None:
        """Bring up what is on disk, then look at the registry and act. Raises Stopped."""
        current = self._state.current()
        if current is None and self._serving is not None:  # the supervisor had to discard it
            self._serving = None
            self._report()
        if current is not None and current not in (self._serving, self._broken):
            try:
                self._bring_up(current)
            except (Refused, NotNow) as error:  # the registry may have a better one
                self._broken = current
                self._say(f"version {current.number} does not serve from disk: {error}")
                self._report()
        try:
            wanted = self._registry.wanted()
        except Unreachable as error:
            self._broken = None  # nothing better can be had: it is tried again
            going_on = f"version {self._serving.number} goes on serving" if self._serving else (
                "waiting for it")
            self._say(f"{error}; {going_on}")
            return
        self._tell_later()
        if wanted is None:
            self._refused = None
            going_on = f"version {self._serving.number} goes on serving" if self._serving else (
                "waiting for a first one")
            self._say(f"no version of {MODEL} has the alias {ALIAS}; {going_on}")
        elif wanted == self._serving:
            self._refused = None
            self._say(f"version {wanted.number} serves")
        elif wanted != self._refused and not self._postponed(wanted):
            self._swap(wanted)

    def _postponed(self, version: Version) -> bool:
        return (self._later is not None and self._later[0] == version
                and time.monotonic() < self._later[1])

    def _bring_up(self, current: Version) -> None:
        """Wait until the workers answer with what is on disk, after a start or a fall-back."""
        self._report(next_version=current)
        self._verify(current)
        self._serving = current
        self._report()
        _log.info("version %d serves, from disk", current.number)
        self._last_said = f"version {current.number} serves"

    def _swap(self, wanted: Version) -> None:
        began, replaced = time.monotonic(), self._serving
        self._report(next_version=wanted)
        try:
            if not self._state.has(wanted) or wanted == self._broken:
                self._fetch(wanted)
            if self._registry.wanted() == wanted:  # else the next poll takes the newer one
                self._exchange(wanted)
                self._serving = wanted
                self._refused = self._broken = self._later = None
                self._state.keep_only(wanted, replaced)
                self._tell_serving(wanted, replaced)
                _log.info("version %d serves, replacing %s, after %.0f s", wanted.number,
                          replaced.number if replaced else "none", time.monotonic() - began)
                self._last_said = f"version {wanted.number} serves"
        except Refused as error:
            self._refused = wanted
            if wanted != self._state.current():
                self._state.discard(wanted)  # or it might be fallen back to
            self._not_serving(wanted, str(error))
        except NotNow as error:
            wait = RETRY_POLLS * self._settings.poll_seconds
            self._later = wanted, time.monotonic() + wait
            self._not_serving(wanted, f"{error}; tried again every {wait:.0f} s")
        except Unreachable as error:
            self._say(f"{error}; version {wanted.number} is swapped in later")
        finally:
            shutil.rmtree(self._state.incoming, ignore_errors=True)
            self._report()

    def _fetch(self, version: Version) -> None:
        """Have the version on disk, checked. Raises NotNow, Refused, Stopped."""
        shutil.rmtree(self._state.incoming, ignore_errors=True)
        try:
            self._registry.download(version, self._state.incoming)
        except OSError as error:
            raise NotNow(f"the disk cannot be written ({error.strerror})") from error
        self._require_signature()
        self._require_answers(version)
        self._state.accept(version)

    def _require_signature(self) -> None:
        try:
            signature = Model.load(str(self._state.incoming)).signature
        except Exception as error:
            raise Refused(f"its MLmodel cannot be read ({type(error).__name__})") from error
        expected = contract.signature(threshold=0.5)
        if signature is None or signature.inputs != expected.inputs:
            raise Refused("its input columns are not those of the service")
        if signature.outputs != expected.outputs:
            raise Refused("its output columns are not those of the service")
        given = {(p.name, p.dtype) for p in signature.params or ()}
        if given != {(p.name, p.dtype) for p in expected.params}:
            raise Refused("its params are not those of the service")

    def _require_answers(self, version: Version) -> None:
        check = subprocess.Popen(
            [sys.executable, "-m", "serving.check", str(self._state.incoming),
             str(version.number), str(os.getpid())],
            cwd=PROJECT, env=without_credentials(os.environ), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        deadline = time.monotonic() + self._settings.swap_seconds
        try:
            while check.poll() is None:
                self._pause(0.1)
                if time.monotonic() > deadline:
                    raise NotNow(
                        f"it does not answer within {self._settings.swap_seconds:.0f} s")
        finally:
            check.kill()
            why = check.communicate()[0].strip()
        if check.returncode < 0:  # for want of memory, for instance
            raise NotNow(f"its check was killed by signal {-check.returncode}")
        if check.returncode:
            raise Refused(why or f"its process ends with status {check.returncode}")

    def _exchange(self, wanted: Version) -> None:
        """Roll the workers over to the version; put the old one back if they do not come up.

        Raises Refused, NotNow, Stopped.
        """
        before = self._state.current()
        self._state.forget_failure()
        self._state.point(wanted)
        self._server.reload()
        try:
            self._verify(wanted, self._replacing)
        except (Refused, NotNow):
            self._state.point(before)
            self._server.reload()
            if before is not None and before == self._serving:
                with suppress(Refused, NotNow):
                    self._verify(before, self._replacing)
            raise
        self._state.mark_used(wanted)

    @property
    def _replacing(self) -> float:
        """Seconds that uvicorn may wait for the requests under way of the workers it replaces, one
        after the other."""
        return self._settings.workers * GRACE_SECONDS

    def _verify(self, version: Version, extra: float = 0.0) -> None:
        """Wait until every worker has loaded the version and real requests are answered by it.

        Raises Refused when a worker cannot load it, NotNow when it takes too long.
        """
        deadline = time.monotonic() + self._settings.swap_seconds + extra
        while True:
            loaded = list(self._state.worker_versions().values())
            if loaded == [version.number] * self._settings.workers and self._answered_by(version):
                return
            if self._state.failed(version):
                raise Refused("the workers cannot load it")
            if time.monotonic() > deadline:
                raise NotNow("the workers do not answer with it within "
                             f"{self._settings.swap_seconds:.0f} s")
            self._pause(0.2)

    def _answered_by(self, version: Version) -> bool:
        row = dict.fromkeys((*contract.VACANCY_TEXTS, contract.CV), "java")
        body = json.dumps({"dataframe_records": [row]})
        return all(
            self._answer(body) == version.number for _ in range(3 * self._settings.workers))

    def _answer(self, body: str) -> int | None:
        """The model_version in the answer to a request on a connection of its own."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(  # noqa: S104  # nosec B104
            self._settings.host, self._settings.host)
        connection = http.client.HTTPConnection(host, self._settings.port, timeout=20)
        try:
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            return int(answer["predictions"][0]["model_version"])
        except (OSError, http.client.HTTPException, ValueError, LookupError):
            return None
        finally:
            connection.close()

    def _report(self, next_version: Version | None = None) -> None:
        """Write the status that /health and /ready answer."""
        serving, going = self._serving, next_version
        state = WAITING if serving is None else SWAPPING if going else READY
        try:
            self._state.write_status(Status(
                state, serving.number if serving else None, going.number if going else None))
        except OSError as error:
            self._say(f"the status cannot be written ({error.strerror})")

    def _not_serving(self, version: Version, why: str) -> None:
        going_on = f"version {self._serving.number} goes on" if self._serving else "none serves"
        self._say(f"version {version.number} must not serve: {why}; {going_on}")
        self._untold.append((version, REFUSED_BECAUSE, why))
        self._tell_later()

    def _tell_serving(self, version: Version, replaced: Version | None) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._untold += [(version, SERVING_SINCE, now), (version, REFUSED_BECAUSE, None)]
        if replaced:
            self._untold.append((replaced, SERVING_SINCE, None))
        self._tell_later()

    def _tell_later(self) -> None:
        try:
            self._tell()
        except Unreachable:
            self._say("the registry cannot be reached for the outcome; it is written later")

    def _tell(self) -> None:
        """Write the outcomes that the registry has not been told yet. Raises Unreachable."""
        while self._untold:
            try:
                self._registry.tag(*self._untold[0])
            except Forbidden:
                self._say("the registry does not let this login write tags: its screen will not "
                          "show which version serves")
            self._untold.pop(0)

    def _say(self, line: str) -> None:
        """Log a line, once while it stays true."""
        if line != self._last_said:
            _log.info(line)
            self._last_said = line

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped
