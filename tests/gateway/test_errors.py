"""The one shape of errors, and hostile bodies and headers."""

import json
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway.errors import TITLES
from gateway.schemas import Alive
from tests.gateway.conftest import PAIR, bearer, parts, problem
from tests.gateway.doubles.spoiled_model import SpoiledModel
from tests.gateway.servers import PASSWORD, ServedModel


def post(app: Flask, body: bytes | str, content_type: str = "application/json"):
    return app.test_client().post(
        "/predict", data=body, content_type=content_type, headers=bearer(app)
    )


def test_unknown_address_is_404(client: FlaskClient) -> None:
    problem(client.get("/nowhere"), 404, "not-found")


@pytest.mark.parametrize("path", ["/../etc/passwd", "/docs/assets/../../app.py",
                                  "/docs/assets/..%2f..%2fapp.py", "/docs/assets//etc/passwd"])
def test_path_traversal_is_404(client: FlaskClient, path: str) -> None:
    problem(client.get(path), 404, "not-found")


@pytest.mark.parametrize(("method", "path"), [("GET", "/login"), ("PUT", "/predict"),
                                              ("DELETE", "/train"), ("TRACE", "/health")])
def test_wrong_method_is_405_with_the_right_ones(
    client: FlaskClient, method: str, path: str
) -> None:
    answer = client.open(path, method=method)
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded",
                                          "multipart/form-data", "application/xml", ""])
def test_body_of_another_type_is_415(app: Flask, content_type: str) -> None:
    problem(post(app, json.dumps(PAIR), content_type), 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"{'a': 1}", b"\xff\xfe{}", b'{"cv_pt": "\xff"}', b"NaN", b'{"cv_pt": NaN}',
        b'{"cv_pt": Infinity}', b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b'{"cv_pt": "a\nb"}', b"\x00",
        b'{"top_k": ' + b"9" * 100_000 + b"}", b"{}{}",
    ],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_broken_json_is_400(app: Flask, body: bytes) -> None:
    assert "invalid-json" in problem(post(app, body), 400, "invalid-json")["type"]


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 4000, "1.5", "-0", "1e5"])
def test_huge_or_odd_numbers_are_4xx(app: Flask, number: str) -> None:
    body = json.dumps({**PAIR, "cv_pt": None}).replace("null", number)
    assert post(app, body).status_code in (400, 422)


def test_body_over_2_mib_is_413(app: Flask) -> None:
    problem(post(app, b'{"cv_pt": "' + b"a" * 2 * 1024 * 1024 + b'"}'), 413, "too-large")


def test_oversized_body_of_a_stranger_is_401_before_it_is_read(client: FlaskClient) -> None:
    answer = client.post("/predict", data=b"a" * 5_000_000, content_type="application/json")
    problem(answer, 401, "unauthenticated")


def test_request_id_is_the_callers_when_harmless(client: FlaskClient) -> None:
    answer = client.get("/health", headers={"X-Request-ID": "trace-1.a_B"})
    assert answer.headers["X-Request-ID"] == "trace-1.a_B"


@pytest.mark.parametrize("given", ["a b", "a" * 65, "ação", '{"x":1}', "<script>", "a;b", "%0d%0a"])
def test_harmful_request_id_is_replaced(client: FlaskClient, given: str) -> None:
    answer = client.get("/health", headers={"X-Request-ID": given.encode().decode("latin-1")})
    assert answer.headers["X-Request-ID"] != given
    assert len(answer.headers["X-Request-ID"]) == 32


def test_field_names_that_the_client_made_up_are_cut_and_cleaned(app: Flask) -> None:
    name = "minha vida <b>" + "a" * 500
    answer = post(app, json.dumps({**PAIR, name: 1}))
    (error,) = problem(answer, 422, "invalid-field")["errors"]
    assert "<" not in error["field"]
    assert len(error["field"]) <= 40


@pytest.mark.parametrize("name", ["one", "many"])
def test_unknown_field_is_named_whatever_it_is_called(app: Flask, name: str) -> None:
    single = problem(post(app, json.dumps({**PAIR, name: 1})), 422, "invalid-field")
    assert [error["field"] for error in single["errors"]] == [name]
    listed = problem(post(app, json.dumps([PAIR, {**PAIR, name: 1}])), 422, "invalid-field")
    assert [error["field"] for error in listed["errors"]] == [f"[1].{name}"]
    login = app.test_client().post("/login", json={"username": "a", "password": "b", name: 1})
    assert problem(login, 422, "invalid-field")["errors"][0]["field"] == name


