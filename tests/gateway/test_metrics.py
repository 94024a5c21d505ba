"""GET /metrics."""

from collections import Counter
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from gateway import create_app
from tests.gateway.conftest import PAIR, bearer, problem
from tests.gateway.servers import ServedModel

TOKEN = "a token for Prometheus alone"


def figures(client: FlaskClient, **headers: str) -> Callable[..., float]:
    """`figures(client)("gateway_score_sum", score="match")`"""
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text) for sample in family.samples
    }  # fmt: skip
    return lambda name, **labels: samples[name, frozenset(labels.items())]


def test_figures_are_those_of_the_scores_that_were_answered(
    scoring: Flask, model: ServedModel
) -> None:
    client = scoring.test_client()
    pairs = [{**PAIR, "cv_pt": cv} for cv in ("java spring sql", "nada", "java", "sql")]
    scores = client.post("/predict", json=pairs, headers=bearer(scoring)).get_json()
    vacancy = {k: v for k, v in PAIR.items() if k != "cv_pt"}
    ranked = client.post("/rank", json={**vacancy, "top_k": 5}, headers=bearer(scoring))
    scores += ranked.get_json()["ranking"]
    figure = figures(client)
    for prediction, count in Counter(score["prediction"] for score in scores).items():
        assert count == figure("gateway_predictions_total", model_version=str(model.version),
                               prediction=prediction)  # fmt: skip
    for name in ("match", "probability"):
        values = [score[name] for score in scores]
        assert figure("gateway_score_count", score=name) == 9
        assert figure("gateway_score_sum", score=name) == pytest.approx(sum(values), abs=1e-9)
        for limit in ("0.05", "0.1", "0.5", "0.95", "1.0"):
            within = sum(value <= float(limit) for value in values)
            assert figure("gateway_score_bucket", score=name, le=limit) == within
    for route in ("/predict", "/rank"):
        assert figure("gateway_requests_total", route=route, method="POST", status="200") == 1
        assert figure("gateway_request_seconds_count", route=route, method="POST") == 1


def test_figures_are_for_who_has_the_token_where_there_is_one(settle: Callable) -> None:
    client = create_app(settle(metrics_token=TOKEN)).test_client()
    problem(client.get("/metrics"), 401, "unauthenticated")
    for given in (TOKEN[:-1], TOKEN + "x", "", "ção"):
        headers = {"Authorization": f"Bearer {given}"}
        problem(client.get("/metrics", headers=headers), 401, "unauthenticated")
    figures(client, Authorization=f"Bearer {TOKEN}")
