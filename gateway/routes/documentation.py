"""/openapi.json and /docs: the API's description, and a page to read and try it, both local."""

from importlib.resources import files
from typing import cast

from flask import (
    Blueprint,
    Response,
    current_app,
    jsonify,
    render_template,
    send_from_directory,
)
from flask_openapi import OpenAPI

from gateway.access import public

_SWAGGER_UI = str(files("flask_openapi_swagger") / "templates" / "swagger")
_OURS = str(files("gateway") / "static")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)

documentation = Blueprint("documentation", __name__)


@documentation.get("/openapi.json")
@public
def description() -> Response:
    """OpenAPI 3.1, written from the schemas that validate."""
    return jsonify(cast(OpenAPI, current_app).api_doc)


@documentation.get("/docs")
@public
def page() -> Response:
    """Swagger UI, from the installed package."""
    response = Response(render_template("docs.html"), content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@documentation.get("/docs/assets/<path:name>")
@public
def asset(name: str) -> Response:
    """Scripts and styles of the page."""
    response = send_from_directory(_OURS if name == "docs.js" else _SWAGGER_UI, name)
    response.headers["Cache-Control"] = "public, max-age=3600"
    return response
