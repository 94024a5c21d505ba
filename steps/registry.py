"""The model registry as jobmatch uses it: one registered model, two aliases, no version in a name.

`staging` is the newest version; `production` is what serves. Whatever has to be known of a
version later (its gate verdict, who promoted it and when, what it replaced) is a tag on it.
"""

import getpass
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from pydantic import Field

from steps.failure import StepError
from steps.parameters import command

MODEL = "jobmatch"
STAGING, PRODUCTION = "staging", "production"
Wanted = Annotated[str, Field(pattern=rf"^([1-9]\d{{0,8}}|{STAGING}|{PRODUCTION})$")]
"""A version's number, or the alias that points to it."""
_NEVER = datetime.min.replace(tzinfo=UTC)


def version_at(client: MlflowClient, alias: str) -> ModelVersion | None:
    """The version that an alias points to, or None."""
    return _unless_missing(client.get_model_version_by_alias, alias)


def find_version(client: MlflowClient, version: str) -> ModelVersion | None:
    """The version with this number, or None."""
    return _unless_missing(client.get_model_version, version)


def _unless_missing(get: Callable[[str, str], ModelVersion], which: str) -> ModelVersion | None:
    try:
        return get(MODEL, which)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def resolve(client: MlflowClient, wanted: str) -> str:
    """The number of a version given by number or alias. Raises StepError where there is none."""
    found = (version_at(client, wanted) if wanted in (STAGING, PRODUCTION)
             else find_version(client, wanted))
    if found is None:
        raise StepError(f"{MODEL} has no version {wanted}; train one first: {command('train')}")
    return str(found.version)


def last_recorded(client: MlflowClient) -> list[ModelVersion]:
    """The version whose promotion was recorded last: none where nothing is on record, more than
    one where the records are of the same moment.

    Where `production` is at another version, somebody moved it on the registry's screen, which
    leaves no record.
    """
    versions = [v for v in client.search_model_versions(f"name='{MODEL}'")
                if _promoted_at(v) > _NEVER]
    last = max(map(_promoted_at, versions), default=_NEVER)
    return [version for version in versions if _promoted_at(version) == last]


def _promoted_at(version: ModelVersion) -> datetime:
    try:
        moment = datetime.fromisoformat(version.tags.get("promoted_at", ""))
    except ValueError:  # somebody edited the tag
        return _NEVER
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def set_production(
    client: MlflowClient, version: str, replaced: str | None, *, by: str, forced: bool = False,
    undo: bool = False,
) -> None:
    """Move `production` to `version` and record who did it, when, what it replaced, whether its
    gate had failed and whether it undid a promotion.

    The tags are written first: an alias without its record must not exist. The moment, by which
    the last record is known, comes last of them.
    """
    record = {
        "promoted_by": by,
        "replaced_version": replaced or "none",
        "forced": str(forced).lower(),
        "undo": str(undo).lower(),
        "promoted_at": datetime.now(UTC).isoformat(timespec="microseconds"),
    }
    for key, value in record.items():
        client.set_model_version_tag(MODEL, version, key, value)
    client.set_registered_model_alias(MODEL, PRODUCTION, version)


def current_user() -> str:
    """Who runs this process, as recorded on what they promote."""
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user id that has no name
        return f"uid {os.getuid()}"
