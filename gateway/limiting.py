"""How often a user and an address may ask (flask-limiter)."""

import hashlib
import ipaddress
import time
from functools import partial

import flask
from flask import g, request
from flask_limiter import Limit, Limiter, RequestLimit

from gateway import limits_store  # noqa: F401 - makes its scheme known to `limits`
from gateway.settings import Settings


def address() -> str:
    """Who asks, as an address; a whole /64 counts as one, since one host owns that many."""
    try:
        ip = ipaddress.ip_address(request.remote_addr or "")
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
    if settings.limits_url:
        storage = settings.limits_url.get_secret_value()
    else:
        storage = f"limits-sqlite://{settings.state_dir / 'limits.db'}"
    return Limiter(
        _caller,
        default_limits=[Limit(settings.request_limit, scope=_everywhere, shared=True)],
        storage_uri=storage,
        on_breach=_note_wait,
        # counting on in each worker apart is better than letting everything or nothing through
        in_memory_fallback_enabled=True,
    )


def _everywhere(_: str) -> str:
    return "requests"


def login_limits(limiter: Limiter, settings: Settings, username: str) -> list:
    """Contexts that count a login for its address and for the name that is tried."""
    name = hashlib.sha256(username.lower().encode("utf-8", "replace")).hexdigest()[:32]
    return [
        limiter.shared_limit(settings.login_limit, scope="login", key_func=partial(str, key))
        for key in (f"address:{address()}", f"name:{name}")
    ]


def _note_wait(limit: RequestLimit) -> flask.Response | None:
    g.retry_after = int(limit.reset_at - time.time()) + 1
    return None
