"""Training on Kubernetes: MLflow's own backend, up to the API server, which is a double here."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import mlflow
import pytest
import yaml
from mlflow.exceptions import ExecutionException
from mlflow.projects import _parse_kubernetes_config, _project_spec
from mlflow.projects import kubernetes as backend
from mlflow.projects.utils import get_entry_point_command, get_run_env_vars, load_project

from steps.failure import Terminated
from steps.progress import Progress
from tests import cluster as doubles
from tests.cluster import DIGEST, IMAGE
from tests.conftest import PROJECT, Store

pytestmark = pytest.mark.xdist_group("kubernetes")

FILES = PROJECT / "deploy" / "kubernetes"
VERSIONS = ["1.29", "1.33", kubernetes_validate.latest_version()]

Project = _project_spec.Project


def make(folder: Path, image: str = IMAGE) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FILES / "make-project.sh", folder, image], capture_output=True,
                          text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "project"
    done = make(made)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(made)  # the config names the template from here
    return made


def template() -> dict[str, Any]:
    config = json.loads((FILES / "backend_config.json").read_text(encoding="utf-8"))
    return _parse_kubernetes_config(config)["kube-job-template"]


def filled(project: Project, variables: dict[str, str]) -> dict[str, Any]:
    command = get_entry_point_command(project, "train", {"data_dir": "/data"}, None)
    return backend._get_kubernetes_job_definition(
        project.name, IMAGE, DIGEST, backend._get_run_command(command), variables, template())


@pytest.mark.parametrize("version", VERSIONS)
def test_the_job_that_mlflow_makes_is_what_kubernetes_takes(folder: Path, version: str) -> None:
    variables = {"MLFLOW_RUN_ID": "a" * 32, "MLFLOW_TRACKING_URI": "http://mlflow:5001"}
    job = filled(load_project(str(folder)), variables)
    kubernetes_validate.validate(job, version, strict=True)
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"{IMAGE}@{DIGEST}"
    assert container["command"][:3] == ["python", "-m", "steps.train"]
    assert container["command"][container["command"].index("--data_dir") + 1] == "/data"
    assert {"name": "MLFLOW_RUN_ID", "value": "a" * 32} in container["env"]
    assert "replaced with" not in json.dumps(job)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_secret_of_a_private_registry_has_only_to_be_uncommented(version: str) -> None:
    text = (FILES / "job_template.yaml").read_text(encoding="utf-8")
    job = yaml.safe_load(text.replace("# imagePullSecrets:", "imagePullSecrets:"))
    kubernetes_validate.validate(job, version, strict=True)
    pod = job["spec"]["template"]["spec"]
    assert pod.pop("imagePullSecrets") == [{"name": "jobmatch-registry"}]
    assert job == template()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_volume_of_the_records_is_the_one_that_a_training_mounts(version: str) -> None:
    text = (FILES / "records.yaml").read_text(encoding="utf-8")
    claim, pod = yaml.safe_load_all(text)
    for made in (claim, pod):
        kubernetes_validate.validate(made, version, strict=True)
        assert made["metadata"]["namespace"] == template()["metadata"]["namespace"]
    mounted = template()["spec"]["template"]["spec"]
    (copied,), records = pod["spec"]["volumes"], mounted["volumes"][0]
    assert {copied["persistentVolumeClaim"]["claimName"],
            records["persistentVolumeClaim"]["claimName"]} == {claim["metadata"]["name"]}
    # the training's user must be able to read what the pod wrote
    assert pod["spec"]["securityContext"] == mounted["securityContext"]


def test_the_schema_would_notice_a_mistake(folder: Path) -> None:
    job = filled(load_project(str(folder)), {})
    job["spec"]["template"]["spec"]["restartpolicy"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)


def test_a_training_has_no_rights_and_is_not_repeated() -> None:
    spec = template()["spec"]
    pod, container = spec["template"]["spec"], spec["template"]["spec"]["containers"][0]
    assert (spec["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    for variable in container["env"]:  # a password comes from the Secret or not at all
        if {"PASSWORD", "USERNAME"} & set(variable["name"].split("_")):
            assert set(variable) == {"name", "valueFrom"}


def test_the_project_for_it_has_the_same_entry_points(folder: Path) -> None:
    theirs, ours = load_project(str(folder)), load_project(str(PROJECT))
    assert theirs.docker_env == {"image": IMAGE}
    assert theirs.name == ours.name
    assert set(theirs._entry_points) == set(ours._entry_points)
    assert not (folder / "conda.yaml").exists()


def test_mlflow_itself_would_not_take_both_environments(folder: Path) -> None:
    project = yaml.safe_load((folder / "MLproject").read_text()) | {"conda_env": "conda.yaml"}
    (folder / "MLproject").write_text(yaml.safe_dump(project))
    with pytest.raises(ExecutionException):
        load_project(str(folder))


@pytest.mark.parametrize(("image", "told"), [
    ("x; rm -rf", "not the name of an image"), (IMAGE, "is there already")])  # fmt: skip
def test_making_the_project_refuses_what_cannot_be(tmp_path: Path, image: str, told: str) -> None:
    (tmp_path / "there").mkdir()
    done = make(tmp_path / "there", image)
    assert done.returncode == 1
    assert told in done.stderr
    assert list((tmp_path / "there").iterdir()) == []


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[doubles.Cluster]:
    config = tmp_path / "kubeconfig"
    with doubles.cluster(config) as server:
        monkeypatch.setenv("KUBECONFIG", str(config))
        monkeypatch.setattr(
            "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
        yield server


def test_mlflow_submits_the_job_and_follows_it_to_its_end(
    folder: Path, cluster: doubles.Cluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBE_MLFLOW_TRACKING_URI", "http://mlflow.jobmatch:5001")
    project = load_project(str(folder))
    config = json.loads((folder / "deploy/kubernetes/backend_config.json").read_text())
    with mlflow.start_run() as run:
        submitted = backend.run_kubernetes_job(
            project.name, run, IMAGE, DIGEST,
            get_entry_point_command(project, "train", {"data_dir": "/data"}, None),
            get_run_env_vars(run.info.run_id, run.info.experiment_id),
            config["kube-context"], template())
        assert submitted.wait()
    (job,) = cluster.jobs.values()
    assert job["metadata"]["namespace"] == "jobmatch"
    variables = {v["name"]: v.get("value")
                 for v in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert variables["MLFLOW_RUN_ID"] == run.info.run_id
    assert variables["MLFLOW_TRACKING_URI"] == "http://mlflow.jobmatch:5001"


# MLflow cancels a job with a DELETE without propagationPolicy, on which Kubernetes orphans the pod


def test_a_pod_that_was_left_stops_at_its_next_stage(store: Store) -> None:
    progress = Progress({"fitting": 1, "judging": 1})
    with mlflow.start_run() as run, mlflow.start_run(nested=True):
        progress.stage("fitting")
        store.client.set_terminated(run.info.run_id, "KILLED")
        with pytest.raises(Terminated):
            progress.stage("judging")


def test_a_step_that_was_ended_elsewhere_stops_within_a_long_stage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steps.progress.EVERY_SECONDS", 0)
    progress = Progress({"scoring": 1})
    with mlflow.start_run() as run:
        progress.stage("scoring")
        progress.told(0.1, "100 of 1,000 rows")
        store.client.set_terminated(run.info.run_id, "KILLED")
        with pytest.raises(Terminated):
            progress.told(0.2, "200 of 1,000 rows")


def test_a_pod_that_starts_when_it_was_stopped_already_does_nothing(
    store: Store, step: Callable, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = store.client.create_run(store.experiment_id).info.run_id
    store.client.set_terminated(run_id, "KILLED")
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    assert step("train", data_dir=small_data).code == 143
    assert store.client.get_run(run_id).info.status == "KILLED"
    assert len(store.runs()) == 1
