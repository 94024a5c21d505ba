"""Start MLflow's server, the served model and the gateway (entry point `up`).

Reads   MLFLOW_TRACKING_URI or mlflow.db here; MLFLOW_PORT, MODEL_*, GATEWAY_* (docs/deployment.md)
Writes  what the services write: mlflow.db, mlruns, state
"""

import os
import sys
from pathlib import Path

from gateway.settings import SettingsError as GatewaySettingsError
from serving.settings import SettingsError as ModelSettingsError
from stack.ancestry import ancestors
from stack.launcher import Launcher, StackError
from stack.services import PortError, require_ports, services
from stack.unlisted import unlist_run


def main() -> None:
    """Run the stack until SIGTERM or Ctrl-C."""
    around = ancestors()
    unlist_run()
    try:
        wanted = services(os.environ, Path.cwd())
        require_ports(wanted)
        Launcher(wanted, around).run()
    except (GatewaySettingsError, ModelSettingsError, PortError, StackError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
