"""POST /predict and POST /rank against the project's own model server and a trained version."""

import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from gateway import create_app
from tests.conftest import Store
from tests.gateway import servers
from tests.gateway.conftest import PAIR, agrees, bearer, parts, problem, with_users
from tests.gateway.doubles.spoiled_model import SpoiledModel
from tests.gateway.servers import ServedModel

VACANCY = {k: v for k, v in PAIR.items() if k != "cv_pt"}
SCORE = {"probability", "prediction", "confidence", "match", "model_version"}
EXPLANATION = {"logit", "intercept", "terms", "other"}


def post(app: Flask, path: str, body: object, user: str = "recruiter"):
    """As a client does that writes UTF-8."""
    return app.test_client().post(
        path, data=json.dumps(body, ensure_ascii=False).encode(), content_type="application/json",
        headers=bearer(app, user),
    )  # fmt: skip


def test_one_object_gives_one_score(scoring: Flask, model: ServedModel, loaded: Callable) -> None:
    answer = post(scoring, "/predict", PAIR)
    assert answer.status_code == 200, answer.text
    body = answer.get_json()
    assert set(body) == SCORE
    assert body["confidence"] == pytest.approx(abs(2 * body["probability"] - 1), abs=1e-12)
    assert body["model_version"] == model.version
    agrees([body], loaded([PAIR]))


def test_title_is_optional(scoring: Flask, loaded: Callable) -> None:
    body = {k: v for k, v in PAIR.items() if k != "titulo_vaga"}
    without = post(scoring, "/predict", body).get_json()
    agrees([without], loaded([body]))
    agrees(without, post(scoring, "/predict", {**PAIR, "titulo_vaga": ""}).get_json())
    assert without["match"] != post(scoring, "/predict", PAIR).get_json()["match"]


def test_list_gives_a_list_in_order(scoring: Flask, loaded: Callable) -> None:
    pairs = [{**PAIR, "cv_pt": cv} for cv in ("java spring sql", "nada", "java")]
    for ordered in (pairs, pairs[::-1]):
        scores = post(scoring, "/predict", ordered).get_json()
        assert len({s["match"] for s in scores}) == 3
        agrees(scores, loaded(ordered))
    agrees(post(scoring, "/predict", pairs[:1]).get_json(), loaded(pairs[:1]))


def test_threshold_decides_the_prediction(scoring: Flask, loaded: Callable) -> None:
    chance = post(scoring, "/predict", PAIR).get_json()["probability"]
    for threshold, prediction in (
        (0, "Contratado"), (chance, "Contratado"), (math.nextafter(chance, 1), "Não contratado"),
        (1, "Não contratado"),
    ):  # fmt: skip
        body = post(scoring, f"/predict?threshold={threshold!r}", PAIR).get_json()
        assert body["prediction"] == prediction
        assert body["probability"] == chance
        agrees([body], loaded([PAIR], threshold=float(threshold)))


def test_reasons_are_shown_when_asked_for(scoring: Flask, loaded: Callable) -> None:
    for most in (1, 3, 50):
        body = post(scoring, f"/predict?reasons={most}", PAIR).get_json()
        assert set(body) == SCORE | {"reasons"}
        assert set(body["reasons"]) == {"match", "probability"}
        for score, why in body["reasons"].items():
            assert set(why) == EXPLANATION
            assert all(set(term) == {"term", "where", "contribution"} for term in why["terms"])
            moved = [term["contribution"] for term in why["terms"]]
            assert 1 <= len(moved) <= most
            assert moved == sorted(moved, key=abs, reverse=True)
            assert why["intercept"] + why["other"] + sum(moved) == pytest.approx(
                why["logit"], abs=1e-9)
            assert 1 / (1 + math.exp(-why["logit"])) == pytest.approx(body[score], abs=1e-9)
        agrees([body], loaded([PAIR], reasons=most))
    match, probability = body["reasons"]["match"], body["reasons"]["probability"]
    assert {term["where"] for term in match["terms"]} == {"cv"}
    assert {"java", "spring"} <= {term["term"] for term in match["terms"]}
    assert {"cv", "vacancy"} <= {term["where"] for term in probability["terms"]}


