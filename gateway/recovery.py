"""What became of trainings while nobody was there to see it."""

import logging
import time

from flask import Flask

from gateway.errors import Problem
from gateway.services import EXTENSION
from gateway.upstream import MissingError

LOOK_SECONDS = 5.0

_log = logging.getLogger("gateway.recovery")


def reconcile_until_done(app: Flask) -> None:
    """Reconcile the trainings, waiting for the tracking server if it has to, and again at the end
    of one that is under way."""
    _reconcile(app)
    await_end(app)


def _reconcile(app: Flask) -> None:
    wait = 1.0
    while True:
        try:
            app.extensions[EXTENSION].trainings.reconcile()
        except (Problem, MissingError) as error:  # a run may be deleted meanwhile
            _log.warning("trainings not checked yet: %s", getattr(error, "detail", error))
            time.sleep(wait)
            wait = min(60.0, 2 * wait)
        else:
            return


def await_end(app: Flask) -> None:
    """Where a training is under way, wait for its end and reconcile; until none is."""
    trainings = app.extensions[EXTENSION].trainings
    while trainings.is_busy():
        while trainings.is_busy():
            time.sleep(LOOK_SECONDS)
        _reconcile(app)
