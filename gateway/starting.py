"""What gunicorn's master has read and prepared, and its workers inherit: they then start whatever
has become of the settings' file and of the users' database since.

The application is imported late, as prometheus_client may not be before the master's settings say
where its figures go.
"""

import os
import sys
from typing import TYPE_CHECKING

from gunicorn.util import parse_address

from gateway.listening import listen
from gateway.settings import Settings, SettingsError, exit_with, load

if TYPE_CHECKING:
    from flask import Flask

    from gateway.keys import Key

_settings: Settings | None = None
_keys: "tuple[Key, ...]" = ()


def start_or_reload() -> Settings:
    """The settings, read anew, with everything prepared that a start needs.

    A fault ends the process at its start. At a reload it is told, and what was there before stays.
    """
    global _settings, _keys
    try:
        fresh = load()
        if _settings and fresh.bind != _settings.bind:
            _require_free(fresh.bind)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(fresh.metrics_dir)
        from gateway.app import prepare

        keys = prepare(fresh)
        fresh.metrics_dir.mkdir(mode=0o700, exist_ok=True)
    except SettingsError as error:
        if _settings is None:
            exit_with(error)
        print(f"gateway: {error}; nothing is reloaded", file=sys.stderr, flush=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_settings.metrics_dir)
    else:
        _settings, _keys = fresh, keys
    return _settings


def _require_free(bind: str) -> None:
    """Raise SettingsError where gunicorn could not listen at `bind`: it lets go of its address
    before it takes another, and ends where it cannot."""
    address = parse_address(bind)
    if not isinstance(address, tuple):  # a socket's file
        return
    try:
        listen(*address).close()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"GATEWAY_BIND: cannot listen at {bind} ({reason})") from error


def application() -> "Flask":
    """The application, with the settings that the master of this process has prepared. Where there
    is none they are read, and a fault in them ends the process."""
    from gateway.app import assemble, build

    if _settings:
        return assemble(_settings, _keys)
    try:
        return build(load())
    except SettingsError as error:
        exit_with(error)
