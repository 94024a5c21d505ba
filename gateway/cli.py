"""`flask --app gateway users|keys ...`, and what a first start does."""

import re
import secrets
import sys
from collections.abc import Callable
from contextlib import closing
from functools import wraps
from typing import Any

import click
from flask import Flask, current_app
from flask.cli import AppGroup
from sqlalchemy.exc import DatabaseError

from gateway import keys as key_store
from gateway.services import EXTENSION, Services
from gateway.settings import PREFIX, Settings, SettingsError
from gateway.state import exclusive
from gateway.users import ROLES, USERNAME_PATTERN, Users, UsersError, UsersUnavailableError

users = AppGroup("users", help="Who may log in.")
keys = AppGroup("keys", help="The keys that sign tokens, when the gateway keeps them itself.")

FIRST_USER = "admin"


def first_start(settings: Settings) -> None:
    """Make the users' table, and the first administrator when there is nobody yet.

    The password comes from GATEWAY_ADMIN_PASSWORD or is made and shown once.

    Raises SettingsError when it has to come from the environment and does not.
    """
    given = settings.admin_password
    with exclusive(settings.state_dir / "first-start.lock"), closing(
        Users(settings.users_url)
    ) as accounts:
        try:
            accounts.create_tables()
            if accounts.count():
                return
        except UsersUnavailableError as error:
            raise SettingsError(f"{PREFIX}DATABASE_URL: {error}") from error
        except DatabaseError as error:  # a file that is damaged, or none of a database
            raise SettingsError(
                f"{PREFIX}DATABASE_URL: the users' database cannot be read ({error.orig}); put "
                "back a copy of it") from error
        if given is None and settings.secrets == "environment":
            raise SettingsError(
                f"{PREFIX}ADMIN_PASSWORD is not set, {PREFIX}SECRETS is 'environment' and there is "
                "no user yet: set it to the first administrator's password"
            )
        password = given.get_secret_value() if given else secrets.token_urlsafe(18)
        try:
            accounts.add(FIRST_USER, password, "admin")
        except UsersError as error:
            if accounts.count():  # another machine on the same database was first
                return
            raise SettingsError(f"{PREFIX}ADMIN_PASSWORD: {error}") from error
    if given is None:
        print(
            f"\nThe first administrator is {FIRST_USER!r} with the password {password}\n"
            "It is shown this once; change it with "
            f"`flask --app gateway users passwd {FIRST_USER}`.\n",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def _services() -> Services:
    return current_app.extensions[EXTENSION]


def _plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (UsersError, UsersUnavailableError, SettingsError) as error:
            raise click.ClickException(str(error)) from error

    return wrapped


def _username(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not re.fullmatch(USERNAME_PATTERN, value):
        raise click.BadParameter("letters, digits and . _ @ + - , at most 64")
    return value.lower()


_name = click.argument("username", callback=_username)
_password = click.password_option(
    help="Asked for when not given; give - to read it from standard input."
)


def _typed(password: str) -> str:
    from_stdin = password == "-"  # noqa: S105  # nosec B105
    return sys.stdin.readline().rstrip("\n") if from_stdin else password


@users.command()
@_name
@click.option("--role", type=click.Choice(ROLES), default="recruiter", show_default=True)
@_password
@_plain_errors
def add(username: str, role: Any, password: str) -> None:
    """Create an account."""
    _services().users.add(username, _typed(password), role)
    click.echo(f"{username} can log in as {role}")


@users.command()
@_name
@_password
@_plain_errors
def passwd(username: str, password: str) -> None:
    """Change a password; the user has to log in again."""
    _services().users.set_password(username, _typed(password))
    click.echo(f"the password of {username} is changed")


@users.command()
@_name
@_plain_errors
def disable(username: str) -> None:
    """Lock an account; its tokens stop working within a minute."""
    _services().users.set_disabled(username, True)
    click.echo(f"{username} is disabled")


@users.command()
@_name
@_plain_errors
def enable(username: str) -> None:
    """Open a locked account again."""
    _services().users.set_disabled(username, False)
    click.echo(f"{username} is enabled")


@users.command()
@_name
@click.argument("new_role", type=click.Choice(ROLES))
@_plain_errors
def role(username: str, new_role: Any) -> None:
    """Change what a user may do; the user has to log in again."""
    _services().users.set_role(username, new_role)
    click.echo(f"{username} is {new_role}")


@users.command("list")
@_plain_errors
def list_() -> None:
    """Show every account."""
    for user in _services().users.all():
        click.echo(f"{user.username}\t{user.role}\t{'disabled' if user.disabled else 'enabled'}")


@keys.command()
@_plain_errors
def rotate() -> None:
    """Sign with a new key from the next start or reload on; the old ones go on verifying."""
    click.echo(f"new tokens will be signed with {key_store.rotate(_services().settings)}; "
               "send the gateway SIGHUP to begin")


@keys.command("list")
@_plain_errors
def list_keys() -> None:
    """Show the names of the keys; the first one signs."""
    for key in key_store.load(_services().settings):
        click.echo(key.kid)


@keys.command()
@click.argument("kid")
@_plain_errors
def drop(kid: str) -> None:
    """Forget an old key; the tokens it signed stop working at the next start or reload."""
    key_store.drop(_services().settings, kid)
    click.echo(f"{kid} is forgotten; send the gateway SIGHUP to begin")


def register(app: Flask) -> None:
    """Add the commands to the application."""
    app.cli.add_command(users)
    app.cli.add_command(keys)