def test_reasons_say_when_no_term_is_known(scoring: Flask, loaded: Callable) -> None:
    unknown = {**PAIR, "cv_pt": "zzz"}
    body = post(scoring, "/predict?reasons=5", unknown).get_json()
    assert set(body["reasons"]) == {"match", "probability"}
    for why in body["reasons"].values():
        assert set(why) == EXPLANATION | {"note"}
        assert why["note"] == "no known terms"
    agrees([body], loaded([unknown], reasons=5))


def test_thousand_rows_are_taken_and_one_more_is_422(scoring: Flask, loaded: Callable) -> None:
    pairs = [{**PAIR, "cv_pt": "java " * (n % 7) + "sql"} for n in range(1000)]
    agrees(post(scoring, "/predict", pairs).get_json(), loaded(pairs))
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
     "java " * 100_000, "[{" * 250_000, '"\\' * 100_000, "java ção " * 100_000, "\u0001" * 300_000],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_any_text_is_scored(scoring: Flask, loaded: Callable, text: str) -> None:
    pair = {**PAIR, "cv_pt": text}
    answer = post(scoring, "/predict", pair)
    assert answer.status_code == 200, answer.text
    agrees([answer.get_json()], loaded([pair]))


def test_lone_surrogate_is_refused(scoring: Flask) -> None:
    raw = json.dumps(PAIR).replace("java spring", "\\ud800")
    answer = scoring.test_client().post(
        "/predict", data=raw, content_type="application/json", headers=bearer(scoring)
    )
    assert answer.status_code in (400, 422)


# --- rank


CANDIDATES = [
    {"codigo": "a", "cv_pt": "nada"},
    {"codigo": "b", "cv_pt": "java spring sql"},
    {"codigo": "c", "cv_pt": "sql"},
    {"codigo": "d", "cv_pt": "java"},
]


def ranked(candidates: list[dict], scores: list[dict]) -> list[dict]:
    """What /rank has to answer where the candidates have these scores."""
    best = sorted(zip(candidates, scores, strict=True), key=lambda pair: -pair[1]["match"])
    return [{**score, "rank": rank, "codigo": candidate["codigo"]}
            for rank, (candidate, score) in enumerate(best, 1)]


def test_candidates_come_back_best_first(
    scoring: Flask, model: ServedModel, loaded: Callable
) -> None:
    pairs = [{**VACANCY, "cv_pt": candidate["cv_pt"]} for candidate in CANDIDATES]
    expected = ranked(CANDIDATES, loaded(pairs))[:3]
    assert len({row["match"] for row in expected}) == 3
    assert [row["codigo"] for row in expected] != ["a", "b", "c"]  # not the order they came in
    assert expected[0]["codigo"] == "b"
    answer = post(scoring, "/rank", {**VACANCY, "top_k": 3, "candidates": CANDIDATES}).get_json()
    assert set(answer) == {"model_version", "ranking"}
    assert answer["model_version"] == model.version
    for row in answer["ranking"]:
        assert set(row) == SCORE | {"rank", "codigo"}
        assert row["confidence"] == pytest.approx(abs(2 * row["probability"] - 1), abs=1e-12)
    agrees(answer["ranking"], expected)


def test_reasons_come_with_the_ranked_candidates(scoring: Flask, loaded: Callable) -> None:
    pairs = [{**VACANCY, "cv_pt": candidate["cv_pt"]} for candidate in CANDIDATES]
    body = {**VACANCY, "candidates": CANDIDATES}
    ranking = post(scoring, "/rank?reasons=3", body).get_json()["ranking"]
    agrees(ranking, ranked(CANDIDATES, loaded(pairs, reasons=3)))
    by_code = {row["codigo"]: row["reasons"]["match"] for row in ranking}
    assert [term["term"] for term in by_code["c"]["terms"]] == ["sql"]


