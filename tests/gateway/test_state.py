"""The state directory: for nobody else to read, whatever it was like before."""

import os
from collections.abc import Callable

from gateway import create_app
from tests.gateway.conftest import bearer, parts, with_users


def test_files_in_a_directory_that_others_may_read_are_private(settle: Callable) -> None:
    settings = settle(jwt_keys={})
    settings.state_dir.mkdir(mode=0o755)
    before = os.umask(0o022)
    try:
        app = with_users(create_app(settings))
        app.test_client().post("/login", json={"username": "a", "password": "b"})
        app.test_client().post("/train", headers=bearer(app))
    finally:
        os.umask(before)
    names = {path.name for path in settings.state_dir.iterdir()}
    assert {"users.db", "limits.db", "audit.jsonl", "secrets.json"} <= names
    for path in settings.state_dir.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name


def test_database_that_others_could_read_is_closed_to_them(settle: Callable) -> None:
    settings = settle()
    create_app(settings)
    (settings.state_dir / "users.db").chmod(0o644)
    assert parts(create_app(settings)).users.count() == 1
    assert (settings.state_dir / "users.db").stat().st_mode & 0o777 == 0o600
