"""Configuration: read once, from the environment and `.env`, into one frozen object."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn, Self

from dotenv import dotenv_values
from limits import parse_many
from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    HttpUrl,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT = Path(__file__).resolve().parent.parent
PREFIX = "GATEWAY_"
MINIMUM_SECRET_BYTES = 32
MINIMUM_PASSWORD_LENGTH = 12

_URL = TypeAdapter(HttpUrl)


class SettingsError(Exception):
    """One line: which variable is missing or wrong, and what it has to be."""


def _without_slash(value: str) -> str:
    _URL.validate_python(value)
    return value.rstrip("/")


def _parsable_limit(value: str) -> str:
    try:
        parse_many(value)
    except ValueError as error:
        raise ValueError("must be a rate such as 5/minute") from error
    return value


def _named_values(value: object) -> object:
    """`name:value,name:value` as a dictionary; anything else is left for pydantic to judge."""
    if not isinstance(value, str):
        return value
    pairs = [part.strip().partition(":") for part in value.split(",") if part.strip()]
    if any(not name or not rest for name, _, rest in pairs):
        raise ValueError("must be kid:key pairs separated by commas")
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise ValueError("names a key twice")
    return {name: rest for name, _, rest in pairs}


Url = Annotated[str, AfterValidator(_without_slash)]
RateLimit = Annotated[str, AfterValidator(_parsable_limit)]
Keys = Annotated[dict[str, SecretStr], BeforeValidator(_named_values)]
Algorithm = Literal["HS256", "RS256", "EdDSA"]


def _field(variable: str, default: object) -> object:
    """A setting whose variable has no GATEWAY_ prefix because MLflow reads the same one."""
    return Field(default, validation_alias=AliasChoices(variable, variable.lower()))


class Settings(BaseSettings):
    """Every setting; the variable is the field's name in capitals after GATEWAY_."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        populate_by_name=True,
        allow_inf_nan=False,
    )

    bind: str = Field("127.0.0.1:5000", pattern=r"^\S+:\d{1,5}$")
    workers: int = Field(2, ge=1, le=64)
    threads: int = Field(16, ge=1, le=256)
    read_seconds: float = Field(20, gt=0, le=600)
    trusted_proxies: int = Field(0, ge=0, le=10)

    state_dir: Path = PROJECT / "state"
    database_url: SecretStr | None = None

    secrets: Literal["file", "environment"] = "file"
    jwt_algorithm: Algorithm = "HS256"
    jwt_keys: Keys = Field(default_factory=dict)
    jwt_issuer: str = Field("jobmatch-gateway", min_length=1)
    jwt_audience: str = Field("jobmatch", min_length=1)
    token_minutes: float = Field(15, gt=0, le=24 * 60)
    admin_password: SecretStr | None = None
    metrics_token: SecretStr | None = None

    model_url: Url = "http://127.0.0.1:5002"
    model_timeout_seconds: float = Field(30, gt=0, le=600)
    tracking_timeout_seconds: float = Field(10, gt=0, le=600)
    tracking_uri: Url = _field("MLFLOW_TRACKING_URI", "http://127.0.0.1:5001")  # type: ignore[assignment]
    tracking_username: str | None = _field("MLFLOW_TRACKING_USERNAME", None)  # type: ignore[assignment]
    tracking_password: SecretStr | None = _field("MLFLOW_TRACKING_PASSWORD", None)  # type: ignore[assignment]

    login_limit: RateLimit = "5/minute"
    request_limit: RateLimit = "600/minute"
    limits_url: SecretStr | None = None

    project_dir: Path = PROJECT
    train_data_dir: str | None = None
    project_backend: str = _field("MLFLOW_PROJECT_BACKEND", "local")  # type: ignore[assignment]
    project_backend_config: Path | None = _field("MLFLOW_PROJECT_BACKEND_CONFIG", None)  # type: ignore[assignment]

    @model_validator(mode="after")
    def _secrets_are_long_enough(self) -> Self:
        if self.admin_password and len(self._plain("admin_password")) < MINIMUM_PASSWORD_LENGTH:
            raise ValueError(
                f"{PREFIX}ADMIN_PASSWORD has fewer than {MINIMUM_PASSWORD_LENGTH} characters"
            )
        if self.metrics_token and len(self._plain("metrics_token")) < MINIMUM_PASSWORD_LENGTH:
            raise ValueError(
                f"{PREFIX}METRICS_TOKEN has fewer than {MINIMUM_PASSWORD_LENGTH} characters"
            )
        if self.jwt_algorithm == "HS256":
            for kid, key in self.jwt_keys.items():
                if len(key.get_secret_value().encode()) < MINIMUM_SECRET_BYTES:
                    raise ValueError(
                        f"{PREFIX}JWT_KEYS: the key {kid!r} has fewer than "
                        f"{MINIMUM_SECRET_BYTES} bytes; make one with `openssl rand -hex 32`"
                    )
        if self.secrets == "environment" and not self.jwt_keys:
            raise ValueError(
                f"{PREFIX}JWT_KEYS is not set and {PREFIX}SECRETS is 'environment': "
                "give it as kid:key, with a key from `openssl rand -hex 32`"
            )
        return self

    def _plain(self, name: str) -> str:
        return getattr(self, name).get_secret_value()

    @property
    def metrics_dir(self) -> Path:
        """Where the workers keep the figures of `/metrics`."""
        return self.state_dir / "metrics"

    @property
    def users_url(self) -> str:
        """SQLAlchemy's URL of the users' database."""
        if self.database_url:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.state_dir / 'users.db'}"


