"""`flask --app gateway users` and `keys`, as an administrator types them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from gateway import create_app
from tests.gateway import servers

Run = Callable[..., Result]


@pytest.fixture
def flask(settle: Callable) -> Run:
    """`flask --app gateway ...`, in this process."""

    def run(*arguments: str, typed: str | None = None) -> Result:
        runner = create_app(settle(jwt_keys={})).test_cli_runner()
        return runner.invoke(args=list(arguments), input=typed)

    return run


def test_life_of_a_user(flask: Run) -> None:
    added = flask("users", "add", "Ana", "--role", "trainer", "--password", "-",
                  typed="a long password\n")  # fmt: skip
    assert (added.exit_code, added.stdout) == (0, "ana can log in as trainer\n"), added.stderr
    assert flask("users", "list").stdout == "admin\tadmin\tenabled\nana\ttrainer\tenabled\n"
    again = flask("users", "add", "ana", "--password", "another long one")
    assert again.exit_code != 0
    assert again.stderr == "Error: there is already a user ana\n"
    assert flask("users", "passwd", "ana", "--password", "another long one").exit_code == 0
    assert flask("users", "role", "ana", "recruiter").exit_code == 0
    assert flask("users", "disable", "ana").exit_code == 0
    assert "ana\trecruiter\tdisabled" in flask("users", "list").stdout
    assert flask("users", "enable", "ana").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("add", "ana", "--password", "short"), "12 to 1024 characters"),
        (("add", "ana", "--password", "ana-ana-ana-ana"), "too easy"),
        (("add", "a b", "--password", "a long password"), "letters, digits"),
        (("add", "ana", "--role", "root", "--password", "a long password"), "root"),
        (("disable", "nobody"), "there is no user nobody"),
        (("passwd", "nobody", "--password", "a long password"), "there is no user nobody"),
    ],
)
def test_wrong_command_says_why(flask: Run, arguments: tuple[str, ...], reason: str) -> None:
    ended = flask("users", *arguments)
    assert ended.exit_code != 0
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr


def test_keys_rotate_and_the_one_that_signs_cannot_be_dropped(flask: Run) -> None:
    (first,) = flask("keys", "list").stdout.split()
    assert flask("keys", "rotate").exit_code == 0
    second, old = flask("keys", "list").stdout.split()
    assert old == first
    refused = flask("keys", "drop", second)
    assert refused.exit_code != 0
    assert "signs" in refused.stderr
    assert flask("keys", "drop", old).exit_code == 0
    assert flask("keys", "list").stdout.split() == [second]


def test_database_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    env = servers.environment(
        GATEWAY_STATE_DIR=str(tmp_path / "state"),
        GATEWAY_DATABASE_URL=f"sqlite:///{tmp_path}/nowhere/users.db",
    )
    ended = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "gateway", "users", "list"],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert ended.returncode != 0
    assert "GATEWAY_DATABASE_URL" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_commands_as_they_are_typed(tmp_path: Path) -> None:
    env = servers.environment(GATEWAY_STATE_DIR=str(tmp_path / "state"))
    command = [sys.executable, "-m", "flask", "--app", "gateway", "users", "list"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30
    )
    assert ended.stdout == "admin\tadmin\tenabled\n"
    assert "shown this once" in ended.stderr
