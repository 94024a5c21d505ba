"""POST /predict: scores for pairs of a vacancy and a CV."""

from flask import Response, g
from flask_openapi import APIBlueprint

from gateway.access import SECURITY, requires
from gateway.audit import digest
from gateway.openapi import problems
from gateway.schemas import Pair, Pairs, Score, ScoreQuery, Scores
from gateway.services import audit, services

blueprint = APIBlueprint("prediction", __name__, abp_security=SECURITY)

COLUMNS = list(Pair.model_fields)


@blueprint.post(
    "/predict",
    summary="Score one pair, or up to 1,000",
    responses={200: Scores, **problems(400, 401, 403, 413, 415, 422, 502, 503, 504)},
)
@requires("recruiter")
def predict(body: Pairs, query: ScoreQuery) -> Response:
    """The chance of being hired, and how well vacancy and CV match."""
    pairs = body.root if isinstance(body.root, list) else [body.root]
    scores = score(pairs, reasons=query.reasons, threshold=query.threshold, route="/predict")
    answer = Scores(scores if isinstance(body.root, list) else scores[0])
    return Response(answer.model_dump_json(exclude_none=True), content_type="application/json")


def score(
    pairs: list[Pair], *, reasons: int = 0, threshold: float | None = None, **facts: object
) -> list[Score]:
    """Score the pairs, and count it and record it with `facts`. Raises Problem, AuditError."""
    params: dict[str, float] = {}
    if reasons:
        params["reasons"] = reasons
    if threshold is not None:
        params["threshold"] = threshold
    rows = [[getattr(pair, column) for column in COLUMNS] for pair in pairs]
    scores = services().model.score(COLUMNS, rows, params)
    record(
        scores,
        inputs=[digest(dict(zip(COLUMNS, row, strict=True))) for row in rows],
        threshold=threshold,
        **facts,
    )
    return scores


def record(scores: list[Score], **facts: object) -> None:
    """Count the scores, and write who got them from which version. Raises AuditError."""
    version = scores[0].model_version if scores else None
    g.model_version = version
    audit(
        "prediction",
        model_version=version,
        scores=[[s.probability, s.match, s.prediction] for s in scores],
        **facts,
    )
    metrics = services().metrics
    for s in scores:
        metrics.predictions.labels(str(s.model_version), s.prediction).inc()
        metrics.scores.labels("probability").observe(s.probability)
        metrics.scores.labels("match").observe(s.match)
