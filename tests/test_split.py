"""Which vacancies are held out: the latest, holding about `test_size` of the pairs."""

import numpy as np
import polars as pl
import pytest

from steps.corpus import Pairs, pairs_of
from steps.failure import StepError
from steps.featurize import split_by_time
from steps.ingest import candidates_table, pairs_table, vacancies_table
from steps.records import Candidate, ProspectList, Vacancy, batches, read
from tests.conftest import SAMPLE

NEVER = np.datetime64("NaT")


def day(number: int) -> np.datetime64:
    return np.datetime64("2021-01-01") + np.timedelta64(number, "D")


def pairs(*vacancies: int) -> Pairs:
    """One pair with a CV for each given vacancy; one in two is hired."""
    n = len(vacancies)
    hired = np.array(vacancies) * 0 + np.arange(n) % 2
    return Pairs(np.array(vacancies), np.arange(n), np.arange(n), hired,
                 np.zeros(n, bool), np.ones(n, bool))  # fmt: skip


def split(dates: list[np.datetime64], *per_vacancy: int, test_size: float) -> tuple[int, str]:
    """How many pairs are held out, and from which day on, where vacancy v has that many pairs."""
    listed = pairs(*np.repeat(np.arange(len(dates)), per_vacancy))
    held_out, first_day = split_by_time(np.array(dates), listed, test_size)
    assert (held_out == ([d >= first_day for d in dates])).all()
    return int(held_out[listed.vacancy].sum()), str(first_day)


def test_pairs_without_a_date_do_not_make_the_held_out_part_smaller() -> None:
    dates = [day(i) for i in range(41)] + [NEVER]
    assert split(dates, *[2] * 41, 18, test_size=0.2) == (16, str(day(33)))


@pytest.mark.parametrize(("per_day", "test_size", "expected"), [
    ([2] * 10, 0.2, (4, 8)), ([40, 8, 44, 8], 0.2, (8, 3)), ([40, 40, 2], 0.2, (2, 2)),
    ([10, 90], 0.2, (90, 1)), ([50, 50], 0.9, (50, 1)), ([2, 2], 0.0001, (2, 1)),
])  # fmt: skip
def test_no_day_is_divided(
    per_day: list[int], test_size: float, expected: tuple[int, int]
) -> None:
    dates = [day(i) for i in range(len(per_day))]
    held_out, first = expected
    assert split(dates, *per_day, test_size=test_size) == (held_out, str(day(first)))


@pytest.mark.parametrize(("dates", "per_vacancy", "says"), [
    ([NEVER], [4], "needs dates"), ([day(0)], [4], "before 2021-01-01"),
    ([day(0), day(1)], [4, 1], "from 2021-01-02"),
])  # fmt: skip
def test_nothing_to_split_is_told(
    dates: list[np.datetime64], per_vacancy: list[int], says: str
) -> None:
    with pytest.raises(StepError, match=says):
        split(dates, *per_vacancy, test_size=0.2)


def test_the_sample_is_split_where_its_figures_were_measured() -> None:
    vacancies, _ = vacancies_table(read(SAMPLE / "vagas.json", Vacancy))
    candidates, _ = candidates_table(batches(SAMPLE / "applicants.json", Candidate))
    listed, *_ = pairs_table(read(SAMPLE / "prospects.json", ProspectList), vacancies, candidates)
    dates = vacancies["data_requicisao"].cast(pl.Date).to_numpy().astype("datetime64[D]")
    _, first_day = split_by_time(dates, pairs_of(listed, vacancies, candidates), 0.2)
    assert str(first_day) == "2021-07-02"
