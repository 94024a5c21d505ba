"""/train against a real MLflow server, with real `mlflow run` processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from flask import Flask

from gateway import create_app
from gateway.routes.training import _without_places
from gateway.schemas import TrainingParameters
from gateway.training import REGISTERING, Trainings
from tests import cluster as doubles
from tests.cluster import IMAGE, Cluster
from tests.gateway import servers
from tests.gateway.conftest import Settle, bearer, parts, problem, with_users
from tests.gateway.servers import PROJECT
from tests.processes import group_members


@pytest.fixture(autouse=True)
def _nothing_left_running(training: Flask) -> Iterator[None]:
    yield
    recorded = parts(training).settings.state_dir / "training.json"
    if recorded.exists() and (pid := json.loads(recorded.read_text()).get("pid")):
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def call(app: Flask, method: str, path: str, **options):
    return app.test_client().open(path, method=method, headers=bearer(app, "trainer"), **options)


def start(app: Flask, **parameters: object) -> str:
    answer = call(app, "POST", "/train", json=parameters)
    assert answer.status_code == 202, answer.text
    return answer.get_json()["run_id"]


def wait(app: Flask, run_id: str, done: Callable[[dict], bool], seconds: float = 40) -> dict:
    deadline = time.monotonic() + seconds
    while True:
        body = call(app, "GET", f"/train/{run_id}").get_json()
        if done(body):
            return body
        assert time.monotonic() < deadline, body
        time.sleep(0.2)


def over(body: dict) -> bool:
    return body["state"] != "running"


def learning(body: dict) -> bool:
    return body["percent"] == 40


def pid_of(app: Flask) -> int:
    return json.loads((parts(app).settings.state_dir / "training.json").read_text())["pid"]


def test_training_runs_to_its_end(training: Flask) -> None:
    answer = call(training, "POST", "/train", json={"random_state": 7, "min_df": 3})
    body = answer.get_json()
    run_id = body["run_id"]
    assert answer.status_code == 202
    assert answer.headers["Location"] == body["status_url"] == f"/train/{run_id}"
    assert body["status"] == "running"
    first = call(training, "GET", f"/train/{run_id}").get_json()
    assert (first["state"], first["percent"]) == ("running", 0)

    last = wait(training, run_id, over)
    assert last["state"] == "finished"
    assert (last["stage"], last["percent"]) == ("done", 100)
    assert (last["version"], last["gate"]) == (1, "passed")
    assert last["metrics"] == {"hire_auc": 0.81}
    assert last["started"] < last["ended"]
    run = parts(training).tracking.run(run_id)
    tags = {t["key"]: t["value"] for t in run["data"]["tags"]}
    assert "--random_state=7" in tags["test.arguments"]
    assert "--min_df=3" in tags["test.arguments"]
    assert tags["test.leaked"] == "nothing"
    assert tags["jobmatch.requested_by"] == "trainer"


def test_second_training_is_409_with_the_first_ones_id_and_can_be_stopped(training: Flask) -> None:
    run_id = start(training, random_state=1)
    refused = call(training, "POST", "/train")
    body = problem(refused, 409, "training-under-way")
    assert body["run_id"] == run_id
    assert body["status_url"] == refused.headers["Location"] == f"/train/{run_id}"
    problem(call(training, "GET", "/train"), 409, "training-under-way")

    wait(training, run_id, learning)
    group = pid_of(training)
    assert len(group_members(group)) >= 2
    stopped = call(training, "DELETE", f"/train/{run_id}")
    assert stopped.status_code == 200, stopped.text
    assert stopped.get_json()["state"] == "killed"
    assert not group_members(group)
    problem(call(training, "DELETE", f"/train/{run_id}"), 409, "conflict")


def test_training_that_registers_is_not_called_killed(training: Flask) -> None:
    run_id = start(training, random_state=4)
    wait(training, run_id, lambda body: body["stage"] == REGISTERING)
    problem(call(training, "DELETE", f"/train/{run_id}"), 409, "conflict")
    last = call(training, "GET", f"/train/{run_id}").get_json()
    assert (last["state"], last["version"]) == ("finished", 1)


def test_stage_that_is_not_stopped_is_the_one_of_train() -> None:
    assert f'progress.stage("{REGISTERING}")' in (PROJECT / "steps/train.py").read_text()


def test_looking_while_a_training_stops_does_not_kill_it(training: Flask) -> None:
    run_id = start(training, random_state=5)
    wait(training, run_id, lambda body: body["stage"] == "fitting")
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(call, training, "DELETE", f"/train/{run_id}")
        while not stopping.done():
            call(training, "GET", f"/train/{run_id}")
            time.sleep(0.2)
    last = stopping.result().get_json()
    assert last["state"] == "killed"
    assert "error" not in last


def counted(app: Flask) -> dict[str, float]:
    """Trainings by what became of them, as /metrics says."""
    text = parts(app).metrics.exposition().decode()
    found = re.findall(r'^gateway_trainings_total\{outcome="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {outcome: float(number) for outcome, number in found if float(number)}


@pytest.mark.parametrize("begun", [False, True], ids=["starting", "learning"])
def test_training_that_several_stop_while_others_look_is_stopped_once(
    training: Flask, begun: bool
) -> None:
    run_id, done = start(training, random_state=1), threading.Event()
    if begun:
        wait(training, run_id, learning)

    def poll() -> list[dict]:
        seen = []
        while not done.is_set():
            seen.append(call(training, "GET", f"/train/{run_id}").get_json())
        return seen

    with ThreadPoolExecutor(8) as pool:
        looking = [pool.submit(poll) for _ in range(4)]
        stopping = [pool.submit(call, training, "DELETE", f"/train/{run_id}") for _ in range(4)]
        answers = [future.result() for future in stopping]
        done.set()
    bodies = [body for future in looking for body in future.result()]
    # who came too late is told that it is over
    assert {answer.status_code for answer in answers} <= {200, 409}
    bodies += [answer.get_json() for answer in answers if answer.status_code == 200]
    assert bodies[-1]["state"] == "killed"
    assert not [body for body in bodies if "error" in body]
    assert counted(training) == {"started": 1, "stopped": 1}


def test_run_that_is_being_stopped_is_not_called_dead(training: Flask) -> None:
    """Between the end of its process and that of its run."""
    run_id = parts(training).trainings._create_run("trainer")
    record = parts(training).settings.state_dir / "training.json"
    record.write_text(json.dumps({"run_id": run_id, "pid": 2**22 + 1, "stopping": True}))
    body = call(training, "GET", f"/train/{run_id}").get_json()
    assert body["state"] == "killed"
    assert "error" not in body
    assert counted(training) == {"stopped": 1}


def test_training_that_dies_is_counted_once_whoever_looks(training: Flask) -> None:
    run_id = start(training, random_state=1)
    wait(training, run_id, learning)
    os.killpg(pid_of(training), signal.SIGKILL)
    other = create_app(parts(training).settings)  # as a second worker has
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda app: call(app, "GET", f"/train/{run_id}"), [training, other] * 8))
    wait(training, run_id, over)
    assert counted(training).get("lost", 0) + counted(other).get("lost", 0) == 1
    assert not {"failed", "stopped"} & (counted(training).keys() | counted(other).keys())


@pytest.mark.parametrize(("course", "outcome"), [(7, "finished"), (2, "failed")])
def test_training_is_counted_by_what_became_of_it(
    training: Flask, course: int, outcome: str
) -> None:
    run_id = start(training, random_state=course)
    wait(training, run_id, over)
    deadline = time.monotonic() + 10
    while counted(training) != {"started": 1, outcome: 1}:  # without another look
        assert time.monotonic() < deadline, counted(training)
        time.sleep(0.1)
    call(training, "GET", f"/train/{run_id}")
    assert counted(training) == {"started": 1, outcome: 1}


@pytest.mark.parametrize(("line", "shown"), [
    ("/srv/data/vagas.json: file not found; data_dir must hold vagas.json, applicants.json",
     "vagas.json: file not found; data_dir must hold vagas.json, applicants.json"),
    ("MLflow at sqlite:////srv/x/mlflow.db: locked", "MLflow at its store: locked"),
    ("MLflow at http://…@db:5001: no answer", "MLflow at its store: no answer"),
    ("train: 3 vacancies and/or 2 people", "train: 3 vacancies and/or 2 people"),
])  # fmt: skip
def test_errors_of_a_training_tell_no_place_on_the_server(line: str, shown: str) -> None:
    assert _without_places(line) == shown


def test_original_get_starts_a_training_and_head_does_not(training: Flask) -> None:
    problem_free = call(training, "HEAD", "/train")
    assert problem_free.status_code == 405
    answer = call(training, "GET", "/train")
    assert answer.status_code == 202
    call(training, "DELETE", answer.headers["Location"])


def test_failed_training_says_why_in_one_line(training: Flask) -> None:
    failed = wait(training, start(training, random_state=2), over)
    assert failed["state"] == "failed"
    assert failed["error"] == "vagas.json, line 3: not JSON; check the file"
    assert "version" not in failed


def test_training_that_dies_without_a_word_is_failed(training: Flask) -> None:
    failed = wait(training, start(training, random_state=3), over)
    assert failed["state"] == "failed"


@pytest.mark.parametrize("victim", ["leader", "all"])
def test_run_whose_process_is_gone_ends_as_killed(training: Flask, victim: str) -> None:
    run_id = start(training, random_state=1)
    wait(training, run_id, learning)
    group = pid_of(training)
    if victim == "leader":
        os.kill(group, signal.SIGKILL)
    else:
        os.killpg(group, signal.SIGKILL)
    lost = wait(training, run_id, over)
    assert lost["state"] == "killed"
    assert lost["error"] == "the training process died"
    assert not group_members(group)
    # and the way is free
    call(training, "DELETE", f"/train/{start(training, random_state=1)}")


def test_many_starts_at_once_start_one(training: Flask, settle: Callable) -> None:
    # a second application on the same state is what a second gunicorn worker has
    other = create_app(parts(training).settings)
    apps = [training, other] * 4
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(
            lambda app: call(app, "POST", "/train", json={"random_state": 1}), apps))
    started = [a for a in answers if a.status_code == 202]
    assert len(started) == 1
    run_id = started[0].get_json()["run_id"]
    for answer in answers:
        if answer not in started:
            assert problem(answer, 409, "training-under-way")["run_id"] == run_id
    call(training, "DELETE", f"/train/{run_id}")


def test_someone_elses_run_is_not_touched(training: Flask, tracking_url: str) -> None:
    tracking = parts(training).tracking
    experiment = tracking.experiment_id("jobmatch")
    run = tracking.post("runs/create", experiment_id=experiment, start_time=1)["run"]["info"]
    try:
        body = call(training, "GET", f"/train/{run['run_id']}").get_json()
        assert body["state"] == "running"
        problem(call(training, "DELETE", f"/train/{run['run_id']}"), 409, "conflict")
    finally:
        tracking.end_run(run["run_id"], "KILLED", 2)


def test_run_that_was_deleted_is_404_and_can_be_stopped(training: Flask) -> None:
    run_id = start(training, random_state=1)
    wait(training, run_id, learning)
    group = pid_of(training)
    parts(training).tracking.post("runs/delete", run_id=run_id)
    problem(call(training, "GET", f"/train/{run_id}"), 404, "not-found")
    assert group_members(group)
    problem(call(training, "DELETE", f"/train/{run_id}"), 404, "not-found")
    assert not group_members(group)
    problem(call(training, "DELETE", f"/train/{run_id}"), 404, "not-found")
    # and the way is free
    call(training, "DELETE", f"/train/{start(training, random_state=1)}")


def test_experiment_that_was_deleted_has_to_be_restored(training: Flask) -> None:
    tracking = parts(training).tracking
    number = tracking.experiment_id("jobmatch")
    run_id = start(training)
    wait(training, run_id, lambda _: parts(training).trainings._lock_is_free())
    tracking.post("experiments/delete", experiment_id=number)
    try:
        for method, path in (("POST", "/train"), ("GET", f"/train/{run_id}")):
            detail = problem(call(training, method, path), 409, "conflict")["detail"]
            assert detail == ("the experiment jobmatch was deleted in MLflow: restore it with "
                              f"`mlflow experiments restore -x {number}`")
    finally:
        tracking.post("experiments/restore", experiment_id=number)
    assert call(training, "GET", f"/train/{run_id}").get_json()["state"] == "finished"


def test_run_of_another_experiment_is_404(training: Flask) -> None:
    tracking = parts(training).tracking
    run = tracking.post("runs/create", experiment_id="0", start_time=1)["run"]["info"]
    problem(call(training, "GET", f"/train/{run['run_id']}"), 404, "not-found")
    problem(call(training, "GET", "/train/" + "0" * 32), 404, "not-found")


@pytest.mark.parametrize(
    "run_id",
    ["abc", "A" * 32, "0" * 31, "0" * 33, "..%2f..%2fetc%2fpasswd", "%2e%2e", "' OR 1=1",
     "0" * 31 + "%0a", "%00" * 32, "٠" * 32],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_run_id_that_is_none_is_refused(training: Flask, method: str, run_id: str) -> None:
    answer = call(training, method, f"/train/{run_id}")
    assert answer.status_code in (404, 422)
    problem(answer, answer.status_code, "not-found" if answer.status_code == 404
            else "invalid-field")


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"data_dir": "/etc"}, "data_dir"),
        ({"unknown": 1}, "unknown"),
        ({"grid_search_c_values": "1; rm -rf /"}, "grid_search_c_values"),
        ({"grid_search_c_values": "--help"}, "grid_search_c_values"),
        ({"grid_search_scoring": "$(reboot)"}, "grid_search_scoring"),
        ({"grid_search_cv": 1}, "grid_search_cv"),
        ({"grid_search_cv": "5"}, "grid_search_cv"),
        ({"grid_search_cv": True}, "grid_search_cv"),
        ({"test_size": 1.0}, "test_size"),
        ({"random_state": 2**40}, "random_state"),
    ],
    ids=str,
)
def test_bad_parameter_is_422_by_name(training: Flask, parameters: dict, field: str) -> None:
    answer = call(training, "POST", "/train", json=parameters)
    errors = problem(answer, 422, "invalid-field")["errors"]
    assert [error["field"] for error in errors] == [field]


def test_parameters_are_those_of_the_entry_point() -> None:
    import yaml

    entry_points = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"]
    declared = set(entry_points["train"]["parameters"])
    assert set(TrainingParameters.model_fields) == declared - {"data_dir"}


def test_mlflow_server_that_is_not_there_is_502(app: Flask) -> None:
    for method, path in (("POST", "/train"), ("GET", "/train/" + "0" * 32), ("GET", "/models")):
        problem(call(app, method, path), 502, "upstream-failed")


def test_training_that_cannot_be_started_ends_as_failed(
    settle: Callable, tracking_url: str, tmp_path: Path
) -> None:
    nowhere = settle(tracking_uri=tracking_url, project_dir=tmp_path / "nowhere")
    app = with_users(create_app(nowhere))
    answer = call(app, "POST", "/train")
    problem(answer, 500, "internal")
    assert str(tmp_path) not in answer.text
    # nothing holds the lock
    problem(call(app, "POST", "/train"), 500, "internal")


def test_other_backend_gets_its_configuration(settle: Callable, tracking_url: str) -> None:
    settings = settle(
        tracking_uri=tracking_url, project_backend="kubernetes",
        project_backend_config="/etc/jobmatch/kubernetes.json", train_data_dir="/data",
    )  # fmt: skip
    trainings = Trainings(settings, parts(create_app(settings)).tracking, lambda _: None)
    command = trainings._command("0" * 32, {"min_df": 3, "max_df": None})
    assert command[command.index("--run-name") + 1] == "0" * 32
    assert "--run-id" not in command
    assert command[command.index("--backend") + 1] == "kubernetes"
    assert command[command.index("--backend-config") + 1] == "/etc/jobmatch/kubernetes.json"
    assert command[-4:] == ["-P", "min_df=3", "-P", "data_dir=/data"]


def test_run_on_another_backend_is_under_way_although_no_process_is_here(
    settle: Callable, tracking_url: str, project: Path
) -> None:
    settings = settle(tracking_uri=tracking_url, project_dir=project, project_backend="kubernetes")
    app = with_users(create_app(settings))
    trainings = parts(app).trainings
    run_id = trainings._create_run("trainer")
    assert call(app, "GET", f"/train/{run_id}").get_json()["state"] == "running"
    body = problem(call(app, "POST", "/train"), 409, "training-under-way")
    assert body["run_id"] == run_id
    assert call(app, "DELETE", f"/train/{run_id}").get_json()["state"] == "killed"


def test_requests_reach_mlflow_with_its_login(settle: Callable, tmp_path: Path) -> None:
    """MLflow's basic-auth is on in the container set-up."""
    from gateway.upstream import TrackingServer

    settings = settle(tracking_username="gateway", tracking_password="a secret for mlflow")
    session = TrackingServer(settings)._session
    sent = requests.Request("GET", "http://127.0.0.1/", auth=session.auth).prepare()
    assert sent.headers["Authorization"].startswith("Basic ")


