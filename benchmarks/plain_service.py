"""The same model as most people would serve it: scikit-learn objects, joblib, Flask, gunicorn.

    gunicorn --workers 2 'benchmarks.plain_service:create_app("model.joblib")'

`POST /predict` takes a list of rows and answers the same scores as the served model.
"""

import copy
from itertools import pairwise
from typing import Any

import joblib
import numpy as np
import pandas as pd
from flask import Flask, Response, jsonify, request
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from jobmatch_pyfunc.contract import ACTIVITIES, CV, HIRED, NOT_HIRED, REQUIREMENTS, TITLE
from jobmatch_pyfunc.model import FittedModel
from jobmatch_pyfunc.scoring import Weights, sigmoid
from jobmatch_pyfunc.text import body, words


def terms(texts: tuple[str, ...]) -> list[str]:
    """Words and pairs of words of some texts."""
    return [term for text in texts for single in (words(text),)
            for term in (*single, *(f"{a} {b}" for a, b in pairwise(single)))]


class PlainModel:
    """One TfidfVectorizer and the coefficients; every row of a request is transformed."""

    def __init__(self, fitted: FittedModel, version: int) -> None:
        self.vectorizer = TfidfVectorizer(
            analyzer=terms, vocabulary=fitted.terms, sublinear_tf=True, norm=None)
        self.vectorizer.idf_ = np.array(fitted.space.idf)
        self.latent = np.array(fitted.space.latent, np.float64)
        self.projection = np.array(fitted.space.projection, np.float64)
        self.slope, self.pivot = fitted.space.slope, fitted.space.pivot
        weights = fitted.scorer.weights
        self.weights: Weights = copy.deepcopy(weights)  # in memory, not mapped from its files
        self.threshold, self.version = fitted.threshold, version

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """One row of scores for each row."""
        w, transform = self.weights, self.vectorizer.transform
        title = normalize(transform([(text,) for text in table[TITLE]]))
        bodies = zip(table[ACTIVITIES], table[REQUIREMENTS], strict=True)
        both = normalize(transform([body(a, r) for a, r in bodies]))
        cv = transform([(text,) for text in table[CV]])
        unit = normalize(cv)
        length = np.sqrt(cv.multiply(cv).sum(axis=1)).A1
        scale = 1 / ((1 - self.slope) * self.pivot + self.slope * length)
        idf = self.vectorizer.idf_
        pivoted = cv.multiply(scale[:, None]).multiply(idf / idf.mean())
        query = w.match_title * title + w.match_body * both
        asked = normalize((title + both) @ self.latent @ self.projection)
        near = (asked * normalize(unit @ self.latent)).sum(axis=1)
        match = w.match_intercept + query.multiply(pivoted).sum(axis=1).A1 + w.match_latent * near
        raw = w.hire_intercept + title @ w.hire_title + both @ w.hire_body + unit @ w.hire_cv
        gate = w.gate_slope * np.minimum(0, match - w.gate_from)
        probability = sigmoid(w.platt_scale * raw + w.platt_intercept + gate)
        return pd.DataFrame({
            "probability": probability,
            "prediction": np.where(probability >= self.threshold, HIRED, NOT_HIRED),
            "confidence": np.abs(2 * probability - 1),
            "match": sigmoid(match),
            "model_version": self.version,
        })


def create_app(path: str) -> Flask:
    """The service for the model saved with joblib at `path`."""
    app = Flask(__name__)
    model: PlainModel = joblib.load(path)

    @app.post("/predict")
    def predict() -> Response:
        rows: list[dict[str, Any]] = request.get_json()
        return jsonify(model.predict(pd.DataFrame(rows)).to_dict(orient="records"))

    return app
