"""uvicorn with the application's workers, on a socket that the supervisor holds.

    python -m serving.server DESCRIPTOR WORKERS HEALTHCHECK_SECONDS PARENT

On SIGHUP the workers are replaced one by one, each new one in service before the old one goes.
The socket outlives this process: connections wait while a new one starts.
"""

import copy
import signal
import socket
import sys

import uvicorn
from uvicorn.config import LOGGING_CONFIG, STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from serving import workers
from serving.app import SECONDS_TO_ANSWER, SECONDS_TO_SEND
from serving.lifeline import end_with_parent
from serving.protocol import PatientProtocol

KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = SECONDS_TO_SEND + SECONDS_TO_ANSWER + 5
"""How long requests under way may take when a worker is replaced: as long as any may take. On
SIGTERM the supervisor does not wait for that."""
LOG_FORMAT = "%(asctime)s %(message)s"


def main() -> int:
    """Serve until SIGTERM; STARTUP_FAILURE when a worker cannot load its model."""
    descriptor, count, healthcheck, parent = (int(argument) for argument in sys.argv[1:5])
    end_with_parent(parent, signal.SIGKILL)
    logging_config = copy.deepcopy(LOGGING_CONFIG)
    logging_config["formatters"]["default"] = {"format": LOG_FORMAT}
    logging_config["loggers"]["serving"] = {"handlers": ["default"], "level": "INFO"}
    config = uvicorn.Config(
        "serving.app:create_app", factory=True, workers=count, lifespan="on",
        log_config=logging_config, log_level="error", access_log=False, server_header=False,
        proxy_headers=False, ws="none", http=PatientProtocol, timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS, timeout_worker_healthcheck=healthcheck,
    )
    workers.install()
    server = Multiprocess(config, sockets=[socket.socket(fileno=descriptor)])
    server.run()
    failed = any(process.exitcode == STARTUP_FAILURE for process in server.processes)
    return STARTUP_FAILURE if failed else 0


if __name__ == "__main__":
    sys.exit(main())
