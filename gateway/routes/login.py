"""POST /login: a token for a name and a password."""

from flask import g
from flask_openapi import APIBlueprint

from gateway.access import public
from gateway.errors import Problem, too_many
from gateway.limiting import address, count_login
from gateway.openapi import problems
from gateway.schemas import AccessToken, Credentials
from gateway.services import audit, audit_outcome, services
from gateway.tokens import Claims
from gateway.users import UsersUnavailableError

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
    if wait := count_login(parts.limiter, parts.settings, body.username):
        parts.metrics.failed_logins.labels("limit").inc()
        audit_outcome("login", ok=False, reason="limit", name=_known(body.username),
                      address=address())
        raise too_many(wait)
    user = parts.users.authenticate(body.username, body.password)
    if user is None:
        parts.metrics.failed_logins.labels("credentials").inc()
        audit("login", ok=False, reason="credentials", name=_known(body.username),
              address=address())
        raise Problem("wrong-credentials", "check the user name and the password")
    g.user = user
    audit("login", ok=True, address=address())
    token = parts.tokens.encode(Claims(user.username, user.role, user.generation))
    return AccessToken(access_token=token, expires_in=parts.tokens.lifetime).model_dump()


def _known(username: str) -> str | None:
    """The name when it exists: what was typed as one may be a password, which no log may hold."""
    try:
        return username.lower() if services().users.exists(username) else None
    except UsersUnavailableError:
        return None
