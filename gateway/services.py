"""What the views work with, made once for each application."""

from dataclasses import dataclass
from typing import cast

from flask import current_app, g
from flask_limiter import Limiter

from gateway.audit import Audit
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.tokens import Tokens
from gateway.training import Trainings
from gateway.upstream import ModelServer, TrackingServer
from gateway.users import Users

EXTENSION = "jobmatch-gateway"


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


def audit(event: str, **facts: object) -> None:
    """Record what this request did. Raises AuditError."""
    user = g.get("user")
    services().audit.record(
        event, user=user.username if user else None, request_id=g.request_id, **facts
    )