def variables() -> dict[str, str]:
    """Every variable that the gateway reads, with the name of its field."""
    named = {}
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = alias.choices[0] if isinstance(alias, AliasChoices) else PREFIX + name.upper()
        named[str(variable)] = name
    return named


def load(env_file: Path | None = None) -> Settings:
    """Settings from the environment over `env_file` (default `.env` in the working directory).

    Raises SettingsError for a value out of range, a secret that is too short, or a variable
    that starts with GATEWAY_ and is none of ours (a misspelt limit must not go unnoticed).
    """
    path = env_file or Path(".env")
    known = variables()
    seen = {name for name, value in os.environ.items() if not _from_kubernetes(name, value)}
    seen |= set(dotenv_values(path) if path.is_file() else {})
    if unknown := sorted(v for v in seen if v.startswith(PREFIX) and v not in known):
        raise SettingsError(f"{unknown[0]} is not a setting of the gateway: see .env.example")
    try:
        return Settings(_env_file=path)  # type: ignore[call-arg]
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        reason = problem["msg"].removeprefix("Value error, ")
        where = str(problem["loc"][0]) if problem["loc"] else ""
        by_field = {field: variable for variable, field in known.items()}
        name = by_field.get(where, where if where in known else where.upper())
        if name == "MLFLOW_TRACKING_URI" and name in os.environ:
            reason += ("; under `mlflow run`, which sets it to its own store, the server's address "
                       "has to be exported: .env does not count there")
        raise SettingsError(f"{name}: {reason}" if name else reason) from None


_SERVICE = re.compile(
    r"GATEWAY_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def _from_kubernetes(name: str, value: str) -> bool:
    """Whether this is what Kubernetes tells every pod of a Service that is named `gateway`."""
    return bool(_SERVICE.fullmatch(name)) and (name != "GATEWAY_PORT" or "://" in value)


def exit_with(error: Exception) -> NoReturn:
    """Leave with the error's one line, in a way that gunicorn does not retry."""
    print(f"gateway: {error}", file=sys.stderr, flush=True)
    # gunicorn restarts a worker whatever it dies of, save this status (Arbiter.APP_LOAD_ERROR)
    sys.exit(4)
