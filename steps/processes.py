"""Which process a run belongs to, so that the run of one that was killed does not stay RUNNING.

A process that gets SIGKILL cannot end its run. Every run of a step therefore carries its host,
process number, start time and pid namespace, and the next step that runs on that host ends those
whose process is gone. Where there is no /proc nothing is marked, and nothing ended.
"""

import os
import socket
import time
from pathlib import Path

import mlflow

PROCESS = "jobmatch.process"
KILLED = "the process was killed: look at the registry, then run it again"
OUT_OF_SIGHT_SECONDS = 24 * 3600.0
"""A process of another container that has the host's name cannot be seen: its run is left alone for
so long, since it may be a container of the host's network as well as one that was restarted."""


def mark_own() -> None:
    """Say on the active run that it belongs to this process."""
    started = _start_time(os.getpid())
    if started:
        mlflow.set_tag(
            PROCESS, f"{socket.gethostname()} {os.getpid()} {started} {_pid_namespace()}")


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
        host, number, started, *namespace = run.data.tags[PROCESS].split(" ")
        if namespace in ([], [_pid_namespace()]):  # not told by runs of older code
            gone = _start_time(int(number)) != started
        else:
            gone = time.time() - run.info.start_time / 1000 > OUT_OF_SIGHT_SECONDS
        if host == own and gone:
            client.set_tag(run.info.run_id, "jobmatch.error", KILLED)
            client.set_terminated(run.info.run_id, "KILLED")


def _pid_namespace() -> str:
    """Within which process numbers mean the same (pid_namespaces(7))."""
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def _start_time(process: int) -> str | None:
    """When a process began, in clock ticks since boot (proc_pid_stat(5), field 22); None where it
    is gone, or waits as a zombie for its parent."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return None if fields[0] == "Z" else fields[19]
