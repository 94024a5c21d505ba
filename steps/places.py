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


class Best:
    """The best rows of each vacancy in tables that come one after the other. They are sorted out
    whenever as many have come as were kept: a row is looked at a few times at most, and no more
    than twice what is kept stays in memory."""

    FEWEST = 50_000

    def __init__(self, top_k: int) -> None:
        self._top_k = top_k
        self._tables: list[pl.DataFrame] = []
        self._rows, self._most = 0, self.FEWEST

    def add(self, rows: pl.DataFrame) -> None:
        self._tables.append(rows)
        self._rows += len(rows)
        if self._rows > self._most:
            self._tables = [self.rows()]
            self._rows = len(self._tables[0])
            self._most = max(self.FEWEST, 2 * self._rows)

    def rows(self) -> pl.DataFrame:
        """In the order of `best`: the vacancies one after the other."""
        return best(pl.concat(self._tables), self._top_k)
