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
_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class Unreachable(Exception):
    """The registry does not answer."""


class DownloadFailed(Exception):
    """A version's files cannot be had now; the message says why."""


class Registry:
    """The registered model `jobmatch` and its alias `production`."""

    def wanted(self) -> Version | None:
        """The version that the alias points to, or None. Raises Unreachable."""
        try:
            found = self._client().get_model_version_by_alias(MODEL, ALIAS)
        except MlflowException as error:
            if error.error_code in _NOT_THERE:
                return None
            raise Unreachable(type(error).__name__) from error
        except Exception as error:  # whatever a store's driver raises
            raise Unreachable(type(error).__name__) from error
        return Version(int(found.version), int(found.creation_timestamp))

    def download(self, version: Version, folder: Path) -> None:
        """Put the version's files into `folder`. Raises DownloadFailed; the rest stays there."""
        folder.mkdir()
        try:
            mlflow.artifacts.download_artifacts(
                f"models:/{MODEL}/{version.number}", dst_path=str(folder))
        except Exception as error:
            why = "the disk is full" if _disk_full(error) else "its files cannot be downloaded"
            raise DownloadFailed(why) from error
        if not (folder / "MLmodel").is_file():
            raise DownloadFailed("its files hold no model")

    def tag(self, version: Version, name: str, value: str) -> None:
        """Raises Unreachable."""
        try:
            self._client().set_model_version_tag(MODEL, str(version.number), name, value)
        except Exception as error:
            raise Unreachable(type(error).__name__) from error

    def untag(self, version: Version, name: str) -> None:
        """Raises Unreachable; a tag or version that is not there is nothing to do."""
        try:
            found = self._client().get_model_version(MODEL, str(version.number))
            if name in found.tags:
                self._client().delete_model_version_tag(MODEL, str(version.number), name)
        except MlflowException as error:
            if error.error_code not in _NOT_THERE:
                raise Unreachable(type(error).__name__) from error
        except Exception as error:
            raise Unreachable(type(error).__name__) from error

    def _client(self) -> MlflowClient:
        # made for each call: with a database as its store, making it is what fails when that is
        # away, and MLflow keeps the connections itself
        return MlflowClient()


def _disk_full(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        # MLflow tells of failed files only in its message
        if "No space left on device" in str(cause) or "Disk quota exceeded" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
