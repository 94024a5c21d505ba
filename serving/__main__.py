"""Serve the alias `production` of the registered model `jobmatch` (entry point `serve`).

Reads   the registry; settings MODEL_* from the environment (docs/serving.md)
Writes  the state directory; tags serving_since and refused_because on the versions
"""

import logging
import os
import sys

from serving.server import LOG_FORMAT
from serving.settings import Settings, SettingsError
from serving.state import StateError
from serving.supervisor import PortTaken, Supervisor


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    logging.basicConfig(format=LOG_FORMAT, level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("serving").setLevel(logging.INFO)
    try:
        Supervisor(Settings.from_environment(os.environ)).run()
    except (SettingsError, StateError, PortTaken) as error:
        sys.exit(f"error: {error}")
    # threads of an unfinished download would hold an ordinary exit
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
