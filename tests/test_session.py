"""What a step says of its errors: one line, and no password in it."""

import subprocess
import sys

import pytest
import requests
from mlflow.exceptions import MlflowException

from steps.session import one_line
from tests.conftest import PROJECT, Store


def test_the_login_in_the_servers_address_is_not_told(store: Store) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "steps.promote", "--version", "1"], cwd=PROJECT,
        env=store.environment() | {"MLFLOW_TRACKING_URI": "http://bob:s3cret@127.0.0.1:9",
                                   "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
        capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: MLflow at http://…@127.0.0.1:9: ")
    assert "s3cret" not in done.stderr + done.stdout


@pytest.mark.parametrize(("error", "told"), [
    (MlflowException("these failures occurred:\n  disk full\nmore"), "occurred: disk full"),
    (OSError("745360 requested and 58352 written"), "58352 written); is there room in /"),
    (requests.ConnectionError("nobody answers"), "nobody answers"),
    (OSError(28, "No space left on device", "/x"), "[Errno 28] No space left on device: '/x'"),
    (ValueError("a text of a CV"), "unexpected ValueError; the step's output tells where"),
])
def test_one_line_says_what_went_wrong(error: Exception, told: str) -> None:
    said = one_line(error)
    assert told in said
    assert "\n" not in said
    assert "a text" not in said
    assert ("room" in said) == ("58352" in said)
