"""Every error answer, in one shape: problem details (RFC 9457) with the request's id.

Whatever raises says which problem it is; the status and the title stand here once. No answer
carries an exception's text, a path, or anything that an upstream server said.
"""

import json
import logging
import math
import re
import traceback
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from flask import Flask, Response, g
from flask_limiter.errors import RateLimitExceeded
from pydantic import ValidationError
from werkzeug.exceptions import ClientDisconnected, HTTPException

from gateway.audit import AuditError
from gateway.schemas import Pairs
from gateway.users import UsersUnavailableError

_log = logging.getLogger("gateway.errors")

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:jobmatch:problem:"
MAXIMUM_LISTED = 20

TITLES = {
    "bad-request": (400, "The request cannot be read"),
    "invalid-json": (400, "The body is not valid JSON"),
    "unauthenticated": (401, "Log in first"),
    "wrong-credentials": (401, "Wrong user name or password"),
    "forbidden": (403, "Your role does not allow this"),
    "not-found": (404, "There is nothing here"),
    "method-not-allowed": (405, "This method is not allowed here"),
    "slow-body": (408, "The request took too long to arrive"),
    "training-under-way": (409, "A training is under way"),
    "conflict": (409, "This cannot be done as things are"),
    "too-large": (413, "The request is too large"),
    "address-too-long": (414, "The address is too long"),
    "unsupported-media-type": (415, "The body has to be JSON"),
    "invalid-field": (422, "A field is not valid"),
    "too-many-requests": (429, "Too many requests"),
    "headers-too-large": (431, "The headers are too large"),
    "internal": (500, "The gateway made a mistake"),
    "upstream-failed": (502, "A server behind the gateway failed"),
    "no-production-model": (503, "There is no production model yet"),
    "unavailable": (503, "The gateway cannot do this at the moment"),
    "upstream-timeout": (504, "A server behind the gateway took too long"),
}
"""Status and title by kind of problem."""

_BY_STATUS = {
    400: "bad-request", 401: "unauthenticated", 403: "forbidden", 404: "not-found",
    405: "method-not-allowed", 408: "slow-body", 409: "conflict", 413: "too-large",
    415: "unsupported-media-type", 422: "invalid-field", 429: "too-many-requests",
}  # fmt: skip


@dataclass
class Problem(Exception):
    """An error for the client. `detail` and `extra` are shown to them as they are."""

    kind: str
    detail: str
    extra: dict[str, object] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status of this kind of problem."""
        return TITLES[self.kind][0]


def answer(problem: Problem) -> Response:
    """The problem as a response."""
    headers = dict(problem.headers)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers.setdefault("WWW-Authenticate", "Bearer")
    return Response(
        render(problem, g.get("request_id", "")), problem.status, headers, content_type=MEDIA_TYPE
    )


def render(problem: Problem, request_id: str) -> str:
    """The body of the answer."""
    status, title = TITLES[problem.kind]
    body = {
        "type": TYPE_PREFIX + problem.kind,
        "title": title,
        "status": status,
        "detail": problem.detail,
        "request_id": request_id,
        **problem.extra,
    }
    return json.dumps(body, ensure_ascii=False)


def from_validation(error: ValidationError) -> Problem:
    """Which fields are wrong and why, without what was in them."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    # where a body is one of two kinds, the kind comes first, which is no field
    skipped = 1 if error.title == Pairs.__name__ else 0
    listed = [
        {"field": _field_name(e["loc"][skipped:]), "reason": _reason(e)}
        for e in found[:MAXIMUM_LISTED]
    ]
    first = listed[0]
    where = first["field"] or "the body"
    return Problem("invalid-field", f"{where}: {first['reason']}", {"errors": listed})


def register(app: Flask) -> None:
    """Make every error of `app` a problem."""
    app.register_error_handler(Problem, answer)
    app.register_error_handler(RateLimitExceeded, _too_many)
    app.register_error_handler(ClientDisconnected, lambda _: answer(
        Problem("slow-body", "the body did not arrive in time, or not completely")))
    app.register_error_handler(HTTPException, _from_werkzeug)
    app.register_error_handler(UsersUnavailableError, lambda _: answer(
        Problem("unavailable", "the users' database does not answer: try again shortly",
                headers={"Retry-After": "5"})))
    app.register_error_handler(AuditError, _audit_failed)
    app.register_error_handler(Exception, _unexpected)


def _from_werkzeug(error: HTTPException) -> Response:
    code = error.code or 500
    details = {
        400: "the request cannot be read",
        404: "there is no such address",
        405: "this address does not take this method",
        408: "the request took too long to arrive",
        413: "the body is larger than 2 MiB",
    }
    kind = _BY_STATUS.get(code, "bad-request" if code < 500 else "internal")
    headers = {
        name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")
    }
    return answer(Problem(kind, details.get(code, TITLES[kind][1].lower()), headers=headers))


def too_many(seconds: float) -> Problem:
    """What a client is told that has to wait."""
    whole = str(max(1, math.ceil(seconds)))
    return Problem("too-many-requests", f"try again in {whole} s", headers={"Retry-After": whole})


def _too_many(error: RateLimitExceeded) -> Response:
    return answer(too_many(g.get("retry_after", 60)))


def _audit_failed(error: AuditError) -> Response:
    _log.error("%s", error)
    return answer(Problem("unavailable", "the audit log cannot be written, so nothing is done",
                          headers={"Retry-After": "60"}))


def _unexpected(error: Exception) -> Response:
    return answer(unexpected(error, g.get("request_id", "-")))


def unexpected(error: BaseException, request_id: str) -> Problem:
    """Log a fault of our own, and what to say of it."""
    # an exception's text may hold what a client sent: the log gets its type and where it arose
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-6:]))
    _log.error("unexpected %s at %s (request %s)", type(error).__name__, where, request_id)
    return Problem("internal", "quote the request id when you report this")


def _field_name(location: tuple[int | str, ...]) -> str:
    """`candidates[3].cv_pt`; a name that the client made up is cut and cleaned."""
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            clean = re.sub(r"[^\w.-]", "?", part)[:40]
            name += f".{clean}" if name else clean
    return name


def _reason(error: object) -> str:
    message = error["msg"].removeprefix("Value error, ")  # type: ignore[index]
    if error["type"] == "extra_forbidden":  # type: ignore[index]
        return "there is no such field"
    return message[0].lower() + message[1:]
