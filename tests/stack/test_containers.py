"""The containers, for real: from nothing to a ranking, through every fault, down and up again.

The tests follow one another on one stack. At the end they print what the faults did to clients.
"""

import base64
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.conftest import PROJECT
from tests.gateway.conftest import PAIR

OURS = ("db", "mlflow", "model", "gateway")
VACANCY = {k: v for k, v in PAIR.items() if k != "cv_pt"}
ANAS = "correct horse battery staple"
QUICK = {"grid_search_cv": 3, "grid_search_c_values": "0.1,1", "latent_dimensions": 20}


def _engine() -> bool:
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=30,
                              check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


pytestmark = [
    pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(1800),
    pytest.mark.xdist_group("containers"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Compose:
    """A stack of containers made from a copy of the project, with secrets of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=PROJECT, check=True, capture_output=True, text=True).stdout
        for name in listed.splitlines():
            if (PROJECT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(PROJECT / name, folder / name)
        self.name = f"jobmatch-test-{free_port()}"
        self.gateway = f"127.0.0.1:{free_port()}"
        self.mlflow = f"127.0.0.1:{free_port()}"

    def configure(self) -> None:
        """As the documentation says, with ports of its own and limits that a test does not meet."""
        subprocess.run(["sh", "deploy/make-env.sh"], cwd=self.folder, check=True,
                       capture_output=True)
        with (self.folder / ".env").open("a", encoding="utf-8") as file:
            file.write(f"JOBMATCH_GATEWAY_ADDRESS={self.gateway}\n"
                       f"JOBMATCH_MLFLOW_ADDRESS={self.mlflow}\n"
                       "GATEWAY_LOGIN_LIMIT=1000/minute\nGATEWAY_REQUEST_LIMIT=1000000/minute\n")

    @property
    def variables(self) -> dict[str, str]:
        lines = (self.folder / ".env").read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    def __call__(self, *command: str, check: bool = True, seconds: float = 300) -> str:
        """`docker compose COMMAND`: what it prints."""
        done = subprocess.run(
            ["docker", "compose", "-p", self.name, *command], cwd=self.folder, timeout=seconds,
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0 or not check, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def up(self, *more: str) -> float:
        """Start, and wait until all of it is healthy: the seconds that took."""
        began = time.monotonic()
        try:
            self(*more, "up", "--detach", "--wait", "--no-build")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self('logs', '--tail=40', check=False)}") from None
        return time.monotonic() - began

    def inspect(self, service: str) -> dict[str, Any]:
        container = self("ps", "--all", "--quiet", service).strip()
        return dict(json.loads(docker("inspect", container))[0])

    def crash(self, service: str) -> None:
        """Kill the first process of a container from outside it.

        `docker kill` does not do: the engine takes it for a stop by hand and starts nothing again.
        """
        pid = self.inspect(service)["State"]["Pid"]
        docker("run", "--rm", "--pid=host", "--user=0", "jobmatch", "python", "-I", "-c",
               f"import os; os.kill({pid}, 9)")

    def is_healthy(self, service: str) -> bool:
        return self.inspect(service)["State"].get("Health", {}).get("Status") == "healthy"

    def log_in(self, username: str = "admin", password: str | None = None) -> dict[str, str]:
        password = password or self.variables["GATEWAY_ADMIN_PASSWORD"]
        answer = requests.post(f"http://{self.gateway}/login", timeout=30,
                               json={"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        return requests.request(method, f"http://{self.gateway}{path}", timeout=60, **more)

    def registry(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """MLflow's REST API, with its own login."""
        answer = requests.request(
            method, f"http://{self.mlflow}/api/2.0/mlflow/{path}", timeout=60,
            auth=("admin", self.variables["MLFLOW_TRACKING_PASSWORD"]),
            **({"params": body} if method == "GET" else {"json": body}))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def audit(self) -> list[str]:
        path = "/var/lib/jobmatch/gateway/audit.jsonl"
        return self("exec", "-T", "gateway", "cat", path).splitlines()


def docker(*command: str) -> str:
    return subprocess.run(["docker", *command], capture_output=True, text=True, check=True,
                          timeout=120).stdout


def wait_for(what: Callable[[], Any], seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = what()
        except requests.RequestException:
            found = None
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.5)


@dataclass
class Load:
    """What clients got that asked all the while."""

    sent: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Errors that the gateway answered, each a problem in its one shape."""
    repeated: int = 0
    """Requests to which nobody answered, which were sent again until somebody did."""
    lost: list[str] = field(default_factory=list)
    """Answers that make no sense, and requests that nobody answered within two minutes."""
    longest: float = 0.0
    versions: set[int] = field(default_factory=set)

    @property
    def answered_well(self) -> int:
        return self.sent - sum(self.failed.values()) - len(self.lost)


@contextmanager
def load(stack: Compose, headers: dict[str, str], clients: int = 2) -> Iterator[Load]:
    """Clients that predict, and look at the registry every tenth time."""
    found, over, lock = Load(), threading.Event(), threading.Lock()
    body = json.dumps(PAIR).encode()
    sent_headers = {**headers, "Content-Type": "application/json"}

    def once(connection: http.client.HTTPConnection, number: int) -> tuple[int, str, bytes]:
        if number % 10:
            connection.request("POST", "/predict", body, sent_headers)
        else:
            connection.request("GET", "/models", headers=sent_headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read()

    def client(number: int) -> None:
        host, _, port = stack.gateway.partition(":")
        # a new connection each time: one that is kept may be closed between two requests
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        while not over.is_set():
            number += 1
            began = time.monotonic()
            while True:
                try:
                    got = once(connection, number)
                    connection.close()
                    break
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    if time.monotonic() - began > 120:
                        got = (0, repr(error), b"")
                        break
                    with lock:
                        found.repeated += 1
                    time.sleep(0.2)
            with lock:
                found.sent += 1
                found.longest = max(found.longest, time.monotonic() - began)
                judge(*got)
            time.sleep(0.05)

    def judge(status: int, kind: str, content: bytes) -> None:
        try:
            answer = json.loads(content)
            if status == 200:
                found.versions |= {answer["model_version"]} if "model_version" in answer else set()
                return
            if kind == "application/problem+json" and answer["status"] == status:
                found.failed[f"{status} {answer['detail']}"] += 1
                return
        except (ValueError, KeyError, TypeError):
            pass
        found.lost.append(f"{status} {kind} {content[:80]!r}")

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join()


@dataclass
class Measured:
    """What is printed at the end."""

    seconds: dict[str, float] = field(default_factory=dict)
    mebibytes: dict[str, float] = field(default_factory=dict)
    faults: dict[str, Load] = field(default_factory=dict)

    def table(self) -> str:
        lines = [f"{name}: {seconds:.0f} s" for name, seconds in self.seconds.items()]
        if self.mebibytes:
            parts = ", ".join(f"{name} {size:.0f}" for name, size in self.mebibytes.items())
            lines.append(f"idle memory: {sum(self.mebibytes.values()):.0f} MiB ({parts})")
        lines += ["", "| fault | sent | failed, clean error | unanswered, repeated | lost | "
                  "longest, s |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {name} | {load.sent} | {sum(load.failed.values())} | {load.repeated} "
            f"| {len(load.lost)} | {load.longest:.1f} |" for name, load in self.faults.items()
        ]
        said = {error for load in self.faults.values() for error in load.failed}
        return "\n".join([*lines, *(f"  {error}" for error in sorted(said))])


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest) -> Iterator[Measured]:
    figures = Measured()
    yield figures
    terminal = request.config.pluginmanager.getplugin("terminalreporter")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        terminal.write_line("\n" + figures.table())


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    if not _engine():
        pytest.skip("no Docker engine answers")
    made = Compose(tmp_path_factory.mktemp("containers") / "jobmatch")
    yield made
    if (made.folder / ".env").exists():
        made("--profile", "*", "down", "--volumes", "--timeout", "10", check=False)


@pytest.fixture(scope="module")
def admin(stack: Compose) -> dict[str, str]:
    return stack.log_in()


def test_without_secrets_it_says_what_to_do(stack: Compose) -> None:
    said = stack("config", "--quiet", check=False)
    assert "run `sh deploy/make-env.sh` first" in said


def test_up_from_clean_says_that_nothing_is_trained(stack: Compose, measured: Measured) -> None:
    stack.configure()
    assert oct((stack.folder / ".env").stat().st_mode & 0o777) == "0o600"
    began = time.monotonic()
    stack("build", seconds=1500)
    measured.seconds["build"] = time.monotonic() - began
    measured.seconds["up, from clean to all healthy"] = stack.up()
    answer = stack.ask("GET", "/ready")
    assert (answer.status_code, answer.json()["detail"]) == (
        503, "no production model yet: POST /train first")


def test_the_screen_of_mlflow_wants_its_login(stack: Compose) -> None:
    for path in ("/", "/api/2.0/mlflow/registered-models/search", "/ajax-api/2.0/mlflow/runs/get"):
        assert requests.get(f"http://{stack.mlflow}{path}", timeout=30).status_code == 401
    wrong = requests.get(f"http://{stack.mlflow}/", auth=("admin", "password1234"), timeout=30)
    assert wrong.status_code == 401
    foreign = requests.get(
        f"http://{stack.mlflow}/api/2.0/mlflow/registered-models/search", timeout=30,
        headers={"Host": "evil.example"},
        auth=("admin", stack.variables["MLFLOW_TRACKING_PASSWORD"]))
    assert foreign.status_code == 403
    assert stack.registry("GET", "registered-models/search") == {}


def test_train_predict_rank(
    stack: Compose, admin: dict[str, str], measured: Measured
) -> None:
    began = time.monotonic()
    started = stack.ask("POST", "/train", json=QUICK, headers=admin)
    assert started.status_code == 202, started.text
    last = wait_for(lambda: _ended(stack, admin, started.json()["run_id"]), 600)
    assert last["state"] == "finished", stack("exec", "-T", "gateway", "sh", "-c",
                                              "tail -30 /var/lib/jobmatch/gateway/training/*")
    wait_for(lambda: stack.ask("GET", "/ready").json().get("model_version") == 1)
    measured.seconds["POST /train on the sample to /ready"] = time.monotonic() - began
    score = stack.ask("POST", "/predict", json=PAIR, headers=admin).json()
    assert score["model_version"] == 1
    ranked = stack.ask("POST", "/rank", json={**VACANCY, "top_k": 3}, headers=admin).json()
    assert [row["rank"] for row in ranked["ranking"]] == [1, 2, 3]


def _ended(stack: Compose, headers: dict[str, str], run_id: str) -> Any:
    answer = stack.ask("GET", f"/train/{run_id}", headers=headers).json()
    return answer if answer.get("state") not in ("running", "starting") else None


def test_another_version_takes_over_without_a_failed_request(
    stack: Compose, admin: dict[str, str], measured: Measured
) -> None:
    first = stack.registry("GET", "model-versions/get", name="jobmatch", version="1")
    source = first["model_version"]["source"]
    second = stack.registry(
        "POST", "model-versions/create", name="jobmatch", source=source,
        run_id=first["model_version"]["run_id"], model_id=source.rpartition("/")[2])
    assert second["model_version"]["version"] == "2"
    with load(stack, admin) as seen:
        time.sleep(3)
        stack.registry("POST", "registered-models/alias", name="jobmatch", alias="production",
                       version="2")
        wait_for(lambda: stack.ask("GET", "/ready").json() == {
            "state": "ready", "model_version": 2})
        time.sleep(3)
    measured.faults["another version promoted"] = seen
    assert (seen.failed, seen.repeated, seen.lost) == (Counter(), 0, [])
    assert seen.versions == {1, 2}


def test_an_account_for_later(stack: Compose) -> None:
    done = subprocess.run(
        ["docker", "compose", "-p", stack.name, "exec", "-T", "gateway", "flask", "--app",
         "gateway", "users", "add", "ana", "--role", "recruiter", "--password", "-"],
        cwd=stack.folder, input=f"{ANAS}\n", capture_output=True, text=True,
        timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    stack.log_in("ana", ANAS)


@pytest.mark.parametrize("service", OURS)
def test_a_killed_service_comes_back(
    stack: Compose, admin: dict[str, str], measured: Measured, service: str
) -> None:
    starts = stack.inspect(service)["RestartCount"]
    with load(stack, admin) as seen:
        time.sleep(3)
        stack.crash(service)
        began = time.monotonic()
        wait_for(lambda: stack.inspect(service)["RestartCount"] > starts)
        wait_for(lambda: stack.is_healthy(service))
        wait_for(lambda: stack.ask("GET", "/models", headers=admin).status_code == 200)
        wait_for(lambda: stack.ask("POST", "/predict", json=PAIR, headers=admin).status_code == 200)
        measured.seconds[f"{service} killed, until all is well"] = time.monotonic() - began
        time.sleep(3)
    measured.faults[f"{service} killed"] = seen
    assert seen.lost == []
    assert seen.versions == {2}
    if service != "gateway":  # nobody else can answer for it
        assert seen.repeated == 0
    if service == "db":
        assert _told(seen) <= MLFLOW_AWAY
    answer = stack.ask("GET", "/ready").json()
    assert answer == {"state": "ready", "model_version": 2}


def test_postgresql_stopped_for_30_seconds(
    stack: Compose, admin: dict[str, str], measured: Measured
) -> None:
    with load(stack, admin) as seen:
        time.sleep(16)  # the users that are known are to be asked for again while it is away
        stack("stop", "db")
        time.sleep(30)
        stack("start", "db")
        wait_for(lambda: stack.ask("GET", "/models", headers=admin).status_code == 200)
    measured.faults["PostgreSQL stopped for 30 s"] = seen
    _predictions_went_on(seen)


def test_postgresql_out_of_reach_for_30_seconds(
    stack: Compose, admin: dict[str, str], measured: Measured
) -> None:
    """Nothing refuses the connections: what is sent to it just vanishes."""
    network, container = f"{stack.name}_default", stack("ps", "--quiet", "db").strip()
    with load(stack, admin) as seen:
        time.sleep(16)
        docker("network", "disconnect", network, container)
        time.sleep(30)
        docker("network", "connect", "--alias", "db", network, container)
        wait_for(lambda: stack.ask("GET", "/models", headers=admin).status_code == 200)
    measured.faults["PostgreSQL out of reach for 30 s"] = seen
    _predictions_went_on(seen)


MLFLOW_AWAY = {"the MLflow server failed", "the MLflow server took too long",
               "the MLflow server does not answer"}
"""MLflow's registry is in the same database: looking at it fails, predicting does not."""


def _told(seen: Load) -> set[str]:
    return {error.partition(" ")[2] for error in seen.failed}


def _predictions_went_on(seen: Load) -> None:
    assert seen.lost == []
    assert seen.repeated == 0
    assert _told(seen) <= MLFLOW_AWAY
    assert seen.versions == {2}
    # two clients, a look at the registry every tenth time, which may take ten seconds
    assert seen.answered_well > 100
    assert seen.longest < 20


def test_down_and_up_keeps_everything(stack: Compose, admin: dict[str, str],
                                      measured: Measured) -> None:
    wait_for(lambda: all(stack.is_healthy(service) for service in OURS))
    before, audit = stack.ask("GET", "/models", headers=admin).json(), stack.audit()
    began = time.monotonic()
    stack("down")
    measured.seconds["down"] = time.monotonic() - began
    took = measured.seconds["up again, to all healthy"] = stack.up()
    assert took < 60
    wait_for(lambda: stack.ask("GET", "/ready").json().get("model_version") == 2)
    again = stack.log_in("ana", ANAS)
    after = stack.ask("GET", "/models", headers=again).json()
    assert after["aliases"] == before["aliases"] == {"staging": 1, "production": 2}
    assert [v["version"] for v in after["versions"]] == [v["version"] for v in before["versions"]]
    assert stack.audit()[:len(audit)] == audit
    assert stack.ask("POST", "/predict", json=PAIR, headers=again).json()["model_version"] == 2


def test_the_documented_backup_brings_everything_back(
    stack: Compose, admin: dict[str, str]
) -> None:
    page = (PROJECT / "docs" / "deployment.md").read_text(encoding="utf-8")
    keep, bring_back, *_ = re.findall(
        r"^```bash\n(.*?)^```", page.partition("## Looking after it")[2], re.MULTILINE | re.DOTALL)

    def versions(headers: dict[str, str]) -> list[dict[str, Any]]:
        listed = stack.ask("GET", "/models", headers=headers).json()["versions"]
        return [{name: value for name, value in version.items() if name != "serving_since"}
                for version in listed]

    def run(commands: str) -> None:
        subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", commands], cwd=stack.folder, check=True,
            env=os.environ | {"COMPOSE_PROJECT_NAME": stack.name}, timeout=300)

    before, audit = versions(admin), stack.audit()
    run(keep)
    stack("down", "--volumes")
    run(bring_back)
    wait_for(lambda: stack.ask("GET", "/ready").json().get("model_version") == 2)
    again = stack.log_in("ana", ANAS)
    assert versions(again) == before
    assert stack.audit()[:len(audit)] == audit
    assert stack.ask("POST", "/predict", json=PAIR, headers=again).json()["model_version"] == 2


def test_idle_it_takes_less_than_two_gigabytes(stack: Compose, measured: Measured) -> None:
    time.sleep(10)
    for service in OURS:
        name = stack.inspect(service)["Name"].lstrip("/")
        used = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", name).split(" / ")[0]
        factor = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}[used[-3:]]
        measured.mebibytes[service] = float(used[:-3]) * factor
    assert sum(measured.mebibytes.values()) < 2048, measured.mebibytes


