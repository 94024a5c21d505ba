"""Users: a name, an argon2 hash of the password, a role; in any database that SQLAlchemy speaks to.

Passwords are hashed with argon2id at the settings that OWASP gives for servers with little memory
(7 MiB, 5 passes), one at a time, so that a worker stays small however many log in.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal, TypeVar, get_args

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import DateTime, String, create_engine, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from gateway.settings import MINIMUM_PASSWORD_LENGTH

Role = Literal["recruiter", "trainer", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what the ones before it may."""

MAXIMUM_PASSWORD_LENGTH = 1024
USERNAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}"
_FRESH_SECONDS, _STALE_SECONDS = 15.0, 55.0

_log = logging.getLogger("gateway.users")
T = TypeVar("T")


class UsersError(Exception):
    """What an administrator asked for cannot be done; says why in one line."""


class UsersUnavailableError(Exception):
    """The users' database does not answer."""


class _Table(DeclarativeBase):
    pass


class User(_Table):
    """An account. `generation` grows with every change that has to end its tokens."""

    __tablename__ = "gateway_users"

    username: Mapped[str] = mapped_column(String(64), primary_key=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(16))
    disabled: Mapped[bool] = mapped_column(default=False)
    generation: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), default=lambda: datetime.now(UTC)
    )


def may(role: str, needed: str) -> bool:
    """Whether `role` includes what `needed` may do."""
    return role in ROLES and needed in ROLES and ROLES.index(role) >= ROLES.index(needed)


class Users:
    """The accounts, with a short memory so that a request does not have to ask the database."""

    def __init__(self, url: str) -> None:
        options: dict[str, object] = {"pool_pre_ping": True}
        if url.startswith("sqlite"):
            options["connect_args"] = {"timeout": 10}
        else:
            options |= {"pool_timeout": 5, "pool_recycle": 1800}
        self._engine = create_engine(url, hide_parameters=True, **options)
        self._hasher = PasswordHasher(time_cost=5, memory_cost=7168, parallelism=1)
        # one thread hashes for all: what argon2 needs is taken once, not once for each thread
        self._hashing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argon2")
        self._seen: dict[str, tuple[float, User | None]] = {}

    def close(self) -> None:
        """Let go of the database and of the hashing thread."""
        self._engine.dispose()
        self._hashing.shutdown()

    def create_tables(self) -> None:
        """Make the table where it is missing; several processes may do so at once."""
        if self._engine.dialect.name == "sqlite":
            # it stays with the file; set on every connection it would need the file to itself
            with _told_as_unavailable(), self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        try:
            self._run(lambda session: _Table.metadata.create_all(session.connection()))
        except (IntegrityError, ProgrammingError) as error:
            _log.info("another process made the users' table (%s)", type(error).__name__)

    def count(self) -> int:
        """How many accounts there are."""
        return self._run(lambda s: s.scalar(select(func.count()).select_from(User)) or 0)

    def all(self) -> list[User]:
        """Every account, by name."""
        return self._run(lambda s: list(s.scalars(select(User).order_by(User.username))))

    def exists(self, username: str) -> bool:
        """Whether there is an account of this name, disabled or not."""
        return self._find(username) is not None

    def authenticate(self, username: str, password: str) -> User | None:
        """The account when the password is right and it is not disabled, else None.

        Takes as long for a name that does not exist as for a wrong password.
        """
        user = self._find(username)
        # the cost of checking a password is paid for names that do not exist too
        wanted = user.password_hash if user else self._nobody
        try:
            self._hashing.submit(self._hasher.verify, wanted, password).result()
        except (VerificationError, InvalidHashError):
            return None
        if user is None or user.disabled:
            return None
        return user

    def current(self, username: str) -> User | None:
        """The account as it was at most 15 seconds ago; 55 while the database does not answer.

        Raises UsersUnavailableError when nothing that recent is known.
        """
        now = time.monotonic()
        when, user = self._seen.get(username, (float("-inf"), None))
        if now - when < _FRESH_SECONDS:
            return user
        try:
            return self.reread(username)
        except UsersUnavailableError:
            if now - when < _STALE_SECONDS:
                return user
            raise

    def reread(self, username: str) -> User | None:
        """The account as it is now, which is then what `current` knows.

        Raises UsersUnavailableError when the database does not answer.
        """
        now = time.monotonic()
        user = self._find(username)
        self._seen[username] = (now, user)
        return user

    def add(self, username: str, password: str, role: Role) -> None:
        """Create an account. Raises UsersError when the name is taken or the password weak."""
        _check_password(username, password)
        account = User(
            username=username.lower(), password_hash=self._hash(password), role=role
        )
        try:
            self._run(lambda s: s.add(account))
        except IntegrityError:
            raise UsersError(f"there is already a user {username}") from None

    def set_password(self, username: str, password: str) -> None:
        """Change the password; ends the user's tokens."""
        _check_password(username, password)
        digest = self._hash(password)
        self._change(username, lambda user: setattr(user, "password_hash", digest))

    def set_disabled(self, username: str, disabled: bool) -> None:
        """Lock an account or open it again; either ends the user's tokens."""
        self._change(username, lambda user: setattr(user, "disabled", disabled))

    def set_role(self, username: str, role: Role) -> None:
        """Change what the user may do; ends the user's tokens."""
        self._change(username, lambda user: setattr(user, "role", role))

    @cached_property
    def _nobody(self) -> str:
        return self._hash("nobody has this password")

    def _hash(self, password: str) -> str:
        return self._hashing.submit(self._hasher.hash, password).result()

    def _find(self, username: str) -> User | None:
        # a name that nobody can have is not looked up: a database may choke on it (NUL)
        if not re.fullmatch(USERNAME_PATTERN, username):
            return None
        return self._run(lambda s: s.get(User, username.lower()))

    def _change(self, username: str, change: Callable[[User], None]) -> None:
        def work(session: Session) -> None:
            user = session.get(User, username.lower())
            if user is None:
                raise UsersError(f"there is no user {username}")
            change(user)
            user.generation = User.generation + 1  # in the database: two may change it at once

        self._run(work)

    def _run(self, work: Callable[[Session], T]) -> T:
        with (
            _told_as_unavailable(),
            Session(self._engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            return work(session)


@contextmanager
def _told_as_unavailable() -> Iterator[None]:
    """What a database that does not answer makes SQLAlchemy raise, as UsersUnavailableError."""
    try:
        yield
    except (OperationalError, PoolTimeoutError) as error:
        raise UsersUnavailableError("the users' database does not answer") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise UsersUnavailableError("the users' database does not answer") from error
        raise


def _check_password(username: str, password: str) -> None:
    if not MINIMUM_PASSWORD_LENGTH <= len(password) <= MAXIMUM_PASSWORD_LENGTH:
        raise UsersError(f"a password has {MINIMUM_PASSWORD_LENGTH} to "
                         f"{MAXIMUM_PASSWORD_LENGTH} characters")
    if username.lower() in password.lower() or len(set(password)) < 5:
        raise UsersError("the password is too easy to guess")