# On Kubernetes. `mlflow run`, the MLflow server and the clients of Docker and Kubernetes are real.
# The cluster, its pod, the Docker engine and `docker info` are doubles: CI has none of them.


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    commands = tmp_path / "bin"
    commands.mkdir()
    # a shell's background job ignores SIGINT, and so would all that it starts
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    with doubles.cluster(tmp_path / "kubeconfig") as cluster, \
            doubles.engine(commands / "docker") as docker_host:
        cluster.condition = None
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.setenv("DOCKER_HOST", docker_host)
        # as in a gateway that `mlflow run` started: this run and experiment are not the training's
        monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "999")
        monkeypatch.setenv("PATH", str(commands), prepend=os.pathsep)
        yield cluster
    signal.signal(signal.SIGINT, usual)


@pytest.fixture
def handing_over(settle: Settle, tracking_url: str, tmp_path: Path, cluster: Cluster) -> Flask:
    """An application that hands its trainings to the cluster."""
    project = servers.training_project(tmp_path / "project")
    with (project / "MLproject").open("a") as file:
        file.write(f"docker_env: {{image: '{IMAGE}'}}\n")
    shutil.copytree(PROJECT / "deploy" / "kubernetes", project / "deploy" / "kubernetes")
    return with_users(create_app(settle(
        tracking_uri=tracking_url, project_dir=project, train_data_dir="/data",
        project_backend="kubernetes",
        project_backend_config="deploy/kubernetes/backend_config.json")))  # fmt: skip


