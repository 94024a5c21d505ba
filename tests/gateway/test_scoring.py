"""POST /predict and POST /rank against a real model server."""

import json
from collections.abc import Callable

import pytest
from flask import Flask

from gateway import create_app
from tests.gateway.conftest import PAIR, bearer, parts, problem, with_users
from tests.gateway.servers import ServedModel

VACANCY = {k: v for k, v in PAIR.items() if k != "cv_pt"}


def post(app: Flask, path: str, body: object, user: str = "recruiter"):
    return app.test_client().post(path, json=body, headers=bearer(app, user))


def test_one_object_gives_one_score(scoring: Flask) -> None:
    answer = post(scoring, "/predict", PAIR)
    assert answer.status_code == 200, answer.text
    body = answer.get_json()
    assert set(body) == {"probability", "prediction", "confidence", "match", "model_version"}
    assert body["match"] == pytest.approx(2 / 3)
    assert body["probability"] == pytest.approx(2 / 3 * 0.8)
    assert body["confidence"] == pytest.approx(abs(2 * body["probability"] - 1))
    assert body["prediction"] == "Contratado"
    assert body["model_version"] == 3


def test_title_is_optional(scoring: Flask) -> None:
    body = {k: v for k, v in PAIR.items() if k != "titulo_vaga"}
    assert post(scoring, "/predict", body).get_json()["match"] == pytest.approx(1 / 2)


def test_list_gives_a_list_in_order(scoring: Flask) -> None:
    pairs = [{**PAIR, "cv_pt": cv} for cv in ("java spring sql", "nada", "java")]
    scores = post(scoring, "/predict", pairs).get_json()
    assert [s["match"] for s in scores] == pytest.approx([1, 0, 1 / 3])
    assert isinstance(post(scoring, "/predict", pairs[:1]).get_json(), list)


def test_reasons_are_shown_when_asked_for(scoring: Flask) -> None:
    reasons = post(scoring, "/predict?reasons=5", PAIR).get_json()["reasons"]
    for score in ("match", "probability"):
        why = reasons[score]
        total = why["intercept"] + why["other"] + sum(t["contribution"] for t in why["terms"])
        assert total == pytest.approx(why["logit"])
    unknown = post(scoring, "/predict?reasons=5", {**PAIR, "cv_pt": "zzz"}).get_json()
    assert unknown["reasons"]["note"] == "no known terms"


def test_thousand_rows_are_taken_and_one_more_is_422(scoring: Flask) -> None:
    pairs = [PAIR] * 1000
    assert len(post(scoring, "/predict", pairs).get_json()) == 1000
    problem(post(scoring, "/predict", [*pairs, PAIR]), 422, "invalid-field")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({k: v for k, v in PAIR.items() if k != "cv_pt"}, "cv_pt"),
        ({**PAIR, "principais_atividades": None}, "principais_atividades"),
        ({**PAIR, "cv_pt": 5}, "cv_pt"),
        ({**PAIR, "cv_pt": ["a"]}, "cv_pt"),
        ({**PAIR, "cv": "a"}, "cv"),
        ({**PAIR, "titulo_vaga": "a" * 1001}, "titulo_vaga"),
        ({**PAIR, "cv_pt": "a" * 1_000_001}, "cv_pt"),
        ([PAIR, {**PAIR, "cv_pt": False}], "[1].cv_pt"),
    ],
)
def test_bad_field_is_422_by_name(scoring: Flask, body: object, field: str) -> None:
    errors = problem(post(scoring, "/predict", body), 422, "invalid-field")["errors"]
    assert [error["field"] for error in errors] == [field]


@pytest.mark.parametrize("body", [[], None, 5, "text", json.dumps(PAIR), True, [[]], [None]])
def test_body_of_another_kind_is_422(scoring: Flask, body: object) -> None:
    problem(post(scoring, "/predict", body), 422, "invalid-field")


@pytest.mark.parametrize(
    "query", ["reasons=-1", "reasons=51", "reasons=x", "reasons=1e400", "threshold=nan",
              "threshold=2", "treshold=0.5"]
)
def test_bad_query_is_422(scoring: Flask, query: str) -> None:
    problem(post(scoring, f"/predict?{query}", PAIR), 422, "invalid-field")


@pytest.mark.parametrize(
    "text",
    ["", "\u0000\u0007", "👩‍🔬 ação", "<b>java</b>", "'; DROP TABLE users; --", "\ufffd" * 50,
     "java " * 100_000],
)
def test_any_text_is_scored(scoring: Flask, text: str) -> None:
    answer = post(scoring, "/predict", {**PAIR, "cv_pt": text})
    assert answer.status_code == 200, answer.text


def test_lone_surrogate_is_refused(scoring: Flask) -> None:
    raw = json.dumps(PAIR).replace("java spring", "\\ud800")
    answer = scoring.test_client().post(
        "/predict", data=raw, content_type="application/json", headers=bearer(scoring)
    )
    assert answer.status_code in (400, 422)


# --- rank


