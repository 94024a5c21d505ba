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
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
}

Headers = dict[str, dict[str, Any]]

_REQUEST_ID: Headers = {"X-Request-ID": {"schema": {"type": "string"}}}
_RETRY_AFTER: Headers = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
_CHALLENGE: Headers = {"WWW-Authenticate": {"schema": {"type": "string"}}}


def problems(*statuses: int) -> dict[str | int, Any]:
    """The error answers of a view, besides those that every view has."""
    return {str(status): _problem(status) for status in (*statuses, 429, 500)}


def _problem(status: int) -> dict[str, Any]:
    titles = [title for code, title in TITLES.values() if code == status]
    headers = dict(_REQUEST_ID)
    if status == 429:
        headers |= _RETRY_AFTER
    if status == 401:
        headers |= _CHALLENGE
    return {
        "description": "; or ".join(titles),
        "headers": headers,
        "content": {
            MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}}
        },
    }


def text(description: str, media_type: str) -> Response:
    """An answer that is not JSON."""
    return Response.model_validate(
        {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}
    )


def component(model: type[BaseModel]) -> dict[str, Schema]:
    """A schema for `components`, for models that flask-openapi does not meet by itself."""
    return {model.__name__: Schema.model_validate(get_model_schema(model))}
