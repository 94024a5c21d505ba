"""Which process a run belongs to, so that the run of one that was killed does not stay RUNNING.

A process that gets SIGKILL cannot end its run. Every run of a step therefore carries its host,
process number and start time, and the next step that runs on that host ends those whose process
is gone. Where there is no /proc nothing is marked, and nothing ended.
"""

import os
import socket
from pathlib import Path

import mlflow

PROCESS = "jobmatch.process"
KILLED = "the process was killed: look at the registry, then run it again"


def mark_own() -> None:
    """Say on the active run that it belongs to this process."""
    started = _start_time(os.getpid())
    if started:
        mlflow.set_tag(PROCESS, f"{socket.gethostname()} {os.getpid()} {started}")


def end_abandoned() -> None:
    """End, as KILLED, every RUNNING run of this host whose process is gone."""
    client, own = mlflow.MlflowClient(), socket.gethostname()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    running = client.search_runs(
        experiments,
        filter_string=f"attributes.status = 'RUNNING' and tags.`{PROCESS}` "
        f"LIKE '{own} %'",  # in which _ stands for any sign
    )
    for run in running:
        host, number, started = run.data.tags[PROCESS].split(" ")
        if host == own and _start_time(int(number)) != started:
            client.set_tag(run.info.run_id, "jobmatch.error", KILLED)
            client.set_terminated(run.info.run_id, "KILLED")


def _start_time(process: int) -> str | None:
    """When a process began, in clock ticks since boot (proc_pid_stat(5), field 22); None where it
    is gone, or waits as a zombie for its parent."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return None if fields[0] == "Z" else fields[19]