def test_candidates_come_back_best_first(scoring: Flask) -> None:
    candidates = [
        {"codigo": "a", "cv_pt": "nada"},
        {"codigo": "b", "cv_pt": "java spring sql"},
        {"codigo": "c", "cv_pt": "sql"},
        {"codigo": "d", "cv_pt": "java"},
    ]
    body = {**VACANCY, "top_k": 3, "candidates": candidates}
    answer = post(scoring, "/rank", body).get_json()
    assert answer["model_version"] == 3
    assert [(row["rank"], row["codigo"]) for row in answer["ranking"]] == [
        (1, "b"), (2, "c"), (3, "d"),
    ]  # fmt: skip
    assert {"match", "probability", "prediction", "confidence"} <= set(answer["ranking"][0])
    assert "reasons" not in answer["ranking"][0]
    with_reasons = post(scoring, "/rank?reasons=3", body).get_json()["ranking"]
    assert [t["term"] for t in with_reasons[1]["reasons"]["match"]["terms"]] == ["sql"]


def test_without_candidates_the_models_pool_is_ranked(scoring: Flask) -> None:
    ranking = post(scoring, "/rank", {**VACANCY, "top_k": 2}).get_json()["ranking"]
    assert [row["codigo"] for row in ranking] == ["pool-0", "pool-2"]
    assert [row["rank"] for row in ranking] == [1, 2]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"top_k": 0}, "top_k"),
        ({"top_k": 1001}, "top_k"),
        ({"top_k": "5"}, "top_k"),
        ({"top_k": 10**400}, "top_k"),
        ({"candidates": []}, "candidates"),
        ({"candidates": [{"codigo": "a"}]}, "candidates[0].cv_pt"),
        ({"candidates": [{"codigo": "", "cv_pt": ""}]}, "candidates[0].codigo"),
        ({"candidates": [{"codigo": "a", "cv_pt": ""}] * 1001}, "candidates"),
        ({"principais_atividades": "a" * 50_001}, "principais_atividades"),
    ],
)
def test_bad_ranking_request_is_422_by_name(scoring: Flask, change: dict, field: str) -> None:
    answer = post(scoring, "/rank", {**VACANCY, **change})
    if answer.status_code == 400:  # the parser already refuses integers that long
        assert field == "top_k"
        return
    errors = problem(answer, 422, "invalid-field")["errors"]
    assert [error["field"] for error in errors] == [field]


def test_long_vacancy_times_many_candidates_is_413(scoring: Flask) -> None:
    body = {
        **VACANCY, "principais_atividades": "a" * 50_000,
        "candidates": [{"codigo": str(n), "cv_pt": "x"} for n in range(1000)],
    }  # fmt: skip
    problem(post(scoring, "/rank", body), 413, "too-large")


# --- the model server in every state


def test_no_production_model_yet_is_503_with_what_to_do(
    scoring: Flask, model: ServedModel
) -> None:
    model.say("waiting", None)
    for path, body in (("/predict", PAIR), ("/rank", VACANCY)):
        answer = post(scoring, path, body)
        detail = problem(answer, 503, "no-production-model")["detail"]
        assert detail == "no production model yet: POST /train first"
        assert int(answer.headers["Retry-After"]) > 0
    problem(scoring.test_client().get("/ready"), 503, "no-production-model")


def test_ready_tells_the_version_being_served(scoring: Flask, model: ServedModel) -> None:
    client = scoring.test_client()
    assert client.get("/ready").get_json() == {"state": "ready", "model_version": 3}
    model.say("swapping", 3, 4)
    assert client.get("/ready").get_json() == {
        "state": "swapping", "model_version": 3, "next_version": 4,
    }  # fmt: skip
    assert post(scoring, "/predict", PAIR).status_code == 200


def test_model_that_crashes_is_502_and_nothing_of_it_leaves(scoring: Flask) -> None:
    answer = post(scoring, "/predict", {**PAIR, "cv_pt": "answer-crash minha vida"})
    problem(answer, 502, "upstream-failed")
    for secret in ("/srv", "minha", "Traceback", "RuntimeError", "mlflow"):
        assert secret not in answer.text


def test_model_that_answers_nan_is_502(scoring: Flask) -> None:
    problem(post(scoring, "/predict", {**PAIR, "cv_pt": "answer-nan"}), 502, "upstream-failed")


def test_model_that_is_too_slow_is_504(settle: Callable, model: ServedModel) -> None:
    app = with_users(create_app(settle(model_url=model.url, model_timeout_seconds=0.5)))
    problem(post(app, "/predict", {**PAIR, "cv_pt": "answer-slowly"}), 504, "upstream-timeout")


def test_model_server_that_is_not_there_is_502(app: Flask) -> None:
    problem(post(app, "/predict", PAIR), 502, "upstream-failed")
    problem(app.test_client().get("/ready"), 502, "upstream-failed")
    assert app.test_client().get("/health").status_code == 200


def test_digest_in_the_audit_log_can_be_worked_out_again(scoring: Flask) -> None:
    import hashlib

    post(scoring, "/predict", PAIR)
    line = json.loads((parts(scoring).settings.state_dir / "audit.jsonl").read_text())
    canonical = json.dumps(PAIR, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert line["inputs"] == [hashlib.sha256(canonical.encode()).hexdigest()]
    assert line["user"] == "recruiter"
    assert line["model_version"] == 3
    assert line["scores"][0][2] == "Contratado"
