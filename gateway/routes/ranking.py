"""POST /rank: the best candidates for a vacancy."""

from flask import Response
from flask_openapi import APIBlueprint

from gateway.access import SECURITY, requires
from gateway.audit import digest
from gateway.errors import Problem
from gateway.openapi import problems
from gateway.routes.prediction import record, score
from gateway.schemas import (
    Candidate,
    Pair,
    RankedCandidate,
    Ranking,
    RankingQuery,
    RankingRequest,
    Vacancy,
)
from gateway.services import services

blueprint = APIBlueprint("ranking", __name__, abp_security=SECURITY)

COLUMNS = list(Vacancy.model_fields)


@blueprint.post(
    "/rank",
    summary="Rank candidates for a vacancy",
    responses={200: Ranking, **problems(400, 401, 403, 409, 413, 415, 422, 502, 503, 504)},
)
@requires("recruiter")
def rank(body: RankingRequest, query: RankingQuery) -> Response:
    """The best of `candidates`, or of the served model's own pool, by `match`."""
    vacancy = {column: getattr(body, column) for column in COLUMNS}
    if body.candidates is None:
        ranked = _rank_pool(vacancy, body.top_k)
    else:
        ranked = _rank_candidates(vacancy, body.candidates, body.top_k, query.reasons)
    if not ranked:
        raise Problem("conflict", "the served model has no pool: send `candidates`")
    answer = Ranking(model_version=ranked[0].model_version, ranking=ranked)
    return Response(answer.model_dump_json(exclude_none=True), content_type="application/json")


def _rank_pool(vacancy: dict[str, str], top_k: int) -> list[RankedCandidate]:
    ranked = services().model.rank_pool(COLUMNS, list(vacancy.values()), {"top_k": top_k})
    record(
        list(ranked), route="/rank", pool=True, top_k=top_k, inputs=[digest(vacancy)],
        codes=[row.codigo for row in ranked],
    )  # fmt: skip
    return ranked


def _rank_candidates(
    vacancy: dict[str, str], candidates: list[Candidate], top_k: int, reasons: int
) -> list[RankedCandidate]:
    pairs = [Pair(**vacancy, cv_pt=candidate.cv_pt) for candidate in candidates]
    scores = score(
        pairs, reasons=reasons, route="/rank", pool=False, top_k=top_k,
        codes=[candidate.codigo for candidate in candidates],
    )  # fmt: skip
    scored = zip(candidates, scores, strict=True)
    # a stable sort: equals stay in the order in which they were sent
    best = sorted(scored, key=lambda pair: -pair[1].match)[:top_k]
    return [
        RankedCandidate(rank=place, codigo=candidate.codigo, **score_.model_dump())
        for place, (candidate, score_) in enumerate(best, start=1)
    ]
