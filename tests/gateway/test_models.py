"""/models against a real registry."""

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial

import pytest
import requests
from flask import Flask

from gateway import create_app
from gateway.upstream import MissingError
from tests.gateway.conftest import bearer, parts, problem, register_version, with_users


@pytest.fixture
def app(training: Flask) -> Flask:
    """A gateway whose registry is empty."""
    with suppress(MissingError):
        parts(training).tracking._call(
            "DELETE", "registered-models/delete", json={"name": "jobmatch"}
        )
    return training


def get(app: Flask, user: str = "recruiter"):
    return app.test_client().get("/models", headers=bearer(app, user))


def promote(app: Flask, version: object, user: str = "admin", **options):
    return app.test_client().post(
        f"/models/{version}/promote", headers=bearer(app, user), **options
    )


def test_registry_from_empty_to_promoted(app: Flask, tracking_url: str) -> None:
    assert get(app).get_json() == {"name": "jobmatch", "aliases": {}, "versions": []}
    problem(promote(app, 1), 404, "not-found")

    parts(app).tracking.post("registered-models/create", name="jobmatch")
    assert get(app).get_json()["versions"] == []
    register_version(app, "passed", 0.75)
    register_version(app, "failed", 0.55)

    body = get(app).get_json()
    assert body["aliases"] == {"staging": 2}
    assert [v["version"] for v in body["versions"]] == [2, 1]
    newest = body["versions"][0]
    assert newest["aliases"] == ["staging"]
    assert newest["gate"] == "failed"
    assert newest["metrics"] == {"hire_auc": 0.55}

    first = promote(app, 1)
    assert first.status_code == 200, first.text
    assert first.get_json()["promoted_by"] == "admin"
    assert get(app).get_json()["aliases"] == {"staging": 2, "production": 1}

    detail = problem(promote(app, 2), 409, "conflict")["detail"]
    assert "force" in detail
    assert get(app).get_json()["aliases"]["production"] == 1
    parts(app).tracking.post(  # version 2 came back by an undo, once
        "model-versions/set-tag", name="jobmatch", version="2", key="undo", value="true")
    forced = promote(app, 2, json={"force": True}).get_json()
    assert forced["forced"] is True
    assert forced["replaced_version"] == 1
    assert get(app).get_json()["aliases"]["production"] == 2

    # what the registry's screen shows, and what `mlflow run . -e promote` can undo
    shown = requests.get(
        tracking_url + "/api/2.0/mlflow/model-versions/get",
        params={"name": "jobmatch", "version": "2"}, timeout=10,
    ).json()["model_version"]  # fmt: skip
    tags = {tag["key"]: tag["value"] for tag in shown["tags"]}
    assert tags["promoted_by"] == "admin"
    assert tags["replaced_version"] == "1"
    assert tags["forced"] == "true"
    assert tags["undo"] == "false"
    assert datetime.fromisoformat(tags["promoted_at"]).tzinfo is not None

    # of what is in production already the answer is what is recorded, also to who asks again
    with_users(app)
    parts(app).users.set_role("trainer", "admin")
    again = promote(app, 2, "trainer")
    assert again.status_code == 200
    assert again.get_json() == forced
    assert get(app).get_json()["versions"][0]["forced"] == "true"
    lines = (parts(app).settings.state_dir / "audit.jsonl").read_text().splitlines()
    actions = [json.loads(line)["action"] for line in lines]
    assert actions == ["refused", "requested", "promoted"] * 2


def test_promotions_at_once_follow_one_another(app: Flask) -> None:
    parts(app).tracking.post("registered-models/create", name="jobmatch")
    for _ in range(3):
        register_version(app, "passed", 0.75)
    assert promote(app, 1).status_code == 200
    with ThreadPoolExecutor(2) as pool:
        two, three = (answer.get_json() for answer in pool.map(partial(promote, app), (2, 3)))
    last = get(app).get_json()["aliases"]["production"]
    first, second = (two, three) if last == 3 else (three, two)
    assert (first["replaced_version"], second["replaced_version"]) == (1, first["version"])


def test_production_that_nobody_recorded_is_answered_as_such(app: Flask) -> None:
    parts(app).tracking.post("registered-models/create", name="jobmatch")
    register_version(app, "passed", 0.75)
    parts(app).tracking.post(
        "registered-models/alias", name="jobmatch", alias="production", version="1"
    )
    assert promote(app, 1).get_json() == {
        "version": 1, "replaced_version": None, "promoted_by": None, "promoted_at": None,
        "forced": False,
    }  # fmt: skip


@pytest.mark.parametrize("version", [0, -1, "abc", "1.5", "99999999999", "..", "previous"])
def test_version_that_is_none_is_refused(app: Flask, version: object) -> None:
    answer = promote(app, version)
    assert answer.status_code in (404, 422)


def test_unknown_version_is_404(app: Flask) -> None:
    problem(promote(app, 4711), 404, "not-found")


@pytest.mark.parametrize("body", [{"force": "true"}, {"force": 1}, {"sure": True}])
def test_bad_promotion_is_422(app: Flask, body: dict) -> None:
    problem(promote(app, 1, json=body), 422, "invalid-field")


def test_mlflow_server_that_is_not_there_is_502(settle: Callable) -> None:
    app = with_users(create_app(settle()))
    problem(get(app), 502, "upstream-failed")
    problem(promote(app, 1), 502, "upstream-failed")


def test_mlflow_server_that_does_not_answer_is_504(settle: Callable) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        app = with_users(create_app(settle(tracking_uri=url, tracking_timeout_seconds=0.3)))
        problem(get(app), 504, "upstream-timeout")
        problem(promote(app, 1), 504, "upstream-timeout")
