"""The described baseline as most people would write it: pandas, three TfidfVectorizers side by
side, LogisticRegression, GridSearchCV.

    python -m benchmarks.described_pipeline DATA_DIR RESULT.json [--rows N] [--split DAY]

Trains on the joined pairs of the vacancies before a day, by default the one from which on a fifth
of them is held out, registers the model in the MLflow store of the environment, and writes its
seconds, its peak memory and how it ranks and predicts for the held-out ones.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import psutil
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from jobmatch_pyfunc.contract import ACTIVITIES, CV, REQUIREMENTS
from steps.records import HIRED, OUTCOMES

C_VALUES, FOLDS, TEST_SIZE = (0.1, 1, 10), 5, 0.2


def pipeline() -> GridSearchCV:
    """The described model and its grid search."""
    def tfidf(terms: int) -> TfidfVectorizer:
        return TfidfVectorizer(max_features=terms, ngram_range=(1, 2), min_df=2, max_df=0.95)

    columns = ColumnTransformer([
        ("activities", tfidf(1000), ACTIVITIES), ("requirements", tfidf(1000), REQUIREMENTS),
        ("cv", tfidf(5000), CV)])
    model = Pipeline([("tfidf", columns), ("regression", LogisticRegression(max_iter=1000))])
    return GridSearchCV(model, {"regression__C": list(C_VALUES)}, cv=FOLDS, scoring="roc_auc",
                        n_jobs=-1)


def read_tables(data_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Vacancies, candidates and pairs, by json.load and loops."""
    def load(name: str) -> dict[str, Any]:
        with (data_dir / name).open(encoding="utf-8") as file:
            return dict(json.load(file))

    vacancies = []
    for code, record in load("vagas.json").items():
        profile = record["perfil_vaga"]
        vacancies.append({
            "vaga": code, ACTIVITIES: profile[ACTIVITIES] or "",
            REQUIREMENTS: profile[REQUIREMENTS] or "",
            "date": record["informacoes_basicas"]["data_requicisao"]})
    candidates = [{"candidato": code, CV: record["cv_pt"] or ""}
                  for code, record in load("applicants.json").items()]
    pairs = []
    for code, record in load("prospects.json").items():
        for row in record["prospects"]:
            pairs.append({"vaga": code, "candidato": str(row["codigo"]),
                          "outcome": OUTCOMES.get(row["situacao_candidado"])})
    return pd.DataFrame(vacancies), pd.DataFrame(candidates), pd.DataFrame(pairs)


def joined_rows(
    vacancies: pd.DataFrame, candidates: pd.DataFrame, pairs: pd.DataFrame
) -> pd.DataFrame:
    """One row a pair with vacancy, CV and known outcome, in the order of the vacancies' dates."""
    rows = pairs.drop_duplicates(["vaga", "candidato"]).merge(vacancies, on="vaga").merge(
        candidates[candidates[CV].str.strip() != ""], on="candidato")
    rows = rows[rows["outcome"].notna()]
    rows["date"] = pd.to_datetime(rows["date"], format="%d-%m-%Y", errors="coerce")
    return rows.sort_values("date", na_position="first", kind="stable")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("data_dir", type=Path)
    arguments.add_argument("result", type=Path)
    arguments.add_argument("--rows", type=int, help="train on so many rows only, drawn at random")
    arguments.add_argument("--read-only", action="store_true", help="stop after reading")
    arguments.add_argument("--split", type=np.datetime64, metavar="DAY",
                           help="hold out the vacancies from this day on (yyyy-mm-dd)")
    arguments.add_argument("--model", type=Path, help="a file to write the fitted model to")
    given = arguments.parse_args()
    result: dict[str, Any] = {"seconds_start": time.time() - psutil.Process().create_time()}
    began = time.perf_counter()
    vacancies, candidates, pairs = read_tables(given.data_dir)
    result["seconds_reading"] = time.perf_counter() - began
    if not given.read_only:
        began = time.perf_counter()
        rows = joined_rows(vacancies, candidates, pairs)
        result["seconds_joining"] = time.perf_counter() - began
        cut = given.split or rows["date"].iloc[int(np.ceil(len(rows) * (1 - TEST_SIZE)))]
        training, held = rows[~(rows["date"] >= cut)], rows[rows["date"] >= cut]
        used = training if given.rows is None else training.sample(
            min(given.rows, len(training)), random_state=0)
        # its processes are started before: their imports take as long however many rows there are
        began = time.perf_counter()
        joblib.Parallel(-1)(joblib.delayed(pipeline)() for _ in range(joblib.cpu_count()))
        result["seconds_start"] += time.perf_counter() - began
        began = time.perf_counter()
        search = pipeline().fit(used, used["outcome"] == HIRED)
        result |= {"seconds_fitting": time.perf_counter() - began, "rows": len(used),
                   "rows_training": len(training)}
        began = time.perf_counter()
        register(search.best_estimator_)
        result["seconds_registering"] = time.perf_counter() - began
        result |= judged(search.best_estimator_, held, candidates)
        if given.model:
            joblib.dump(search.best_estimator_, given.model)
    result["peak_memory_mb"] = max(
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    given.result.write_text(json.dumps(result), encoding="utf-8")


def register(model: Pipeline) -> None:
    """A version of the registered model `described`, on a run of its own."""
    import mlflow  # what else is measured does without

    with mlflow.start_run():
        mlflow.sklearn.log_model(model, name="model", registered_model_name="described")


def judged(model: Pipeline, held: pd.DataFrame, candidates: pd.DataFrame) -> dict[str, Any]:
    """AUC of being hired, and of being put forward against the pool of all CVs.

    The vacancy's part of the logit is the same for a whole pool: the CV's part orders it.
    """
    from sklearn.metrics import roc_auc_score

    from steps.scores import ranks_in_pool

    pool = candidates[candidates[CV].str.strip() != ""].reset_index(drop=True)
    place = pd.Series(np.arange(len(pool)), index=pool["candidato"])
    cv = model["tfidf"].named_transformers_["cv"]
    scores = cv.transform(pool[CV]) @ model["regression"].coef_[0][-len(cv.vocabulary_):]
    _, aucs = ranks_in_pool(scores, place[held["candidato"]].to_numpy())
    hired = held["outcome"] == HIRED
    probability = model.predict_proba(held)[:, 1]
    return {"hire_auc": float(roc_auc_score(hired, probability)), "pool_auc": float(aucs.mean())}


if __name__ == "__main__":
    main()
