"""What gunicorn's master has read and prepared, and its workers inherit: they then start whatever
has become of the settings' file and of the users' database since."""

import os
import sys

from gateway.settings import Settings, SettingsError, exit_with, load

_settings: Settings | None = None


def start_or_reload() -> Settings:
    """The settings, read anew, with everything prepared that a start needs.

    A fault ends the process at its start. At a reload it is told, and what was there before stays.
    """
    global _settings
    try:
        fresh = load()
        # prometheus_client looks for this variable when it is imported
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(fresh.state_dir / "metrics")
        from gateway.app import prepare

        prepare(fresh)
    except SettingsError as error:
        if _settings is None:
            exit_with(error)
        print(f"gateway: {error}; nothing is reloaded", file=sys.stderr, flush=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_settings.state_dir / "metrics")
    else:
        _settings = fresh
    return _settings


def inherited() -> Settings | None:
    """The settings of the master that started this process, where one did."""
    return _settings
