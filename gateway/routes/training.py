"""/train: start a training, watch it, stop it."""

import math
import re
from datetime import UTC, datetime
from typing import Any

from flask import Response, g, request
from flask_openapi import APIBlueprint
from flask_openapi.models import RequestBody
from werkzeug.exceptions import MethodNotAllowed

from gateway.access import SECURITY, requires
from gateway.errors import Problem
from gateway.openapi import LOCATION, problems
from gateway.schemas import RunPath, Training, TrainingParameters, TrainingStarted
from gateway.services import audit_outcome, audited, services
from gateway.training import ERROR_TAG, tags_of

blueprint = APIBlueprint("training", __name__, abp_security=SECURITY)

_STARTED = {
    "description": "Started",
    "headers": LOCATION,
    "content": {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{TrainingStarted.__name__}"}}
    },
}
_OTHERWISE = (401, 403, 409, 502, 503, 504)
_BUSY = {409: LOCATION}


@blueprint.post(
    "/train",
    summary="Start a training",
    request_body=RequestBody.model_validate(
        {
            "required": False,
            "content": {
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{TrainingParameters.__name__}"}
                }
            },
        }
    ),
    responses={202: _STARTED, **problems(400, 413, 415, 422, *_OTHERWISE, more=_BUSY)},
)
@requires("trainer")
def start(body: TrainingParameters) -> Response:
    """Starts `mlflow run . -e train`; what is not given is as the project declares it."""
    return _start(body)


@blueprint.get(
    "/train",
    summary="Start a training with the usual parameters",
    deprecated=True,
    responses={202: _STARTED, **problems(*_OTHERWISE, more=_BUSY)},
)
@requires("trainer")
def start_as_before() -> Response:
    """As POST /train without a body, for callers of the original API."""
    if request.method == "HEAD":  # must not start anything, and the framework routes it here
        raise MethodNotAllowed(["GET", "POST", "OPTIONS"])
    return _start(TrainingParameters())


def _start(parameters: TrainingParameters) -> Response:
    parts = services()
    given = parameters.model_dump(exclude_none=True)
    try:
        with audited("training", "requested", parameters=given):
            run_id = parts.trainings.start(given, g.user.username)
    except Problem as problem:
        if problem.status == 409:
            parts.metrics.trainings.labels("refused").inc()
        raise
    parts.metrics.trainings.labels("started").inc()
    audit_outcome("training", action="started", run_id=run_id, parameters=given)
    started = TrainingStarted(run_id=run_id, status_url=f"/train/{run_id}")
    return Response(
        started.model_dump_json(), 202, {"Location": started.status_url},
        content_type="application/json",
    )  # fmt: skip


@blueprint.get(
    "/train/<run_id>",
    summary="How a training is doing",
    responses={200: Training, **problems(401, 403, 404, 409, 422, 502, 503, 504)},
)
@requires("trainer")
def look(path: RunPath) -> Response:
    """State, stage, percent; at the end the metrics, the version and its gate, or the error."""
    return _described(services().trainings.run(path.run_id))


@blueprint.delete(
    "/train/<run_id>",
    summary="Stop a training",
    responses={200: Training, **problems(401, 403, 404, 409, 422, 502, 503, 504)},
)
@requires("trainer")
def stop(path: RunPath) -> Response:
    """The run ends as KILLED; nothing is registered."""
    parts = services()
    with audited("training", "stop requested", run_id=path.run_id):
        parts.trainings.stop(path.run_id)
    audit_outcome("training", action="stopped", run_id=path.run_id)
    return _described(parts.trainings.run(path.run_id))


def _described(run: dict[str, Any]) -> Response:
    info, tags = run["info"], tags_of(run)
    percent = tags.get("jobmatch.percent", "")
    version = tags.get("jobmatch.version", "")
    metrics = {m["key"]: m["value"] for m in run.get("data", {}).get("metrics", [])}
    training = Training(
        run_id=info["run_id"],
        state=info["status"].lower(),
        stage=tags.get("jobmatch.stage"),
        percent=min(100, int(percent)) if percent.isdecimal() else None,
        started=_moment(info.get("start_time")),
        ended=_moment(info.get("end_time")),
        # MLflow writes NaN as text
        metrics={
            k: v for k, v in metrics.items() if isinstance(v, float | int) and math.isfinite(v)
        },
        version=int(version) if version.isdecimal() else None,
        gate=tags.get("jobmatch.gate"),
        error=_without_places(tags.get(ERROR_TAG)),
    )
    return Response(training.model_dump_json(exclude_none=True), content_type="application/json")


_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+?(?=:?(?:\s|$))")
_FOLDERS = re.compile(r"(?<![\w.])(?:/[^\s/:;,'\"]+)*/(?=[^\s/:;,'\"])")


def _without_places(error: str | None) -> str | None:
    """The line without addresses and without the folders that files lie in: a client needs to know
    which of the three files is at fault, not where the server keeps it."""
    return error and _FOLDERS.sub("", _ADDRESS.sub("its store", error))


def _moment(milliseconds: int | str | None) -> datetime | None:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC) if milliseconds else None
