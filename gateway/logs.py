"""The log: one JSON line for each request, and one for whatever else has to be said."""

import json
import logging
import re
import sys
import time
import uuid
from datetime import UTC, datetime

from flask import Flask, Response, g, request

from gateway.metrics import Metrics

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = logging.getLogger("gateway.request")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, "facts", None) or {"message": record.getMessage()}
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **facts,
        }
        return json.dumps(line, ensure_ascii=False)


def configure() -> None:
    """Send what the gateway logs to standard output, as JSON lines."""
    logger = logging.getLogger("gateway")
    if logger.handlers:
        return
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Json())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def begin() -> None:
    """Give the request its id: the caller's if it is harmless, else a fresh one."""
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    g.began = time.perf_counter()


def finish(response: Response, metrics: Metrics) -> Response:
    """Log and count the request, and set the headers that every answer has."""
    seconds = time.perf_counter() - g.began
    route = request.url_rule.rule if request.url_rule else "(none)"
    # the name of a method is the caller's to choose: only known ones become labels
    method = request.method if request.method in _METHODS else "other"
    metrics.requests.labels(route, method, str(response.status_code)).inc()
    metrics.seconds.labels(route, method).observe(seconds)
    user = g.get("user")
    facts = {
        "id": g.request_id,
        "user": user.username if user else None,
        "method": method,
        "route": route,
        "status": response.status_code,
        "ms": round(1000 * seconds, 1),
        "model_version": g.get("model_version"),
    }
    if (route, response.status_code) != ("/health", 200):  # asked for every few seconds
        _log.info("request", extra={"facts": facts})
    response.headers["X-Request-ID"] = g.request_id
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault(
        "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"
    )
    return response


def unreadable(request_id: str, status: int, reason: str) -> None:
    """Log a request that did not get as far as the application."""
    facts = {
        "id": request_id, "user": None, "method": None, "route": "(none)", "status": status,
        "ms": None, "model_version": None, "reason": reason,
    }  # fmt: skip
    _log.info("request", extra={"facts": facts})


_METHODS = {"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH", "TRACE"}


def register(app: Flask, metrics: Metrics) -> None:
    """Log and count every request of `app`."""
    app.before_request(begin)
    app.after_request(lambda response: finish(response, metrics))
