"""The gateway: the only door for clients. Logs them in, starts trainings, forwards scoring."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from gateway.settings import Settings


def create_app(settings: "Settings | None" = None) -> "Flask":
    """The WSGI application; settings come from the environment and `.env` unless given.

    Where a setting is missing or wrong, raises gateway.settings.SettingsError for those given, and
    ends the process with a line for others.
    """
    # imported late: gunicorn's configuration reads gateway.settings before prometheus_client
    # may be imported
    if settings is None:
        from gateway.starting import application

        return application()
    from gateway.app import build

    return build(settings)
