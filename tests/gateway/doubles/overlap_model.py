"""A small model with the contract of the real one: words in common decide. Models-from-code."""

import os
import time

import mlflow
import pandas as pd

VACANCY = ("titulo_vaga", "principais_atividades", "competencia_tecnicas_e_comportamentais")
POOL = {f"pool-{n}": text for n, text in enumerate(["java spring", "cozinha", "java", "python"])}


def _score(vacancy: str, cv: str, version: int) -> dict:
    wanted, known = set(vacancy.lower().split()), set(cv.lower().split())
    match = len(wanted & known) / max(1, len(wanted))
    probability = match * 0.8
    return {
        "probability": float("nan") if "answer-nan" in known else probability,
        "prediction": "Contratado" if probability >= 0.4 else "Não contratado",
        "confidence": abs(2 * probability - 1),
        "match": match,
        "model_version": version,
    }


def _explanation(vacancy: str, cv: str) -> dict:
    terms = sorted(set(vacancy.lower().split()) & set(cv.lower().split()))
    return {
        "logit": float(len(terms)), "intercept": 0.0, "other": 0.0,
        "terms": [{"term": term, "contribution": 1.0} for term in terms],
    }  # fmt: skip


class Overlap(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: pd.DataFrame, params=None):
        params = params or {}
        version = int(os.environ.get("OVERLAP_VERSION", "3"))
        rows = []
        for index, row in enumerate(model_input.to_dict("records")):
            vacancy = " ".join(str(row.get(column) or "") for column in VACANCY)
            if params.get("top_k"):
                scored = [{**_score(vacancy, cv, version), "codigo": codigo, "vacancy": index}
                          for codigo, cv in POOL.items()]
                best = sorted(scored, key=lambda s: -s["match"])[: params["top_k"]]
                rows += [{**row, "rank": rank} for rank, row in enumerate(best, 1)]
                continue
            cv = str(row.get("cv_pt") or "")
            if "answer-slowly" in cv:
                time.sleep(4)
            if "answer-crash" in cv:
                raise RuntimeError(f"/srv/secret/path broke on {cv}")
            score = _score(vacancy, cv, version)
            if params.get("reasons"):
                why = _explanation(vacancy, cv)
                score["reasons"] = {"match": why, "probability": why}
                if not why["terms"]:
                    score["reasons"]["note"] = "no known terms"
            rows.append(score)
        return pd.DataFrame(rows)


mlflow.models.set_model(Overlap())
