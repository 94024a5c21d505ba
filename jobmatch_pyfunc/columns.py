"""The texts of a request, by column: the distinct ones, and which of them each row has."""

from collections.abc import Hashable, Iterable
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from jobmatch_pyfunc.scoring import Ints

K = TypeVar("K", bound=Hashable)


class Texts(NamedTuple):
    """A column of texts."""

    distinct: list[str] | pa.LargeStringArray
    row: Ints
    """Which of the distinct ones each row has."""

    @classmethod
    def of(cls, values: Iterable[str]) -> "Texts":
        return cls(*distinct(values))

    @classmethod
    def of_strings(cls, column: pd.Series) -> "Texts":
        """A column of pandas' string type, whose texts stay in Arrow; missing ones are empty."""
        encoded = as_arrow(column.fillna("")).dictionary_encode()
        return cls(encoded.dictionary, np.asarray(encoded.indices, np.int64))

    def text(self, number: int) -> str:
        """One of the distinct texts."""
        one = self.distinct[number]
        return one if isinstance(one, str) else str(one.as_py())


class VacancyTexts(NamedTuple):
    """The texts of vacancies, one vacancy a row."""

    title: Texts
    activities: Texts
    requirements: Texts

    @classmethod
    def of(cls, vacancies: Iterable[tuple[str, str, str]]) -> "VacancyTexts":
        """Of (title, activities, requirements) of each row; at least one."""
        return cls(*map(Texts.of, zip(*vacancies, strict=True)))


def distinct(values: Iterable[K]) -> tuple[list[K], Ints]:
    """The distinct values as they first come, and which of them each value is."""
    numbers: dict[K, int] = {}
    rows = np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)
    return list(numbers), rows


def as_arrow(texts: "list[str] | pd.Series | pa.LargeStringArray") -> pa.LargeStringArray:
    """Texts as one Arrow array, not copied where they are in Arrow already."""
    try:
        array = pa.array(texts, pa.large_string())
    except UnicodeEncodeError:  # halves of surrogate pairs, which end a word as `?` does
        whole = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        array = pa.array(whole, pa.large_string())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
