"""MLflow's own scoring server, with the /health and /ready of the project's supervisor.

What these say is read from the file `SERVED_STATE`, so that a test can put the server into any
state; while it waits, /invocations answers 503 as the supervisor does.
"""

import os
from pathlib import Path

from fastapi import Request, Response
from mlflow.pyfunc.scoring_server.app import app

_STATE = Path(os.environ["SERVED_STATE"])


@app.middleware("http")
async def _supervised(request: Request, call_next):
    state = _STATE.read_text()
    waiting = '"waiting"' in state
    if request.url.path in ("/health", "/ready"):
        status = 503 if waiting and request.url.path == "/ready" else 200
        return Response(state, status, media_type="application/json")
    if waiting:
        return Response('{"error": "no production version yet"}', 503)
    return await call_next(request)
