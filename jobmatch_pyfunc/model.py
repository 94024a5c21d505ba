"""The pyfunc: rows of texts in, two scores a row out."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import PythonModel

from jobmatch_pyfunc.analysis import Analysed, Analyser
from jobmatch_pyfunc.columns import Texts, VacancyTexts
from jobmatch_pyfunc.contract import (
    CV,
    HIRED,
    NOT_HIRED,
    OPTIONAL_TEXTS,
    VACANCY_TEXTS,
)
from jobmatch_pyfunc.reasons import Explainer, Where, vacancy_text
from jobmatch_pyfunc.scoring import (
    Floats,
    Ints,
    Pool,
    Scorer,
    Vacancies,
    best_first,
    sigmoid,
)
from jobmatch_pyfunc.storage import read_json, read_pool, read_space, read_weights

SHIPPED, HOLDOUT, POOL = "final", "holdout", "pool"
"""Folders of the artifact: what answers, what was judged, and the candidates' pool."""
THRESHOLD = "threshold.json"
"""A file of each part."""
MOST_REASONS, MOST_RANKED = 1_000, 100_000


class FittedModel:
    """One fitted part read from disk: vocabulary, space, weights and its decision threshold."""

    def __init__(self, folder: Path) -> None:
        self.terms, self.space = read_space(folder)
        self.scorer = Scorer(self.space, read_weights(folder))
        self.threshold: float = read_json(folder / THRESHOLD)
        self.analyser = Analyser(self.terms, self.space)


class JobMatch(PythonModel):
    """Scores vacancies against CVs, and ranks the pool that came with the training data."""

    def load_context(self, context: Any) -> None:
        folder = Path(context.artifacts["fitted"])
        self.model_version = registered_version(folder.parent.parent)
        self._model = FittedModel(folder / SHIPPED)
        self._pool = read_pool(folder / POOL)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score each row, or with `top_k` rank the pool for each row's vacancy.

        Columns and params are those of `contract.signature`. Raises MlflowException
        (BAD_REQUEST) with one sentence where a column is missing, a param is out of range or two
        do not go together.
        """
        params = params or {}
        threshold = params.get("threshold")
        threshold = self._model.threshold if threshold is None else float(threshold)
        reasons, top_k = int(params.get("reasons") or 0), int(params.get("top_k") or 0)
        _require(0 <= threshold <= 1, "params.threshold must be between 0 and 1")
        _require(0 <= reasons <= MOST_REASONS, f"params.reasons must be 0 to {MOST_REASONS}")
        _require(0 <= top_k <= MOST_RANKED, f"params.top_k must be 0 to {MOST_RANKED}")
        _require(not (reasons and top_k),
                 "params.reasons needs a CV in the row: it cannot go with top_k")
        vacancies = VacancyTexts(*(_texts(model_input, name) for name in VACANCY_TEXTS))
        if top_k:
            return self._rank_pool(vacancies, top_k, threshold)
        _require(CV in model_input.columns, f"column {CV!r} is missing")
        return self._score(vacancies, _texts(model_input, CV), threshold, reasons)

    def _score(
        self, vacancies: VacancyTexts, cvs: Texts, threshold: float, reasons: int
    ) -> pd.DataFrame:
        rows = self._model.analyser.analyse(vacancies, cvs)
        match, hire = self._model.scorer.score_pairs(
            rows.vacancies, rows.candidates, rows.vacancy, rows.candidate)
        answer = self._answer(match, hire, threshold)
        if reasons:
            answer["reasons"] = self._reasons(rows, vacancies, cvs, reasons)
        return answer

    def _reasons(
        self, rows: Analysed, vacancies: VacancyTexts, cvs: Texts, most: int
    ) -> list[dict[str, Any]]:
        row_of = dict(zip(rows.vacancy, range(len(rows.vacancy)), strict=True))

        def text_of(where: Where, number: int) -> str:
            if where == "cv":
                return cvs.text(number)
            row = row_of[number]
            return vacancy_text(*(column.text(int(column.row[row])) for column in vacancies))

        explainer = Explainer(
            self._model.scorer, self._model.terms, rows.vacancies, rows.candidates)
        pairs = zip(rows.vacancy, rows.candidate, strict=True)
        return [why.as_dict() for why in explainer.explain(pairs, text_of, most)]

    def _rank_pool(
        self, vacancies: VacancyTexts, top_k: int, threshold: float
    ) -> pd.DataFrame:
        scorer, pool = self._model.scorer, self._pool
        vectors, vacancy = self._model.analyser.vacancies(vacancies)
        parts = scorer.vacancy_part(vectors)
        ranked = [
            self._ranked(pool, scorer, row, best, logits[best], parts[v:v + 1], threshold)
            for row, (v, best, logits) in enumerate(_best(pool, scorer, vectors, vacancy, top_k))
        ]
        return pd.concat(ranked, ignore_index=True) if ranked else pd.DataFrame()

    def _ranked(
        self, pool: Pool, scorer: Scorer, v: int, best: Ints, match: Floats, vacancy_part: Floats,
        threshold: float,
    ) -> pd.DataFrame:
        hire = scorer.hire_logits(vacancy_part, pool.candidate_part[best], match)
        answer = self._answer(match, hire, threshold)
        answer.insert(0, "vacancy", v)
        answer.insert(1, "rank", np.arange(1, len(best) + 1))
        answer.insert(2, "codigo", [pool.codes[i] for i in best])
        return answer

    def _answer(self, match: Floats, hire: Floats, threshold: float) -> pd.DataFrame:
        probability = sigmoid(hire)
        return pd.DataFrame({
            "probability": probability,
            "prediction": np.where(probability >= threshold, HIRED, NOT_HIRED),
            "confidence": np.abs(2 * probability - 1),
            "match": sigmoid(match),
            "model_version": self.model_version,
        })


def _best(
    pool: Pool, scorer: Scorer, vectors: Vacancies, vacancy: Ints, top_k: int
) -> Iterable[tuple[int, Ints, Floats]]:
    for v in vacancy.tolist():
        logits = pool.match_logits(scorer, scorer.query(vectors, v), vectors.latent[v])
        yield v, best_first(logits, top_k), logits


def registered_version(model_folder: Path) -> int:
    """The registry's number of the model in this folder; 0 where it was not loaded from the
    registry. MLflow writes it beside the model when it resolves `models:/name/…`."""
    meta = model_folder / "registered_model_meta"
    if not meta.is_file():
        return 0
    return int(yaml.safe_load(meta.read_text(encoding="utf-8"))["model_version"])


def _texts(table: pd.DataFrame, name: str) -> Texts:
    """A column as texts; missing values are empty texts."""
    if name not in table.columns:
        _require(name in OPTIONAL_TEXTS, f"column {name!r} is missing")
        return Texts.of([""] * len(table))
    column = table[name]
    if isinstance(column.dtype, pd.StringDtype):
        return Texts.of_strings(column)
    missing = column.isna().tolist()
    values = column.tolist()
    texts = ["" if gone else value for value, gone in zip(values, missing, strict=True)]
    for row, text in enumerate(texts):
        _require(isinstance(text, str), f"column {name!r} must hold texts (row {row} does not)")
    return Texts.of(texts)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise MlflowException(message, error_code=BAD_REQUEST)

