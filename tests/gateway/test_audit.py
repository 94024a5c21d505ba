"""The audit log: written before anything is done, and enough to tell what was."""

import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from flask import Flask, g

from gateway import create_app
from gateway.audit import Audit, AuditError
from gateway.schemas import RankedCandidate, Score
from gateway.services import Services, audited
from gateway.upstream import MissingError
from tests.gateway.conftest import PAIR, bearer, parts, problem, register_version, with_users

VACANCY = {k: v for k, v in PAIR.items() if k != "cv_pt"}


def lines(app: Flask) -> list[dict]:
    path = parts(app).settings.state_dir / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def call(app: Flask, method: str, path: str, **options):
    return app.test_client().open(path, method=method, headers=bearer(app), **options)


@pytest.fixture
def unwritable(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setattr(parts(app).audit, "_path", tmp_path / "nowhere" / "audit.jsonl")
    return app


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/train"), ("GET", "/train"), ("DELETE", "/train/" + "0" * 32)],
)
def test_training_is_not_touched_when_the_audit_log_cannot_be_written(
    unwritable: Flask, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    touched: list[object] = []
    for name in ("start", "stop"):
        monkeypatch.setattr(parts(unwritable).trainings, name, lambda *a: touched.append(a))
    detail = problem(call(unwritable, method, path), 503, "unavailable")["detail"]
    assert "nothing is done" in detail
    assert touched == []


@pytest.fixture
def registry(training: Flask) -> Flask:
    """A gateway whose registry has one version, not in production."""
    with suppress(MissingError):
        parts(training).tracking._call(
            "DELETE", "registered-models/delete", json={"name": "jobmatch"})
    parts(training).tracking.post("registered-models/create", name="jobmatch")
    register_version(training, "passed", 0.75)
    return training


def test_promotion_leaves_no_tag_when_the_audit_log_cannot_be_written(
    registry: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts(registry).audit, "_path", tmp_path / "nowhere" / "audit.jsonl")
    problem(call(registry, "POST", "/models/1/promote"), 503, "unavailable")
    models = call(registry, "GET", "/models").get_json()
    assert models["aliases"] == {"staging": 1}
    assert "promoted_by" not in models["versions"][0]


def test_outcome_that_cannot_be_recorded_is_an_error_in_the_log_and_no_503(
    app: Flask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
    settle: Callable,
) -> None:  # fmt: skip
    logging.getLogger("gateway").handlers.clear()  # so that this test's stdout gets the lines
    app = with_users(create_app(settle()))

    def start(*_: object) -> str:
        monkeypatch.setattr(parts(app).audit, "_path", Path("/nowhere/audit.jsonl"))
        return "0" * 32

    monkeypatch.setattr(parts(app).trainings, "start", start)
    assert call(app, "POST", "/train").status_code == 202
    assert [line["action"] for line in lines(app)] == ["requested"]
    assert '"level": "error", "logger": "gateway.audit"' in capsys.readouterr().out


def test_what_nobody_expected_is_recorded_too(app: Flask) -> None:
    with app.test_request_context("/"):
        g.request_id = "0"
        with pytest.raises(ZeroDivisionError), audited("promotion", "requested", model_version=1):
            raise ZeroDivisionError
    assert [(line["action"], line.get("reason")) for line in lines(app)[-2:]] == [
        ("requested", None), ("failed", "ZeroDivisionError")]


def test_training_that_is_refused_has_both_lines(app: Flask) -> None:
    problem(call(app, "POST", "/train", json={"min_df": 3}), 502, "upstream-failed")
    asked, refused = lines(app)
    assert (asked["event"], asked["action"], asked["user"]) == ("training", "requested", "admin")
    assert asked["parameters"] == {"min_df": 3}
    assert (refused["action"], refused["reason"]) == ("refused", "upstream-failed")
    assert asked["request_id"] == refused["request_id"]


def test_promotion_that_is_refused_is_recorded(registry: Flask) -> None:
    register_version(registry, "failed", 0.55)
    problem(call(registry, "POST", "/models/2/promote"), 409, "conflict")
    problem(call(registry, "POST", "/models/77/promote"), 404, "not-found")
    facts = ("event", "user", "action", "reason", "model_version")
    assert [tuple(line[fact] for fact in facts) for line in lines(registry)] == [
        ("promotion", "admin", "refused", "conflict", 2),
        ("promotion", "admin", "refused", "not-found", 77),
    ]


class _Model:
    """Scores without a server: what is recorded is in question, not the scores."""

    def score(self, _: list[str], rows: list, __: dict) -> list[Score]:
        return [Score(probability=0.2, prediction="Não contratado", confidence=0.6, match=0.1 * n,
                      model_version=3) for n in range(len(rows))]

    def rank_pool(self, *_: object) -> list[RankedCandidate]:
        return [RankedCandidate(probability=0.2, prediction="Não contratado", confidence=0.6,
                                match=0.1, model_version=3, rank=1, codigo="p1")]


@pytest.fixture
def scored(app: Flask) -> Flask:
    services: Services = parts(app)
    object.__setattr__(services, "model", _Model())
    return app


def test_ranking_is_told_from_a_prediction(scored: Flask) -> None:
    candidates = [{"codigo": "31", "cv_pt": "a"}, {"codigo": "32", "cv_pt": "b"}]
    call(scored, "POST", "/predict", json=PAIR)
    call(scored, "POST", "/rank", json={**VACANCY, "top_k": 1, "candidates": candidates})
    call(scored, "POST", "/rank", json={**VACANCY, "top_k": 7})
    prediction, ranking, pool = lines(scored)
    assert prediction["route"] == "/predict"
    assert "top_k" not in prediction
    assert (ranking["route"], ranking["pool"], ranking["top_k"]) == ("/rank", False, 1)
    assert ranking["codes"] == ["31", "32"]
    assert len(ranking["inputs"]) == len(ranking["scores"]) == 2
    assert (pool["route"], pool["pool"], pool["top_k"]) == ("/rank", True, 7)
    assert pool["codes"] == ["p1"]


def test_login_refused_by_the_limit_is_recorded(settle: Callable) -> None:
    app = with_users(create_app(settle(login_limit="1/minute")))
    for name in ("recruiter", "recruiter", "minhasenha"):
        app.test_client().post("/login", json={"username": name, "password": "x"})
    assert [(line["reason"], line["name"]) for line in lines(app)] == [
        ("credentials", "recruiter"), ("limit", "recruiter"), ("limit", None),
    ]  # fmt: skip


def test_line_after_one_that_was_cut_off_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = Audit(tmp_path)
    audit.record("first", user=None, request_id="1")
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:20]))
        with pytest.raises(AuditError):
            audit.record("lost", user=None, request_id="2")
    audit.record("third", user=None, request_id="3")
    first, cut, third = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert (json.loads(first)["event"], json.loads(third)["event"]) == ("first", "third")
    assert len(cut) == 20
