"""What comes in and what goes out. The same models validate, document and build the answers."""

from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, RootModel, Tag

MAXIMUM_BODY_BYTES = 2 * 1024 * 1024
MAXIMUM_ROWS = 1000
MAXIMUM_TITLE, MAXIMUM_VACANCY_TEXT, MAXIMUM_CV, MAXIMUM_CODE = 1_000, 50_000, 1_000_000, 64


def _integral(value: Any) -> Any:
    """JSON Schema calls 5.0 an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


INTEGRAL = BeforeValidator(_integral)
"""After the bounds in an annotation: what comes after it is not in the JSON schema."""


class _In(BaseModel):
    """From a client: nothing unknown, nothing converted."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )


class _Query(BaseModel):
    """From a query string, where everything is text."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
        """The schema; made once, since flask-openapi asks for it at every request."""
        if args or options:
            return super().model_json_schema(*args, **options)
        return _schema(cls)


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return BaseModel.model_json_schema.__func__(model)  # type: ignore[attr-defined]


class _Out(BaseModel):
    """To a client; also what is taken from a server behind us, whose additions are left out."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, allow_inf_nan=False)


# --- login


class Credentials(_In):
    username: str = Field(min_length=1, max_length=64, examples=["admin"])
    password: str = Field(
        min_length=1, max_length=1024, json_schema_extra={"format": "password"}
    )


class AccessToken(_Out):
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int = Field(description="seconds", examples=[900])


# --- predict


class Vacancy(_In):
    titulo_vaga: str = Field("", max_length=MAXIMUM_TITLE, examples=["Desenvolvedor Java"])
    principais_atividades: str = Field(
        max_length=MAXIMUM_VACANCY_TEXT, examples=["Desenvolver serviços REST"]
    )
    competencia_tecnicas_e_comportamentais: str = Field(
        max_length=MAXIMUM_VACANCY_TEXT, examples=["Java, Spring, SQL"]
    )


class Pair(Vacancy):
    """A vacancy and a candidate's CV."""

    cv_pt: str = Field(max_length=MAXIMUM_CV, examples=["Cinco anos com Java e Spring Boot"])


def _one_or_many(value: Any) -> str:
    return "many" if isinstance(value, list) else "one"


class Pairs(
    RootModel[
        Annotated[
            Annotated[Pair, Tag("one")]
            | Annotated[
                Annotated[list[Pair], Field(min_length=1, max_length=MAXIMUM_ROWS)], Tag("many")
            ],
            Discriminator(_one_or_many),
        ]
    ]
):
    """One pair, or a list of up to 1,000."""

    model_config = ConfigDict(hide_input_in_errors=True)


class ScoreQuery(_Query):
    reasons: int = Field(0, ge=0, le=50, description="terms to show for each score; 0 for none")
    threshold: float | None = Field(
        default=None, ge=0, le=1, description="decides `prediction`; the model's own when not given"
    )


class Term(_Out):
    term: str = Field(examples=["spring boot"])
    where: Literal["cv", "vacancy", "both"] = Field(description="the text that holds it")
    contribution: float


class Explanation(_Out):
    """intercept + the contributions + other = logit."""

    logit: float
    intercept: float
    terms: list[Term]
    other: float
    note: str | None = Field(default=None, examples=["no known terms"])


class Reasons(_Out):
    match: Explanation
    probability: Explanation


class Score(_Out):
    probability: float = Field(ge=0, le=1, description="chance of being hired", examples=[0.87])
    prediction: Literal["Contratado", "Não contratado"]
    confidence: float = Field(ge=0, le=1, description="|2 * probability - 1|", examples=[0.74])
    match: float = Field(
        ge=0, le=1, examples=[0.91],
        description="would a recruiter put this person forward for this vacancy?",
    )  # fmt: skip
    model_version: int = Field(examples=[3])
    reasons: Reasons | None = None


class Scores(RootModel[Score | list[Score]]):
    """One score, or a list in the order of the request."""


# --- rank


class Candidate(_In):
    codigo: str = Field(min_length=1, max_length=MAXIMUM_CODE, examples=["31000"])
    cv_pt: str = Field(max_length=MAXIMUM_CV)


class RankingRequest(Vacancy):
    """A vacancy and whom to rank for it: `candidates`, or the served model's own pool."""

    top_k: Annotated[int, Field(ge=1, le=MAXIMUM_ROWS), INTEGRAL] = 10
    candidates: list[Candidate] | None = Field(default=None, min_length=1, max_length=MAXIMUM_ROWS)


class RankingQuery(_Query):
    reasons: int = Field(
        0, ge=0, le=50, description="terms to show for each score; only with `candidates`"
    )


class RankedCandidate(Score):
    rank: int = Field(ge=1)
    codigo: str


class Ranking(_Out):
    model_version: int
    ranking: list[RankedCandidate] = Field(description="the best first, by `match`")


# --- train


