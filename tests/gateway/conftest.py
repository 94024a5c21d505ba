"""Fixtures: real servers once a session, an application with users in it for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway import create_app
from gateway.services import EXTENSION, Services
from gateway.settings import Settings
from gateway.tokens import Claims
from tests.gateway import servers
from tests.gateway.doubles.spoiled_model import SpoiledModel, spoiled_model
from tests.gateway.servers import KEY, PASSWORD, ServedModel

PAIR = {
    "titulo_vaga": "java",
    "principais_atividades": "spring",
    "competencia_tecnicas_e_comportamentais": "sql",
    "cv_pt": "java spring",
}


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With xdist's `--dist loadgroup`, one worker has the servers of all these tests, but for those
    of trainings: they take a third of the time and need no served model."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            group = "trainings" if item.path.name.startswith("test_training") else "gateway"
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def tracking_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(scope="session")
def model(
    tmp_path_factory: pytest.TempPathFactory, small_data: Path
) -> Iterator[ServedModel]:
    """The project's model server with a version that was trained for real.

    It follows a registry of its own: the tests of /models empty that of `tracking_url`. Version 2
    is in production, so that a 1 in an answer is not this version by accident.
    """
    directory = tmp_path_factory.mktemp("model")
    with servers.mlflow_server(directory) as registry:
        servers.train(directory, registry, small_data)
        version = servers.register_again(registry, 1)
        servers.put_into_production(registry, version)
        with servers.model_server(directory, registry, version) as served:
            served.wait_for(version)
            yield served


@pytest.fixture
def spoiled(model: ServedModel) -> Iterator[SpoiledModel]:
    """A double: `model` through a proxy that spoils its answers as a test says."""
    with spoiled_model(model.url) as spoiled:
        yield spoiled


@pytest.fixture(scope="session")
def loaded(model: ServedModel) -> Callable[..., list[dict]]:
    """What the version in production answers where MLflow loads it: `loaded(rows, reasons=3)`."""
    import mlflow
    import pandas as pd

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", model.tracking_url)
        pyfunc = mlflow.pyfunc.load_model(f"models:/jobmatch/{model.version}")

    def answer(rows: list[dict[str, str]], **params: float) -> list[dict]:
        return pyfunc.predict(pd.DataFrame(rows), params).to_dict("records")

    return answer


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return servers.training_project(tmp_path_factory.mktemp("project") / "double")


Settle = Callable[..., Settings]


@pytest.fixture
def settle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settle:
    """Settings for a gateway with nothing behind it, except where a test says otherwise."""
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.delenv(variable, raising=False)

    def settle(**changes: object) -> Settings:
        usual = {
            "state_dir": tmp_path / "state", "jwt_keys": KEY, "admin_password": PASSWORD,
            "login_limit": "1000/minute", "request_limit": "100000/minute",
            "model_url": "http://127.0.0.1:9", "tracking_uri": "http://127.0.0.1:9",
        }  # fmt: skip
        return Settings(_env_file=None, **(usual | changes))

    return settle


@pytest.fixture
def app(settle: Settle) -> Flask:
    """An application with a recruiter, a trainer and an admin, and no server behind it."""
    return with_users(create_app(settle()))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def scoring(settle: Settle, model: ServedModel) -> Flask:
    """An application with the real model server behind it."""
    return with_users(create_app(settle(model_url=model.url)))


@pytest.fixture
def spoiled_scoring(settle: Settle, spoiled: SpoiledModel) -> Flask:
    """An application with `spoiled` behind it."""
    return with_users(create_app(settle(model_url=spoiled.url)))


@pytest.fixture
def training(settle: Settle, tracking_url: str, project: Path) -> Flask:
    """An application with the real MLflow server behind it, and a project to train."""
    return with_users(create_app(settle(tracking_uri=tracking_url, project_dir=project)))


def with_users(app: Flask) -> Flask:
    users = parts(app).users
    for name in ("recruiter", "trainer"):
        if not users.exists(name):
            users.add(name, PASSWORD, name)  # type: ignore[arg-type]
    return app


def parts(app: Flask) -> Services:
    return app.extensions[EXTENSION]


def bearer(app: Flask, username: str = "admin") -> dict[str, str]:
    """The headers of a user that is logged in."""
    user = parts(app).users.current(username)
    assert user
    token = parts(app).tokens.encode(Claims(user.username, user.role, user.generation))
    return {"Authorization": f"Bearer {token}"}


def agrees(given: Any, expected: Any) -> None:
    """Equal in every key, text and order, and to 1e-9 in every number."""
    if isinstance(expected, dict):
        assert given.keys() == expected.keys()
        for key, value in expected.items():
            agrees(given[key], value)
    elif isinstance(expected, list):
        assert len(given) == len(expected)
        for one, other in zip(given, expected, strict=True):
            agrees(one, other)
    elif isinstance(expected, float):
        assert given == pytest.approx(expected, rel=0, abs=1e-9)
    else:
        assert given == expected


def problem(response, status: int, kind: str) -> dict:
    """The body of an error answer, after checking that it has the one shape."""
    assert response.status_code == status, response.get_data(as_text=True)
    assert response.content_type == "application/problem+json"
    body = response.get_json()
    assert {"type", "title", "status", "detail", "request_id"} <= set(body)
    assert body["type"] == f"urn:jobmatch:problem:{kind}"
    assert body["status"] == status
    assert body["request_id"] == response.headers["X-Request-ID"]
    return body


def register_version(app: Flask, gate: str, auc: float) -> str:
    """A version in the registry as a training leaves it, with the alias staging."""
    tracking = parts(app).tracking
    run = tracking.post("runs/create", experiment_id=tracking.experiment_id("jobmatch"),
                        start_time=1)["run"]["info"]["run_id"]
    for key, value in (("hire_auc", auc), ("seconds_parsing", 3.0)):
        tracking.post("runs/log-metric", run_id=run, key=key, value=value, timestamp=1)
    made = tracking.post(
        "model-versions/create", name="jobmatch", source=f"mlflow-artifacts:/1/{run}/artifacts",
        run_id=run, tags=[{"key": "gate", "value": gate}],
    )["model_version"]  # fmt: skip
    tracking.post("registered-models/alias", name="jobmatch", alias="staging",
                  version=made["version"])
    return made["version"]