def runs(app: Flask) -> set[str]:
    return {run["info"]["run_id"] for run in parts(app).trainings._runs("")}


def submitted(cluster: Cluster) -> dict:
    """The container of the one job in the cluster."""
    deadline = time.monotonic() + 40
    while not cluster.jobs:
        assert time.monotonic() < deadline, "no job was submitted"
        time.sleep(0.1)
    (job,) = cluster.jobs.values()
    return job["spec"]["template"]["spec"]["containers"][0]


def test_kubernetes_trains_in_the_run_that_the_gateway_answers(
    handing_over: Flask, cluster: Cluster
) -> None:
    before = runs(handing_over)
    run_id = start(handing_over, random_state=7)
    assert runs(handing_over) - before == {run_id}
    body = call(handing_over, "GET", f"/train/{run_id}").get_json()
    assert (body["state"], body["stage"], body["percent"]) == ("running", "starting", 0)
    refused = call(handing_over, "POST", "/train")
    assert problem(refused, 409, "training-under-way")["run_id"] == run_id

    container = submitted(cluster)
    variables = {v["name"]: v["value"] for v in container["env"] if "value" in v}
    assert variables["MLFLOW_RUN_ID"] == run_id
    # the pod
    subprocess.run([sys.executable, *container["command"][1:]], env=variables, check=True)
    cluster.condition = "Complete"
    last = wait(handing_over, run_id, over)
    assert (last["state"], last["stage"], last["percent"]) == ("finished", "done", 100)
    run = parts(handing_over).tracking.run(run_id)
    tags = {t["key"]: t["value"] for t in run["data"]["tags"]}
    assert {"--random_state=7", "--data_dir=/data"} <= set(tags["test.arguments"].split())
    assert (run["info"]["run_name"], tags["mlflow.user"]) == ("train", "trainer")
    assert tags["jobmatch.requested_by"] == "trainer"
    logs = parts(handing_over).settings.state_dir / "training"
    assert [log.name for log in logs.iterdir()] == [f"{run_id}.log"]


