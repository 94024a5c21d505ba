"""After a start: end the runs of trainings that died while nobody was there to see it."""

import logging
import time

from flask import Flask

from gateway.errors import Problem
from gateway.services import EXTENSION

_log = logging.getLogger("gateway.recovery")


def reconcile_until_done(app: Flask) -> None:
    """Reconcile the trainings once, waiting for the tracking server if it has to."""
    wait = 1.0
    while True:
        try:
            app.extensions[EXTENSION].trainings.reconcile()
        except Problem as problem:
            _log.warning("trainings not checked yet: %s", problem.detail)
            time.sleep(wait)
            wait = min(60.0, 2 * wait)
        else:
            return