def test_two_ports_are_published_and_on_this_machine_only(stack: Compose) -> None:
    published = {
        service: {inside: [(b["HostIp"], b["HostPort"]) for b in bound] for inside, bound in
                  stack.inspect(service)["NetworkSettings"]["Ports"].items() if bound}
        for service in OURS}
    expected = {name: {f"{inside}/tcp": [("127.0.0.1", address.partition(":")[2])]}
                for name, inside, address in (("mlflow", 5001, stack.mlflow),
                                              ("gateway", 5000, stack.gateway))}
    assert published == {"db": {}, "model": {}, **expected}


@pytest.mark.parametrize("service", OURS)
def test_a_container_has_few_rights(stack: Compose, service: str) -> None:
    found = stack.inspect(service)
    limits = found["HostConfig"]
    assert limits["ReadonlyRootfs"]
    assert limits["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in limits["SecurityOpt"]
    assert limits["Memory"] > 0
    assert limits["RestartPolicy"]["Name"] == "unless-stopped"
    users = docker("top", found["Id"], "-eo", "pid,uid,args").splitlines()[1:]
    assert users
    assert [line for line in users if line.split()[1] == "0"] == []


def test_no_secret_is_in_the_image_or_on_a_command_line(stack: Compose) -> None:
    secrets = [value.rpartition(":")[2] for name, value in stack.variables.items()
               if name.endswith(("PASSWORD", "TOKEN", "KEYS", "SECRET_KEY"))]
    assert len(secrets) == 9
    shown = docker("history", "--no-trunc", "jobmatch") + docker("inspect", "jobmatch")
    shown += "".join(docker("top", stack.inspect(service)["Id"], "-eo", "pid,args")
                     for service in OURS)
    shown += stack("logs")
    assert [secret for secret in secrets if secret in shown] == []
    inside = docker("run", "--rm", "jobmatch", "find", "/app", "-name", ".*", "-type", "f")
    assert inside.split() == []


def test_redis_shares_the_limits(stack: Compose) -> None:
    _require_image(stack, "redis")
    with (stack.folder / ".env").open("a", encoding="utf-8") as file:
        file.write("GATEWAY_LIMITS_URL=redis://redis:6379/0\n")
    stack.up("--profile", "redis")
    headers = stack.log_in()
    assert stack.ask("POST", "/predict", json=PAIR, headers=headers).status_code == 200
    keys = stack("exec", "-T", "redis", "redis-cli", "keys", "*")
    assert "user:admin" in keys


def test_every_panel_of_the_dashboard_has_figures(stack: Compose) -> None:
    _require_image(stack, "prometheus")
    stack.up("--profile", "prometheus")
    headers = stack.log_in()
    stack.ask("POST", "/login", json={"username": "nobody", "password": "a wrong password"})
    deadline = time.monotonic() + 150
    panels = json.loads((PROJECT / "deploy/grafana/dashboards/jobmatch.json").read_text())["panels"]
    empty = {(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]}
    while empty and time.monotonic() < deadline:
        stack.ask("POST", "/predict", json=PAIR, headers=headers)
        stack.ask("GET", "/nowhere", headers=headers)
        empty = {query for query in empty if not _figures(stack, query[1])}
        time.sleep(2)
    assert empty == set()


def _figures(stack: Compose, expression: str) -> Any:
    """What Prometheus answers to a panel's query."""
    for variable, value in (("$__rate_interval", "1m"), ("$__range", "10m")):
        expression = expression.replace(variable, value)
    code = ("import sys, urllib.parse, urllib.request as r\n"
            "print(r.urlopen('http://prometheus:9090/api/v1/query?' + "
            "urllib.parse.urlencode({'query': sys.argv[1]}), timeout=20).read().decode())")
    answer = json.loads(stack("exec", "-T", "gateway", "python", "-I", "-c", code, expression))
    assert answer["status"] == "success", answer
    return answer["data"]["result"]


def _require_image(stack: Compose, service: str) -> None:
    image = yaml.safe_load((stack.folder / "docker-compose.yaml").read_text())[
        "services"][service]["image"]
    there = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False)
    if there.returncode and subprocess.run(
            ["docker", "pull", image], capture_output=True, check=False, timeout=300).returncode:
        pytest.skip(f"{image} cannot be had")


def test_basic_login_of_a_stranger_is_refused_by_the_gateway(stack: Compose) -> None:
    """The login of MLflow's screen is not one of the gateway."""
    password = stack.variables["MLFLOW_TRACKING_PASSWORD"]
    basic = base64.b64encode(f"admin:{password}".encode()).decode()
    answer = stack.ask("GET", "/models", headers={"Authorization": f"Basic {basic}"})
    assert answer.status_code == 401
