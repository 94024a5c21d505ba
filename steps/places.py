"""The best rows of each vacancy."""

import polars as pl

EQUAL_DIGITS = 12
"""Sums in another order differ beyond them, which must not decide who comes first."""


def best(rows: pl.DataFrame, top_k: int) -> pl.DataFrame:
    """The `top_k` rows of each vacancy with the highest match, best first; of equals (to
    `EQUAL_DIGITS`) the one that comes first in the input."""
    match = pl.col("match").round(EQUAL_DIGITS)
    ordered = rows.sort("vacancy", match, "row", descending=[False, True, False])
    # `head` puts the group's column first
    return ordered.group_by("vacancy", maintain_order=True).head(top_k).select(rows.columns)
