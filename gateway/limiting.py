"""How often a user and an address may ask (flask-limiter)."""

import hashlib
import ipaddress
import re
import time

import flask
import limits
from flask import g, request
from flask_limiter import Limit, Limiter, RequestLimit

from gateway import limits_store  # noqa: F401 - makes its scheme known to `limits`
from gateway.errors import Problem
from gateway.settings import Settings

# some proxies tell it too: 192.0.2.1:4444, [2001:db8::1]:443
_PORT = re.compile(r"^\[([^]]*)\](?::\d+)?$|^([\d.]+):\d+$")

REDIS_SECONDS = 1
"""How long Redis may take; it is asked twice before a worker counts by itself."""


def address() -> str:
    """Who asks, as an address; a whole /64 counts as one, since one host owns that many."""
    try:
        ip = ipaddress.ip_address(_PORT.sub(r"\1\2", request.remote_addr or ""))
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


def _caller() -> str:
    user = g.get("user")
    return f"user:{user.username}" if user else f"address:{address()}"


def build(settings: Settings) -> Limiter:
    """The limiter: every request counts for its user, or for its address without one."""
    options: dict[str, str | int] = {}
    if settings.limits_url:
        storage = settings.limits_url.get_secret_value()
        if storage.startswith(("redis", "valkey")):
            options = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
    else:
        storage = f"limits-sqlite://{settings.state_dir / 'limits.db'}"
    return Limiter(
        _caller,
        default_limits=[Limit(settings.request_limit, scope=_everywhere, shared=True)],
        storage_uri=storage,
        storage_options=options,
        on_breach=_note_wait,
        # counting on in each worker apart is better than letting everything or nothing through
        in_memory_fallback_enabled=True,
    )


def _everywhere(_: str) -> str:
    return "requests"


def count_login(limiter: Limiter, settings: Settings, username: str) -> float:
    """Count a login for its address and for the name that is tried: seconds to wait, 0 where it may
    be tried. Raises Problem where it cannot be counted.

    Not by flask-limiter's own contexts: they take `/login` out of the limit of all requests for
    good, and threads share what they count for.
    """
    name = hashlib.sha256(username.lower().encode("utf-8", "replace")).hexdigest()[:32]
    counts = limiter.limiter
    try:
        for key in (f"address:{address()}", f"name:{name}"):
            for item in limits.parse_many(settings.login_limit):
                if not counts.hit(item, "login", key):
                    reset = counts.get_window_stats(item, "login", key).reset_time
                    return max(1.0, reset - time.time())
    except counts.storage.base_exceptions as error:
        # the next request notices it too, and from there on each worker counts by itself
        raise Problem("unavailable", "logins cannot be counted: try again shortly",
                      headers={"Retry-After": "5"}) from error
    return 0.0


def _note_wait(limit: RequestLimit) -> flask.Response | None:
    g.retry_after = int(limit.reset_at - time.time()) + 1
    return None