def test_equal_candidates_stay_in_the_order_in_which_they_were_sent(scoring: Flask) -> None:
    candidates = [{"codigo": code, "cv_pt": "java"} for code in "qzam"]
    ranking = post(scoring, "/rank", {**VACANCY, "candidates": candidates}).get_json()["ranking"]
    assert [(row["rank"], row["codigo"]) for row in ranking] == [
        (1, "q"), (2, "z"), (3, "a"), (4, "m"),
    ]  # fmt: skip


def test_without_candidates_the_models_pool_is_ranked(
    scoring: Flask, model: ServedModel, loaded: Callable, small_data: Path
) -> None:
    for most in (2, 1000):
        answer = post(scoring, "/rank", {**VACANCY, "top_k": most}).get_json()
        expected = loaded([VACANCY], top_k=most)
        assert all(row.pop("vacancy") == 0 for row in expected)
        agrees(answer["ranking"], expected)
        assert answer["model_version"] == model.version
    codes = [row["codigo"] for row in answer["ranking"]]
    people = json.loads((small_data / "applicants.json").read_text(encoding="utf-8"))
    assert sorted(codes) == sorted(code for code, one in people.items() if one["cv_pt"].strip())
    assert [row["rank"] for row in answer["ranking"]] == list(range(1, len(codes) + 1))
    matches = [row["match"] for row in answer["ranking"]]
    assert matches == sorted(matches, reverse=True)


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


@pytest.mark.parametrize("text", ["[java] ", "ação ", "\u0001ção ", "€uro "])
def test_what_is_not_too_large_for_the_gateway_is_not_for_the_model_server(
    scoring: Flask, text: str
) -> None:
    for length, status in ((2_000, 200), (50_000, 413)):
        body = {
            **VACANCY, "principais_atividades": (text * length)[:length],
            "candidates": [{"codigo": str(n), "cv_pt": text * 100} for n in range(1000)],
        }  # fmt: skip
        assert post(scoring, "/rank", body).status_code == status


# --- the model server in every state


def test_no_production_model_yet_is_503_with_what_to_do(
    settle: Callable, new_store: Callable[[], Store], tmp_path: Path
) -> None:
    with servers.model_server(tmp_path, new_store().uri, 0) as waiting:
        app = with_users(create_app(settle(model_url=waiting.url)))
        for path, body in (("/predict", PAIR), ("/rank", VACANCY)):
            answer = post(app, path, body)
            detail = problem(answer, 503, "no-production-model")["detail"]
            assert detail == "no production model yet: POST /train first"
            assert int(answer.headers["Retry-After"]) > 0
        problem(app.test_client().get("/ready"), 503, "no-production-model")
        assert app.test_client().get("/health").status_code == 200


def test_ready_tells_the_version_being_served(scoring: Flask, model: ServedModel) -> None:
    answer = scoring.test_client().get("/ready").get_json()
    assert answer == {"state": "ready", "model_version": model.version}


def test_promoted_version_takes_over_without_a_failed_request(
    settle: Callable, model: ServedModel
) -> None:
    """From the promotion to the answers, and back again."""
    app = with_users(create_app(settle(model_url=model.url, tracking_uri=model.tracking_url)))
    client = app.test_client()
    answers: list[tuple[int, dict]] = []
    said: list[dict] = []
    before = client.get("/models", headers=bearer(app)).get_json()
    assert before["aliases"] == {"production": model.version, "staging": 1}

    def until_served(version: int) -> None:
        deadline = time.monotonic() + 60
        while not said or said[-1] != {"state": "ready", "model_version": version}:
            assert time.monotonic() < deadline, said
            answer = post(app, "/predict", PAIR)
            answers.append((answer.status_code, answer.get_json()))
            said.append(client.get("/ready").get_json())

    def promote(version: int) -> None:
        answer = client.post(f"/models/{version}/promote", headers=bearer(app),
                             json={"force": True})  # fmt: skip
        assert answer.status_code == 200, answer.text

    try:
        promote(1)
        until_served(1)
        listed = client.get("/models", headers=bearer(app)).get_json()
    finally:
        promote(model.version)
        model.wait_for(model.version)
    assert {"state": "swapping", "model_version": 2, "next_version": 1} in said
    assert {status for status, _ in answers} == {200}
    versions = [body["model_version"] for _, body in answers]
    assert set(versions) == {1, 2}
    assert post(app, "/predict", PAIR).get_json()["model_version"] == model.version
    assert listed["aliases"] == {"production": 1, "staging": 1}
    newest, first = listed["versions"]
    assert (newest["version"], first["version"]) == (2, 1)
    assert first["promoted_by"] == "admin"
    assert first["replaced_version"] == "2"
    assert first["serving_since"]
    assert first["gate"] in ("passed", "failed")
    assert first["gate_reason"]
    assert {"hire_auc", "hire_brier", "pool_auc", "pool_recall_at_10"} <= set(first["metrics"])


