"""Runs whose process is gone are ended, those of other hosts never."""

import socket
import time
from pathlib import Path

import pytest

from steps.processes import PROCESS, end_abandoned
from tests.conftest import Store

GONE = 2**22 + 1  # above the highest process number that Linux gives
NAMESPACE = Path("/proc/self/ns/pid").stat().st_ino


@pytest.mark.parametrize(("own", "host", "status"), [
    ("gpu_1", "gpu-1", "RUNNING"), ("gpu_1", "gpu_1", "KILLED"), ("gpu-1", "gpu-1", "KILLED"),
    ("gpu", "gpu-1", "RUNNING"),
])  # fmt: skip
def test_only_runs_of_this_very_host_are_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch, own: str, host: str, status: str
) -> None:
    run = store.client.create_run(store.experiment_id)
    store.client.set_tag(run.info.run_id, PROCESS, f"{host} {GONE} 1 {NAMESPACE}")
    monkeypatch.setattr(socket, "gethostname", lambda: own)
    end_abandoned()
    assert store.client.get_run(run.info.run_id).info.status == status


def test_a_run_that_tells_no_pid_namespace_is_taken_for_one_of_this(store: Store) -> None:
    run = store.client.create_run(store.experiment_id)
    store.client.set_tag(run.info.run_id, PROCESS, f"{socket.gethostname()} {GONE} 1")
    end_abandoned()
    assert store.client.get_run(run.info.run_id).info.status == "KILLED"


@pytest.mark.parametrize(("hours", "status"), [(1, "RUNNING"), (23, "RUNNING"), (25, "KILLED")])
def test_a_run_of_a_container_that_shares_the_hosts_name_is_left_for_a_day(
    store: Store, hours: int, status: str
) -> None:
    began = int(1000 * (time.time() - 3600 * hours))
    run = store.client.create_run(store.experiment_id, start_time=began)
    store.client.set_tag(
        run.info.run_id, PROCESS, f"{socket.gethostname()} {GONE} 1 {NAMESPACE + 1}")
    end_abandoned()
    assert store.client.get_run(run.info.run_id).info.status == status