def test_job_is_cancelled_also_by_a_gateway_that_has_not_started_it(
    handing_over: Flask, cluster: Cluster
) -> None:
    run_id = start(handing_over)
    submitted(cluster)
    group = pid_of(handing_over)
    restarted = create_app(parts(handing_over).settings)
    assert call(restarted, "GET", f"/train/{run_id}").get_json()["state"] == "running"
    stopped = call(restarted, "DELETE", f"/train/{run_id}")
    assert stopped.status_code == 200, stopped.text
    assert not cluster.jobs
    assert not group_members(group)
    assert call(handing_over, "GET", f"/train/{run_id}").get_json()["state"] == "killed"
    assert b'{outcome="failed"} 0.0' in parts(handing_over).metrics.exposition()


def test_hand_over_that_fails_before_there_is_a_run_is_500_and_leaves_nothing(
    handing_over: Flask,
) -> None:
    settings = parts(handing_over).settings
    (settings.project_dir / str(settings.project_backend_config)).unlink()
    before = runs(handing_over)
    for _ in range(2):  # the way is free after it
        body = problem(call(handing_over, "POST", "/train"), 500, "internal")
        (log,) = re.findall(r"training/\w+\.log", body["detail"])
        assert "backend_config.json" in (settings.state_dir / log).read_text()
    assert runs(handing_over) == before


