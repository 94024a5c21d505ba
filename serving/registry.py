"""What the supervisor reads from MLflow's registry and writes to it."""

import os
from pathlib import Path

# MLflow reads these at import. An unreachable registry must not hold a poll for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from serving.state import Version

MODEL, ALIAS = "jobmatch", "production"
SERVING_SINCE, REFUSED_BECAUSE = "serving_since", "refused_because"
_FORBIDDEN = ("PERMISSION_DENIED", "UNAUTHENTICATED")
_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class Unreachable(Exception):
    """The registry does not answer, or not to this login: the message says which."""


class Forbidden(Exception):
    """The registry does not let this login do that."""


class NotNow(Exception):
    """What was wanted of a version cannot be had now, but may be later; the message says why."""


class Registry:
    """The registered model `jobmatch` and its alias `production`."""

    def wanted(self) -> Version | None:
        """The version that the alias points to, or None. Raises Unreachable."""
        try:
            found = self._client().get_model_version_by_alias(MODEL, ALIAS)
        except MlflowException as error:
            if error.error_code in _NOT_THERE:
                return None
            if error.error_code in _FORBIDDEN:
                raise Unreachable("the registry refuses the login: see MLFLOW_TRACKING_USERNAME, "
                                  "its password and what it may read") from error
            raise _unreachable(error) from error
        except Exception as error:  # whatever a store's driver raises
            raise _unreachable(error) from error
        return Version(int(found.version), int(found.creation_timestamp))

    def download(self, version: Version, folder: Path) -> None:
        """Put the version's files into `folder`. Raises NotNow; the rest stays there."""
        folder.mkdir()
        try:
            mlflow.artifacts.download_artifacts(
                f"models:/{MODEL}/{version.number}", dst_path=str(folder))
        except Exception as error:
            why = "the disk is full" if _disk_full(error) else "its files cannot be downloaded"
            raise NotNow(why) from error
        if not (folder / "MLmodel").is_file():
            raise NotNow("its files hold no model")

    def tag(self, version: Version, name: str, value: str | None) -> None:
        """Set a tag of the version, or with None take it away; where there is no such version,
        nothing is to be done. Raises Unreachable, Forbidden."""
        number = str(version.number)
        try:
            client = self._client()
            if value is not None:
                client.set_model_version_tag(MODEL, number, name, value)
            elif name in client.get_model_version(MODEL, number).tags:
                client.delete_model_version_tag(MODEL, number, name)
        except MlflowException as error:
            if error.error_code in _NOT_THERE:
                return
            if error.error_code in _FORBIDDEN:
                raise Forbidden from error
            raise _unreachable(error) from error
        except Exception as error:
            raise _unreachable(error) from error

    def _client(self) -> MlflowClient:
        # made for each call: with a database as its store, making it is what fails when that is
        # away, and MLflow keeps the connections itself
        return MlflowClient()


def _unreachable(error: Exception) -> Unreachable:
    return Unreachable(f"the registry cannot be reached ({type(error).__name__})")


def _disk_full(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        # MLflow tells of failed files only in its message
        if "No space left on device" in str(cause) or "Disk quota exceeded" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
