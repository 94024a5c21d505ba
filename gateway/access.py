"""Who may do what: every view says it, and one that does not say it cannot be reached."""

from collections.abc import Callable
from typing import TypeVar

from flask import Flask, current_app, g, request

from gateway.errors import Problem
from gateway.services import services
from gateway.tokens import Claims, InvalidTokenError
from gateway.users import Role, User, may

PUBLIC = "public"
SECURITY: list[dict[str, list[str]]] = [{"token": []}]
"""What OpenAPI says of a view that needs a token."""

F = TypeVar("F", bound=Callable)


def public(view: F) -> F:
    """Anyone may call the view."""
    view.access = PUBLIC  # type: ignore[attr-defined]
    return view


def requires(role: Role) -> Callable[[F], F]:
    """Users of this role, and of those above it, may call the view."""

    def mark(view: F) -> F:
        view.access = role  # type: ignore[attr-defined]
        return view

    return mark


def identify() -> None:
    """Find out whose token this is; what to say about a bad one waits for `authorise`."""
    g.user, g.refusal = None, None
    if request.routing_exception or _needed() == PUBLIC:
        return
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        g.refusal = _refusal("this needs a token: log in at /login")
        return
    try:
        claims = services().tokens.decode(token.strip())
    except InvalidTokenError as error:
        g.refusal = _refusal(str(error), invalid=True)
        return
    user = _account(claims)
    if user is None or user.disabled or user.generation != claims.generation:
        g.refusal = _refusal("the token is no longer valid: log in again", invalid=True)
    elif user.role != claims.role:
        g.refusal = _refusal("the token is not valid", invalid=True)
    else:
        g.user = user


def _account(claims: Claims) -> User | None:
    """Whose token it is; looked up anew before what is remembered speaks against the token."""
    users = services().users
    user = users.current(claims.username)
    if user and (user.generation, user.role) == (claims.generation, claims.role):
        return user
    return users.reread(claims.username)


def authorise() -> None:
    """Let the request through, or raise why not."""
    if request.routing_exception or _needed() == PUBLIC:
        return
    if g.refusal:
        raise g.refusal
    needed = _needed()
    if not may(g.user.role, needed):
        raise Problem("forbidden", f"this needs the role {needed}; yours is {g.user.role}")


def _needed() -> str:
    view = current_app.view_functions.get(request.endpoint or "")
    return getattr(view, "access", "nobody")


def _refusal(detail: str, invalid: bool = False) -> Problem:
    challenge = 'Bearer error="invalid_token"' if invalid else "Bearer"
    return Problem("unauthenticated", detail, headers={"WWW-Authenticate": challenge})


def register(app: Flask, between: Callable[[Flask], None]) -> None:
    """Check every request of `app`; `between` adds what needs the user but counts refusals too."""
    app.before_request(identify)
    between(app)
    app.before_request(authorise)