def test_hand_over_that_takes_too_long_is_500_and_leaves_nothing(
    handing_over: Flask, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.training.HAND_OVER_SECONDS", 0)
    problem(call(handing_over, "POST", "/train"), 500, "internal")
    assert parts(handing_over).trainings._lock_is_free()
    assert not cluster.jobs


def test_hand_over_that_fails_later_fails_the_run(
    handing_over: Flask, cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "bin" / "docker").write_text("#!/bin/sh\nexit 1\n")
    failed = wait(handing_over, start(handing_over), over)
    assert failed["state"] == "failed"
    assert failed["error"] == "the training process ended with status 1: see its log"
    assert not cluster.jobs


def test_hand_over_that_a_killed_gateway_left_undone_is_completed(handing_over: Flask) -> None:
    name, tracking = uuid.uuid4().hex, parts(handing_over).tracking
    run_id = tracking.post(
        "runs/create", experiment_id=tracking.experiment_id("jobmatch"), start_time=1,
        run_name=name, tags=[{"key": "jobmatch.stage", "value": "fitting"}],
    )["run"]["info"]["run_id"]  # fmt: skip
    record = parts(handing_over).settings.state_dir / "training.json"
    record.write_text(json.dumps({"run_name": name, "user": "trainer", "pid": 0}))
    body = call(handing_over, "GET", f"/train/{run_id}").get_json()
    assert (body["state"], body["stage"]) == ("running", "fitting")
    refused = call(handing_over, "POST", "/train")
    assert problem(refused, 409, "training-under-way")["run_id"] == run_id
    assert tracking.run(run_id)["info"]["run_name"] == "train"
    assert call(handing_over, "DELETE", f"/train/{run_id}").get_json()["state"] == "killed"


def test_experiment_that_several_make_at_once_is_one(training: Flask) -> None:
    tracking, together = parts(training).tracking, threading.Barrier(4)
    for _ in range(5):
        name = f"made at once {uuid.uuid4().hex}"

        def make(name: str = name) -> str:
            together.wait(20)
            return tracking.experiment_id(name)

        with ThreadPoolExecutor(4) as threads:
            made = {future.result() for future in [threads.submit(make) for _ in range(4)]}
        assert len(made) == 1