def test_worker_of_the_model_server_that_is_killed_is_not_noticed(
    scoring: Flask, model: ServedModel
) -> None:
    expected = post(scoring, "/predict", PAIR).get_json()
    killed = model.worker
    os.kill(killed, signal.SIGKILL)
    answer = post(scoring, "/predict", PAIR)
    assert (answer.status_code, answer.get_json()) == (200, expected)
    assert model.worker != killed


def test_worker_that_is_killed_in_the_middle_of_an_answer_is_not_noticed(
    scoring: Flask, model: ServedModel
) -> None:
    expected = post(scoring, "/predict", PAIR).get_json()
    with ThreadPoolExecutor(1) as pool:
        with model.stopped():
            asking = pool.submit(post, scoring, "/predict", PAIR)
            time.sleep(0.5)
            os.kill(model.worker, signal.SIGKILL)
        answer = asking.result()
    assert (answer.status_code, answer.get_json()) == (200, expected)


def test_model_server_that_is_too_slow_is_504(settle: Callable, model: ServedModel) -> None:
    app = with_users(create_app(settle(model_url=model.url, model_timeout_seconds=0.5)))
    with model.stopped():
        problem(post(app, "/predict", PAIR), 504, "upstream-timeout")
        problem(post(app, "/rank", VACANCY), 504, "upstream-timeout")
        problem(app.test_client().get("/ready"), 504, "upstream-timeout")
        assert app.test_client().get("/health").status_code == 200
    assert post(app, "/predict", PAIR).status_code == 200


def test_model_server_that_is_not_there_is_502(app: Flask) -> None:
    problem(post(app, "/predict", PAIR), 502, "upstream-failed")
    problem(app.test_client().get("/ready"), 502, "upstream-failed")
    assert app.test_client().get("/health").status_code == 200


# --- answers that the project's model server never gives


def test_model_that_crashes_is_502_and_nothing_of_it_leaves(
    spoiled_scoring: Flask, spoiled: SpoiledModel
) -> None:
    spoiled.answer("/invocations", 500, json.dumps({
        "error": "Traceback: RuntimeError: mlflow in /srv/secret/path broke on minha vida",
    }).encode())
    for path, body in (("/predict", {**PAIR, "cv_pt": "minha vida"}), ("/rank", VACANCY)):
        answer = post(spoiled_scoring, path, body)
        problem(answer, 502, "upstream-failed")
        for secret in ("/srv", "minha", "Traceback", "RuntimeError", "mlflow"):
            assert secret not in answer.text


Change = Callable[[list[dict]], Any]


def every(**changed: object) -> Change:
    """Each prediction with another value; `None` leaves the key out."""

    def change(rows: list[dict]) -> list[dict]:
        return [{k: v for k, v in {**row, **changed}.items() if v is not None} for row in rows]

    return change


def every_term(**changed: object) -> Change:
    def change(rows: list[dict]) -> list[dict]:
        for row in rows:
            for why in row["reasons"].values():
                why["terms"] = every(**changed)(why["terms"])
        return rows

    return change


