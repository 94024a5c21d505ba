"""Runs whose process is gone are ended, those of other hosts never."""

import socket

import pytest

from steps.processes import PROCESS, end_abandoned
from tests.conftest import Store

GONE = 2**22 + 1  # above the highest process number that Linux gives


@pytest.mark.parametrize(("own", "host", "status"), [
    ("gpu_1", "gpu-1", "RUNNING"), ("gpu_1", "gpu_1", "KILLED"), ("gpu-1", "gpu-1", "KILLED"),
    ("gpu", "gpu-1", "RUNNING"),
])  # fmt: skip
def test_only_runs_of_this_very_host_are_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch, own: str, host: str, status: str
) -> None:
    run = store.client.create_run(store.experiment_id)
    store.client.set_tag(run.info.run_id, PROCESS, f"{host} {GONE} 1")
    monkeypatch.setattr(socket, "gethostname", lambda: own)
    end_abandoned()
    assert store.client.get_run(run.info.run_id).info.status == status
