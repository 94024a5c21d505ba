"""After a start: end the runs of trainings that died while nobody was there to see it."""

import logging
import time

from flask import Flask

from gateway.errors import Problem
from gateway.services import EXTENSION
from gateway.upstream import MissingError

_log = logging.getLogger("gateway.recovery")


def reconcile_until_done(app: Flask) -> None:
    """Reconcile the trainings once, waiting for the tracking server if it has to."""
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