@pytest.mark.parametrize(
    "change",
    [
        every(probability=math.nan), every(match=math.inf), every(confidence=-math.inf),
        every(probability=1.5), every(match=-0.1), every(prediction="Talvez"),
        every(model_version="three"), every(match=None), every(confidence=None),
        every(reasons={}), every_term(where=None), every_term(where="elsewhere"),
        every_term(contribution=math.nan), lambda rows: rows[:-1], lambda rows: rows * 2,
        lambda rows: [], lambda rows: rows[0], lambda rows: None, lambda rows: [None] * len(rows),
    ],
)  # fmt: skip
def test_answer_that_breaks_the_contract_is_502(
    spoiled_scoring: Flask, spoiled: SpoiledModel, change: Change
) -> None:
    pairs = [PAIR, {**PAIR, "cv_pt": "sql"}]
    assert post(spoiled_scoring, "/predict?reasons=3", pairs).status_code == 200
    spoiled.predict(change)
    answer = post(spoiled_scoring, "/predict?reasons=3", pairs)
    problem(answer, 502, "upstream-failed")
    audited = (parts(spoiled_scoring).settings.state_dir / "audit.jsonl").read_text()
    assert audited.count('"prediction"') == 1  # of what was answered


@pytest.mark.parametrize(
    "body", [b"", b"no JSON", b"[]", b"{}", b"null", b"[" * 100_000, b'{"predictions": [{', b"\xff"]
)
def test_answer_of_another_kind_is_502(
    spoiled_scoring: Flask, spoiled: SpoiledModel, body: bytes
) -> None:
    spoiled.answer("/invocations", 200, body)
    spoiled.answer("/health", 200, body)
    problem(post(spoiled_scoring, "/predict", PAIR), 502, "upstream-failed")
    problem(post(spoiled_scoring, "/rank", VACANCY), 502, "upstream-failed")
    problem(spoiled_scoring.test_client().get("/ready"), 502, "upstream-failed")


def test_what_the_answer_has_beyond_the_contract_does_not_leave(
    spoiled_scoring: Flask, spoiled: SpoiledModel
) -> None:
    spoiled.predict(every(cv_pt="minha vida"))
    assert set(post(spoiled_scoring, "/predict", PAIR).get_json()) == SCORE


def test_model_server_that_sends_elsewhere_is_502_and_not_followed(
    spoiled_scoring: Flask, spoiled: SpoiledModel
) -> None:
    spoiled.answer("/invocations", 307, b"", Location=spoiled.url + "/elsewhere")
    problem(post(spoiled_scoring, "/predict", PAIR), 502, "upstream-failed")
    assert spoiled.asked == ["/invocations"]


def test_model_server_that_is_too_busy_is_503_with_when_to_try_again(
    spoiled_scoring: Flask, spoiled: SpoiledModel
) -> None:
    spoiled.answer("/invocations", 503, b'{"error":"too many requests at once: try again"}')
    answer = post(spoiled_scoring, "/predict", PAIR)
    problem(answer, 503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0


def test_model_server_that_gives_up_on_the_rows_is_504(
    spoiled_scoring: Flask, spoiled: SpoiledModel
) -> None:
    spoiled.answer("/invocations", 504, b'{"error":"the answer took more than 60 s"}')
    problem(post(spoiled_scoring, "/predict", PAIR), 504, "upstream-timeout")


def test_model_without_a_pool_is_409(spoiled_scoring: Flask, spoiled: SpoiledModel) -> None:
    spoiled.predict(lambda rows: [])
    detail = problem(post(spoiled_scoring, "/rank", VACANCY), 409, "conflict")["detail"]
    assert detail == "the served model has no pool: send `candidates`"


def test_digest_in_the_audit_log_can_be_worked_out_again(
    scoring: Flask, model: ServedModel
) -> None:
    body = post(scoring, "/predict", PAIR).get_json()
    line = json.loads((parts(scoring).settings.state_dir / "audit.jsonl").read_text())
    canonical = json.dumps(PAIR, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert line["inputs"] == [hashlib.sha256(canonical.encode()).hexdigest()]
    assert line["user"] == "recruiter"
    assert line["model_version"] == model.version
    assert line["scores"] == [[body["probability"], body["match"], body["prediction"]]]
