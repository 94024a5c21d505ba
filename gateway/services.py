"""What the views work with, made once for each application."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from flask import current_app, g
from flask_limiter import Limiter

from gateway.audit import Audit, AuditError
from gateway.errors import Problem
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.tokens import Tokens
from gateway.training import Trainings
from gateway.upstream import ModelServer, TrackingServer
from gateway.users import Users

EXTENSION = "jobmatch-gateway"
_log = logging.getLogger("gateway.audit")


@dataclass(frozen=True)
class Services:
    """The parts of the gateway behind its views."""

    settings: Settings
    users: Users
    tokens: Tokens
    limiter: Limiter
    model: ModelServer
    tracking: TrackingServer
    trainings: Trainings
    audit: Audit
    metrics: Metrics


def services() -> Services:
    """The parts of the application that handles this request."""
    return cast(Services, current_app.extensions[EXTENSION])


def audit_outcome(event: str, **facts: object) -> None:
    """Record what became of a request that `audit` has recorded, or refused.

    What is done is done: when the line cannot be written, that is only logged.
    """
    try:
        audit(event, **facts)
    except AuditError as error:
        _log.error("%s: %s of request %s is missing there", error, event, g.request_id)


@contextmanager
def audited(event: str, action: str, **facts: object) -> Iterator[None]:
    """Around an action: record that it was asked for, and what was in its way: a Problem (refused)
    or what nobody expected (failed).

    Raises AuditError before the action when that cannot be recorded.
    """
    audit(event, action=action, **facts)
    try:
        yield
    except Problem as problem:
        audit_outcome(event, action="refused", reason=problem.kind, **facts)
        raise
    except Exception as error:
        audit_outcome(event, action="failed", reason=type(error).__name__, **facts)
        raise


def audit(event: str, **facts: object) -> None:
    """Record what this request is about to do or to answer. Raises AuditError."""
    user = g.get("user")
    services().audit.record(
        event, user=user.username if user else None, request_id=g.request_id, **facts
    )
