"""/openapi.json and /docs, and schemathesis over all of it."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway import create_app
from tests.gateway import servers
from tests.gateway.conftest import parts, register_version
from tests.gateway.servers import KEY, PASSWORD, ServedModel
from tests.gateway.test_processes import log_in


def test_description_covers_every_address(app: Flask, client: FlaskClient) -> None:
    description = client.get("/openapi.json").get_json()
    assert description["openapi"] == "3.1.0"
    described = {
        (method.upper(), path)
        for path, methods in description["paths"].items() for method in methods
    }  # fmt: skip
    expected = {
        (method, re.sub(r"<(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith(("/docs", "/openapi"))
    }
    assert described == expected


def test_what_needs_a_token_says_so(app: Flask, client: FlaskClient) -> None:
    description = client.get("/openapi.json").get_json()
    adapter = app.url_map.bind("localhost")
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            concrete = path.replace("{run_id}", "0" * 32).replace("{version}", "1")
            endpoint, _ = adapter.match(concrete, method=method.upper())
            public = app.view_functions[endpoint].access == "public"
            assert ("security" in operation) != public, path
            assert public or {"401", "403"} <= set(operation["responses"]), path
            for status, response in operation["responses"].items():
                if status[0] in "45":
                    assert list(response["content"]) == ["application/problem+json"]


def test_what_is_described_is_what_is_answered(app: Flask, client: FlaskClient) -> None:
    description = client.get("/openapi.json").get_json()
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            responses = operation["responses"]
            assert ("408" in responses) == ("requestBody" in operation), (method, path)
            assert ("429" in responses) == (path != "/health"), path
            for status, response in responses.items():
                assert "X-Request-ID" in response["headers"], (method, path, status)
                if status in ("429", "503"):
                    assert "Retry-After" in response["headers"]
    assert "409" in description["paths"]["/rank"]["post"]["responses"]
    for method in ("get", "post"):
        assert "Location" in description["paths"]["/train"][method]["responses"]["409"]["headers"]


def test_metrics_need_their_token_where_there_is_one(settle: Callable) -> None:
    client = create_app(settle(metrics_token="a long metrics token")).test_client()
    description = client.get("/openapi.json").get_json()
    assert description["paths"]["/metrics"]["get"]["security"] == [{"metrics": []}]
    assert description["components"]["securitySchemes"]["metrics"]["scheme"] == "bearer"
    assert client.get("/metrics").status_code == 401
    headers = {"Authorization": "Bearer a long metrics token"}
    assert client.get("/metrics", headers=headers).status_code == 200


def test_page_needs_nothing_from_elsewhere(client: FlaskClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert client.get(address).status_code == 200, address
    assert b"/openapi.json" in client.get("/docs/assets/docs.js").data


@pytest.mark.slow
def test_schemathesis_finds_nothing(
    tmp_path: Path, training: Flask, tracking_url: str, model: ServedModel, project: Path
) -> None:
    tracking = parts(training).tracking
    if not tracking.get("registered-models/search").get("registered_models"):
        tracking.post("registered-models/create", name="jobmatch")
    register_version(training, "passed", 0.8)
    with servers.gateway(
        tmp_path, MLFLOW_TRACKING_URI=tracking_url, GATEWAY_MODEL_URL=model.url,
        GATEWAY_PROJECT_DIR=str(project), GATEWAY_ADMIN_PASSWORD=PASSWORD, GATEWAY_JWT_KEYS=KEY,
        GATEWAY_LOGIN_LIMIT="100000/minute", GATEWAY_REQUEST_LIMIT="1000000/minute",
        GATEWAY_TOKEN_MINUTES="60",
    ) as url:  # fmt: skip
        ended = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                "--config-file", str(Path(__file__).with_name("schemathesis.toml")),
                "run", url + "/openapi.json", "--max-examples", "50", "--seed", "1",
                "--header", "Authorization: " + log_in(url)["Authorization"],
                "--request-timeout", "30", "--warnings", "off",
            ],
            cwd=tmp_path, env=servers.environment(), capture_output=True, text=True,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-1000:]
    assert '"level": "error"' not in (tmp_path / "gateway.log").read_text()
