"""The files of the containers agree with each other and with the gateway."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import Metrics
from gateway.settings import variables
from stack.services import PortError, Service, require_ports
from tests.conftest import PROJECT
from tests.gateway.servers import free_port

COMPOSE_TEXT = (PROJECT / "docker-compose.yaml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
EXAMPLE = dict(re.findall(
    r"^#?([A-Z][A-Z0-9_]+)=(.*)$", (PROJECT / ".env.example").read_text(encoding="utf-8"),
    re.MULTILINE))
FIXED = {
    "GATEWAY_PROJECT_DIR",  # the image's own
    "MLFLOW_PROJECT_BACKEND", "MLFLOW_PROJECT_BACKEND_CONFIG",  # trainings run in the container
}  # fmt: skip
DASHBOARD = json.loads((PROJECT / "deploy/grafana/dashboards/jobmatch.json").read_text())


def test_every_variable_of_the_compose_file_is_in_the_example_with_its_default() -> None:
    used = re.findall(r"\$\{([A-Z0-9_]+)(?::-([^}]*))?", COMPOSE_TEXT)
    assert {name for name, _ in used} <= set(EXAMPLE)
    assert {name: EXAMPLE[name] for name, default in used if default} == {
        name: default for name, default in used if default}


def test_every_setting_of_the_gateway_reaches_its_container() -> None:
    passed = set(COMPOSE["services"]["gateway"]["environment"])
    assert set(variables()) - FIXED <= passed
    assert {name for name in passed if name.startswith("GATEWAY_")} <= set(variables())


def test_make_env_fills_in_every_secret_that_compose_asks_for(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    for name in (".env.example", "deploy/make-env.sh"):
        (tmp_path / name).write_bytes((PROJECT / name).read_bytes())
    command = ["sh", str(tmp_path / "deploy/make-env.sh")]
    subprocess.run(command, check=True, capture_output=True)
    made = dict(re.findall(r"^([A-Z0-9_]+)=(.+)$", (tmp_path / ".env").read_text(), re.MULTILINE))
    assert set(made) == set(re.findall(r"\$\{([A-Z0-9_]+):\?", COMPOSE_TEXT))
    assert len(set(made.values())) == len(made)
    assert all(len(value) >= 32 for value in made.values())
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert again.stderr.startswith("error: .env is there already")


def test_the_image_holds_no_test_tools() -> None:
    lines = (PROJECT / "requirements.txt").read_text(encoding="utf-8")
    shipped, heading, left_out = lines.partition("# tests and checks")
    assert heading
    assert "/^# tests and checks/" in (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    assert "mlflow==" in shipped
    assert {"pytest", "ruff", "mypy"} <= set(re.findall(r"^([\w-]+)==", left_out, re.MULTILINE))


def test_what_the_image_copies_is_let_through() -> None:
    copied = [part for line in (PROJECT / "Dockerfile").read_text(encoding="utf-8").splitlines()
              if line.startswith("COPY ") and "--from" not in line for part in line.split()[1:-1]]
    ignored = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{name}" for name in copied} == {line for line in ignored if line.startswith("!")}
    assert all((PROJECT / name).exists() for name in copied)


def test_the_dashboard_asks_for_figures_that_the_gateway_has() -> None:
    metrics = Metrics()
    known = {family.name for family in text_string_to_metric_families(
        metrics.exposition().decode())}
    asked = {name for panel in DASHBOARD["panels"] for target in panel["targets"]
             for name in re.findall(r"gateway_\w+", target["expr"])}
    assert {re.sub(r"_(total|bucket)$", "", name) for name in asked} <= known
    source = yaml.safe_load(
        (PROJECT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {
        source["datasources"][0]["uid"]}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_two_services_on_one_port_are_refused() -> None:
    port = free_port()
    one = Service("one", [], "127.0.0.1", port, "ONE")
    require_ports([one])
    with pytest.raises(PortError, match=rf"^one cannot listen on .*:{port} \(.*set ONE to another"):
        require_ports([one, one])
    with pytest.raises(PortError, match=r"no such port"):
        require_ports([Service("model", [], "127.0.0.1", 70_000, "MODEL_PORT")])
