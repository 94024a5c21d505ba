"""From nothing to a ranking: the real training, the real registry, the real model server."""

import json
import sys
import time
from pathlib import Path

import pytest
import requests

from tests.gateway import servers
from tests.gateway.conftest import PAIR
from tests.gateway.servers import KEY, PASSWORD, PROJECT
from tests.gateway.test_processes import log_in

QUICK = {
    "grid_search_cv": 3, "grid_search_c_values": "0.1,1", "latent_dimensions": 20,
    "vocabulary_max_features": 5000, "tfidf_candidate_cv_max_features": 1000,
}  # fmt: skip


@pytest.mark.slow
def test_login_train_predict_rank_promote(tmp_path: Path) -> None:
    with servers.mlflow_server(tmp_path) as tracking_url:  # of its own: nothing is there yet
        everything(tmp_path, tracking_url)


def everything(tmp_path: Path, tracking_url: str) -> None:
    port = servers.free_port()
    model_url = f"http://127.0.0.1:{port}"
    env = servers.environment(
        MLFLOW_TRACKING_URI=tracking_url, MODEL_PORT=str(port), MODEL_WORKERS="1",
        MODEL_STATE=str(tmp_path / "served"), MODEL_POLL_SECONDS="1",
    )  # fmt: skip
    with (
        servers.running([sys.executable, "-m", "serving"], tmp_path / "model.log",
                        url=model_url + "/health", cwd=PROJECT, env=env),
        servers.gateway(tmp_path, MLFLOW_TRACKING_URI=tracking_url, GATEWAY_MODEL_URL=model_url,
                        GATEWAY_ADMIN_PASSWORD=PASSWORD, GATEWAY_JWT_KEYS=KEY) as url,
    ):  # fmt: skip
        client = requests.Session()
        client.headers.update(log_in(url))

        waiting = client.post(url + "/predict", json=PAIR, timeout=10)
        assert waiting.status_code == 503
        assert waiting.json()["detail"] == "no production model yet: POST /train first"

        started = client.post(url + "/train", json=QUICK, timeout=10)
        assert started.status_code == 202, started.text
        last = _wait(lambda: client.get(url + started.json()["status_url"], timeout=10).json(),
                     lambda body: body["state"] != "running", 240)
        assert last["state"] == "finished", _log(tmp_path, last["run_id"])
        assert last["version"] == 1
        assert last["gate"].startswith("passed")
        assert {"hire_auc", "pool_auc", "pool_recall_at_10"} <= set(last["metrics"])

        _wait(lambda: requests.get(url + "/ready", timeout=10),
              lambda answer: answer.status_code == 200, 90)
        score = client.post(url + "/predict?reasons=5", json=PAIR, timeout=30).json()
        assert set(score) == {
            "probability", "prediction", "confidence", "match", "model_version", "reasons",
        }  # fmt: skip
        assert score["model_version"] == 1
        for why in (score["reasons"]["match"], score["reasons"]["probability"]):
            total = why["intercept"] + why["other"] + sum(t["contribution"] for t in why["terms"])
            assert total == pytest.approx(why["logit"], abs=1e-9)
            assert all(set(t) == {"term", "where", "contribution"} for t in why["terms"])

        vacancy = {k: v for k, v in PAIR.items() if k != "cv_pt"}
        pool = client.post(url + "/rank", json={**vacancy, "top_k": 5}, timeout=30).json()
        assert [row["rank"] for row in pool["ranking"]] == [1, 2, 3, 4, 5]
        matches = [row["match"] for row in pool["ranking"]]
        assert matches == sorted(matches, reverse=True)
        candidates = [{"codigo": "chef", "cv_pt": "cozinheiro"}, {"codigo": "dev", **{
            "cv_pt": "desenvolvedor java spring sql"}}]
        chosen = client.post(
            url + "/rank?reasons=3", json={**vacancy, "candidates": candidates}, timeout=30
        ).json()
        assert chosen["ranking"][0]["codigo"] == "dev"

        models = client.get(url + "/models", timeout=10).json()
        assert models["aliases"] == {"production": 1, "staging": 1}
        assert models["versions"][0]["metrics"]["hire_auc"] == last["metrics"]["hire_auc"]
        same = client.post(url + "/models/1/promote", timeout=10)
        assert same.status_code == 200
        events = [json.loads(line)["event"]
                  for line in (tmp_path / "state" / "audit.jsonl").read_text().splitlines()]
        assert events == ["login", "training", "training", *["prediction"] * 3]


def _wait(ask, done, seconds: float):
    deadline = time.monotonic() + seconds
    while True:
        if done(answer := ask()):
            return answer
        assert time.monotonic() < deadline, answer
        time.sleep(1)


def _log(directory: Path, run_id: str) -> str:
    return (directory / "state" / "training" / f"{run_id}.log").read_text()[-3000:]
