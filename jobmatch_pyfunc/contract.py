"""What goes into the model and what comes out, in one place for training and serving."""

from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

TITLE = "titulo_vaga"
ACTIVITIES = "principais_atividades"
REQUIREMENTS = "competencia_tecnicas_e_comportamentais"
CV = "cv_pt"

VACANCY_TEXTS = (TITLE, ACTIVITIES, REQUIREMENTS)
OPTIONAL_TEXTS = (TITLE,)
REQUIRED_TEXTS = (ACTIVITIES, REQUIREMENTS)
"""Needed in every row; the CV too, unless the model's own pool is ranked."""

HIRED, NOT_HIRED = "Contratado", "Não contratado"


def signature(threshold: float) -> ModelSignature:
    """The MLflow signature of a model whose own decision threshold is `threshold`."""
    # The CV is optional here only because a ranking of the pool has none; `predict` asks for it
    # by name in every other case.
    inputs = Schema([
        *(ColSpec(DataType.string, name, required=False) for name in OPTIONAL_TEXTS),
        *(ColSpec(DataType.string, name) for name in REQUIRED_TEXTS),
        ColSpec(DataType.string, CV, required=False),
    ])
    outputs = Schema(
        [
            ColSpec(DataType.double, "probability"),
            ColSpec(DataType.string, "prediction"),
            ColSpec(DataType.double, "confidence"),
            ColSpec(DataType.double, "match"),
            ColSpec(DataType.long, "model_version"),
        ]
    )
    params = ParamSchema(
        [
            ParamSpec("threshold", DataType.double, threshold),
            ParamSpec("reasons", DataType.long, 0),
            ParamSpec("top_k", DataType.long, 0),
        ]
    )
    return ModelSignature(inputs, outputs, params)