def test_value_of_our_own_that_is_not_valid_is_500(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a fault that cannot be made from outside
    monkeypatch.setattr(parts(app).model, "state", lambda: Alive.model_validate({"status": 5}))
    problem(app.test_client().get("/ready"), 500, "internal")


def test_values_are_never_echoed(app: Flask) -> None:
    answer = post(app, json.dumps({**PAIR, "cv_pt": {"segredo": "meu cpf"}}))
    problem(answer, 422, "invalid-field")
    assert "segredo" not in answer.text
    assert "cpf" not in answer.text


def test_ten_thousand_faults_are_listed_shortly(app: Flask) -> None:
    answer = post(app, json.dumps([{}] * 1000))
    assert len(problem(answer, 422, "invalid-field")["errors"]) == 20


def test_fault_of_our_own_is_500_without_a_word_of_it(
    app: Flask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    # a fault that cannot be made from outside
    def broken(*_: object) -> None:
        raise RuntimeError("meu cpf e 123 em /srv/jobmatch")

    monkeypatch.setattr(parts(app).users, "authenticate", broken)
    answer = app.test_client().post("/login", json={"username": "a", "password": PASSWORD})
    body = problem(answer, 500, "internal")
    assert "cpf" not in answer.text
    assert "/srv" not in answer.text
    assert body["request_id"]


def test_users_database_that_does_not_answer_is_503(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import create_engine

    headers = bearer(app, "recruiter")
    users = parts(app).users
    monkeypatch.setattr(users, "_engine", create_engine("sqlite:////nonexistent/users.db"))
    client = app.test_client()
    answer = client.post("/login", json={"username": "admin", "password": PASSWORD})
    problem(answer, 503, "unavailable")
    assert answer.headers["Retry-After"]
    # who was seen a moment ago is let in: the model server is what is missing here
    assert client.post("/predict", json=PAIR, headers=headers).status_code == 502
    users._seen.clear()
    problem(client.post("/predict", json=PAIR, headers=headers), 503, "unavailable")


def test_audit_log_that_cannot_be_written_stops_the_answer(
    scoring: Flask, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts(scoring).audit, "_path", tmp_path / "nowhere" / "audit.jsonl")
    answer = post(scoring, json.dumps(PAIR))
    problem(answer, 503, "unavailable")
    assert "probability" not in answer.text


def test_every_kind_of_problem_has_an_error_status() -> None:
    assert all(400 <= status < 600 for status, _ in TITLES.values())


def test_answers_carry_defensive_headers(client: FlaskClient) -> None:
    for path in ("/health", "/nowhere", "/docs", "/openapi.json"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_logs_hold_no_text_token_or_password(
    settle: Callable, model: ServedModel, spoiled: SpoiledModel, capsys: pytest.CaptureFixture
) -> None:
    import logging

    from gateway import create_app
    from tests.gateway.conftest import with_users

    logging.getLogger("gateway").handlers.clear()  # so that this test's stdout gets the lines
    app = with_users(create_app(settle(model_url=spoiled.url)))
    client = app.test_client()
    token = client.post(
        "/login", json={"username": "recruiter", "password": PASSWORD}
    ).get_json()["access_token"]
    headers = {"Authorization": f"Bearer {token}", "X-Request-ID": "the-id"}
    client.post("/login", json={"username": "minhasenha123", "password": "outrasenha456"})
    client.post("/predict?reasons=3", json=PAIR, headers=headers)
    client.post("/predict", json={**PAIR, "cv_pt": "texto-intimo"}, headers=headers)
    spoiled.answer("/invocations", 500, b'{"error":"it broke on texto-intimo"}')
    client.post("/predict", json={**PAIR, "cv_pt": "texto-intimo"}, headers=headers)
    client.post("/predict?texto-intimo=1", json={"texto-intimo": 1}, headers=headers)
    written = capsys.readouterr().out
    audit = (parts(app).settings.state_dir / "audit.jsonl").read_text()
    secrets = (PASSWORD, token, "texto-intimo", "spring", "minhasenha123", "outrasenha456")
    for secret in secrets:
        assert secret not in written
        assert secret not in audit
    lines = [json.loads(line) for line in written.splitlines()]
    scored = next(line for line in lines if line.get("route") == "/predict")
    assert scored["id"] == "the-id"
    assert scored["user"] == "recruiter"
    assert scored["status"] == 200
    assert scored["model_version"] == model.version
    assert scored["ms"] > 0
    assert [line["status"] for line in lines if line.get("route") == "/predict"] == [
        200, 200, 502, 422,
    ]  # fmt: skip
    events = [json.loads(line) for line in audit.splitlines()]
    assert [e["event"] for e in events] == ["login", "login", "prediction", "prediction"]
    assert events[2]["request_id"] == "the-id"
