"""/health, /ready and /metrics: for those who watch the gateway."""

import hmac

from flask import Response, request
from flask_openapi import APIBlueprint

from gateway.access import public
from gateway.errors import Problem
from gateway.openapi import problems, text
from gateway.schemas import Alive, Ready
from gateway.services import services
from gateway.upstream import no_model

blueprint = APIBlueprint("health", __name__)

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


@blueprint.get("/health", summary="Alive", responses={200: Alive, **problems(limited=False)})
@public
def health() -> Response:
    """Answers while the gateway lives, whatever becomes of the servers behind it."""
    return Response(Alive().model_dump_json(), content_type="application/json")


@blueprint.get(
    "/ready", summary="Able to predict", responses={200: Ready, **problems(502, 503, 504)}
)
@public
def ready() -> Response:
    """The version being served; 503 while there is none."""
    served = services().model.state()
    if served.state == "waiting" or served.model_version is None:
        raise no_model()
    answer = Ready.model_validate(served, from_attributes=True)
    return Response(answer.model_dump_json(exclude_none=True), content_type="application/json")


@blueprint.get(
    "/metrics",
    summary="Figures for Prometheus",
    responses={200: text("Prometheus' text format", EXPOSITION), **problems(401)},
)
@public
def metrics() -> Response:
    """Of all workers; with GATEWAY_METRICS_TOKEN set, only for who sends it as a bearer."""
    token = services().settings.metrics_token
    if token:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), token.get_secret_value().encode()):
            raise Problem("unauthenticated", "this needs the metrics token")
    return Response(services().metrics.exposition(), content_type=EXPOSITION)
