"""Keeps out columns that would know the outcome.

A column may be a feature only if it is written before anybody decides. What recruiters add later
(dates of updates, comments, their own names, a position held after hiring) tells the outcome and
nothing about the person: on real records the time since the last update alone has an AUC of 0.85.
"""

import polars as pl

from steps.failure import StepError

ALLOWED = {
    "vacancies": frozenset({
        "codigo", "data_requicisao", "titulo_vaga", "principais_atividades",
        "competencia_tecnicas_e_comportamentais",
    }),
    "candidates": frozenset({"codigo", "cv_pt"}),
    "pairs": frozenset({"vaga", "candidato", "outcome", "data_candidatura"}),
}
"""The columns each table may have. A new one is a decision: add it here and say why it is known
before the outcome."""


def require_allowed(name: str, table: pl.DataFrame) -> None:
    """Raises StepError naming a column that is not on the allow-list."""
    strange = sorted(set(table.columns) - ALLOWED[name])
    if strange:
        raise StepError(
            f"{name}: column {strange[0]!r} is not on the allow-list of features "
            "(steps/leaks.py); add it there only if it is known before the outcome")