Count = Annotated[int, Field(ge=1, le=1_000_000), INTEGRAL]
# a decimal above 0
_POSITIVE = r"(0{0,5}[1-9][0-9]{0,5}(\.[0-9]{1,9})?|0{1,6}\.0{0,8}[1-9][0-9]{0,8})"
NgramRange = Literal["1,1", "1,2", "2,2"]


class TrainingParameters(_In):
    """Parameters of the entry point `train`; what is not given is as MLproject declares it.

    Where the records are read from is not for a client to say: see GATEWAY_TRAIN_DATA_DIR.
    """

    test_size: float | None = Field(default=None, gt=0, lt=1)
    random_state: Annotated[int, Field(ge=0, lt=2**32), INTEGRAL] | None = None
    tfidf_job_description_max_features: Count | None = None
    tfidf_job_description_ngram_range: NgramRange | None = None
    tfidf_job_requirements_max_features: Count | None = None
    tfidf_job_requirements_ngram_range: NgramRange | None = None
    tfidf_candidate_cv_max_features: Count | None = None
    tfidf_candidate_cv_ngram_range: NgramRange | None = None
    min_df: Count | None = None
    max_df: float | None = Field(default=None, gt=0, le=1)
    vocabulary_max_features: Count | None = None
    vocabulary_ngram_range: NgramRange | None = None
    latent_dimensions: Annotated[int, Field(ge=1, le=500), INTEGRAL] | None = None
    grid_search_c_values: str | None = Field(
        default=None, max_length=200, examples=["0.1,1,10"],
        pattern=f"^{_POSITIVE}(,{_POSITIVE}){{0,19}}$",
    )  # fmt: skip
    grid_search_cv: Annotated[int, Field(ge=2, le=50), INTEGRAL] | None = None
    grid_search_scoring: (
        Literal["roc_auc", "average_precision", "neg_log_loss", "neg_brier_score", "f1"] | None
    ) = None
    logistic_regression_max_iter: Annotated[int, Field(ge=1, le=100_000), INTEGRAL] | None = None
    negatives_per_pair: Annotated[int, Field(ge=1, le=1000), INTEGRAL] | None = None
    undecided_weight: float | None = Field(default=None, gt=0, le=1)


class RunPath(_Query):
    run_id: str = Field(pattern=r"^[0-9a-f]{32}$", examples=["0f9a3c5be1d24c1f8f0e8b2a4d6c7e91"])


class TrainingStarted(_Out):
    run_id: str
    status: Literal["running"] = "running"
    status_url: str = Field(examples=["/train/0f9a3c5be1d24c1f8f0e8b2a4d6c7e91"])


class Training(_Out):
    run_id: str
    state: Literal["scheduled", "running", "finished", "failed", "killed"]
    stage: str | None = Field(default=None, examples=["featurize"])
    percent: int | None = Field(default=None, ge=0, le=100)
    started: datetime | None = None
    ended: datetime | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    version: int | None = Field(default=None, description="the version that was registered")
    gate: str | None = Field(default=None, examples=["passed"])
    error: str | None = None


# --- models


class VersionPath(_Query):
    version: int = Field(ge=1, le=2_147_483_647, examples=[1])


class Promotion(_In):
    force: bool = Field(False, description="promote although the version failed its gate")


class ModelVersion(_Out):
    version: int
    created: datetime
    aliases: list[str]
    run_id: str | None = None
    gate: str | None = Field(default=None, examples=["passed"])
    gate_reason: str | None = None
    promoted_by: str | None = None
    promoted_at: str | None = None
    replaced_version: str | None = None
    forced: str | None = Field(
        default=None, examples=["false"], description="promoted although it failed its gate"
    )
    serving_since: str | None = None
    refused_because: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict, examples=[{"hire_auc": 0.79}])


class Models(_Out):
    name: str
    aliases: dict[str, int] = Field(examples=[{"production": 3, "staging": 4}])
    versions: list[ModelVersion] = Field(description="the newest first")


class Promoted(_Out):
    version: int
    replaced_version: int | None = None
    promoted_by: str | None = Field(description="none when the registry has no record of it")
    promoted_at: str | None
    forced: bool


# --- health


class Alive(_Out):
    status: Literal["alive"] = "alive"


class Ready(_Out):
    state: Literal["ready", "swapping"]
    model_version: int
    next_version: int | None = None


class ServedState(_Out):
    state: Literal["waiting", "ready", "swapping"]
    model_version: int | None = None
    next_version: int | None = None


# --- errors


class FieldError(_Out):
    field: str
    reason: str


class ProblemDetails(_Out):
    """RFC 9457."""

    type: str = Field(examples=["urn:jobmatch:problem:invalid-field"])
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    request_id: str = Field(description="also in the header X-Request-ID and in the log")
    errors: list[FieldError] | None = None
    run_id: str | None = Field(default=None, description="the training that is under way")
    status_url: str | None = None
