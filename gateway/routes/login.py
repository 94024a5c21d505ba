"""POST /login: a token for a name and a password."""

from contextlib import ExitStack

from flask import g
from flask_limiter.errors import RateLimitExceeded
from flask_openapi import APIBlueprint

from gateway.access import public
from gateway.errors import Problem
from gateway.limiting import address, login_limits
from gateway.openapi import problems
from gateway.schemas import AccessToken, Credentials
from gateway.services import audit, services
from gateway.tokens import Claims

blueprint = APIBlueprint("login", __name__)


@blueprint.post(
    "/login",
    summary="Log in",
    responses={200: AccessToken, **problems(400, 401, 413, 415, 422, 503)},
)
@public
def login(body: Credentials) -> dict[str, object]:
    """A token that is valid for a quarter of an hour, to send as `Authorization: Bearer`."""
    parts = services()
    try:
        with ExitStack() as stack:
            for limit in login_limits(parts.limiter, parts.settings, body.username):
                stack.enter_context(limit)
    except RateLimitExceeded:
        parts.metrics.failed_logins.labels("limit").inc()
        raise
    user = parts.users.authenticate(body.username, body.password)
    if user is None:
        parts.metrics.failed_logins.labels("credentials").inc()
        # what was typed as a name may be a password: only names that exist are recorded
        known = parts.users.exists(body.username)
        audit("login", ok=False, name=body.username.lower() if known else None, address=address())
        raise Problem("wrong-credentials", "check the user name and the password")
    g.user = user
    audit("login", ok=True, address=address())
    token = parts.tokens.encode(Claims(user.username, user.role, user.generation))
    return AccessToken(access_token=token, expires_in=parts.tokens.lifetime).model_dump()
