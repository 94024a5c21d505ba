"""How the API describes itself: the pieces that flask-openapi does not write by itself."""

from typing import Any

from flask_openapi.models import Info, Response, Schema
from flask_openapi.utils import get_model_schema
from pydantic import BaseModel

from gateway.errors import MEDIA_TYPE, TITLES
from gateway.schemas import ProblemDetails

VERSION = "3.1.0"
INFO = Info(
    title="jobmatch gateway",
    version="1.0.0",
    description="Log in, train, score candidates for vacancies, rank them, promote versions.",
)
SECURITY_SCHEMES: dict[str, Any] = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "metrics": {"type": "http", "scheme": "bearer", "description": "GATEWAY_METRICS_TOKEN"},
}

Headers = dict[str, dict[str, Any]]

REQUEST_ID: Headers = {"X-Request-ID": {"required": True, "schema": {"type": "string"}}}
LOCATION: Headers = {"Location": {"schema": {"type": "string"}}}
_RETRY_AFTER: Headers = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
_CHALLENGE: Headers = {"WWW-Authenticate": {"schema": {"type": "string"}}}
_HEADERS = {401: _CHALLENGE, 429: _RETRY_AFTER, 503: _RETRY_AFTER}


def problems(
    *statuses: int, limited: bool = True, more: dict[int, Headers] | None = None
) -> dict[str | int, Any]:
    """The error answers of a view, besides those that every view has.

    `more` are headers of some of them.
    """
    every = [*statuses, 500]
    if limited:
        every.append(429)
    if 413 in statuses:  # it has a body, which may come too slowly
        every.append(408)
    return {
        str(status): _problem(status, (more or {}).get(status, {})) for status in sorted(every)
    }


def _problem(status: int, more: Headers) -> dict[str, Any]:
    titles = [title for code, title in TITLES.values() if code == status]
    return {
        "description": "; or ".join(titles),
        "headers": _HEADERS.get(status, {}) | more,
        "content": {
            MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}}
        },
    }


def complete(description: dict[str, Any], *, metrics_token: bool) -> None:
    """Add what is the same for every answer, and what depends on the settings."""
    for path, operations in description["paths"].items():
        for operation in operations.values():
            for response in operation["responses"].values():
                response["headers"] = response.get("headers", {}) | REQUEST_ID
            if path == "/metrics" and metrics_token:
                operation["security"] = [{"metrics": []}]


def text(description: str, media_type: str) -> Response:
    """An answer that is not JSON."""
    return Response.model_validate(
        {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}
    )


def component(model: type[BaseModel]) -> dict[str, Schema]:
    """A schema for `components`, for models that flask-openapi does not meet by itself."""
    return {model.__name__: Schema.model_validate(get_model_schema(model))}
