"""Who fits a vacancy best, or which vacancies fit a candidate best, with the reasons.

Reads   data_dir, a registered version
Writes  ranking.parquet, ranking.csv: one row a place, best first. With reasons, for both scores
        logit = intercept + contributions of the terms + other; the Parquet file holds the terms
        in full (term, where, contribution), both files the same for reading (`java +0.81; …`)
Logs    the ranking, counts

`by=vacancy` ranks the candidates with a CV for each vacancy in `codes`; `by=candidate` ranks the
vacancies that are still open for each candidate in `codes`. `codes` are codes separated by
commas, `open` (every vacancy in which nobody has been hired) or `all`. The order is that of
`match`; `probability` stands beside it.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import mlflow
import numpy as np
import polars as pl
import pyarrow as pa
from mlflow import MlflowClient
from numpy.typing import NDArray
from pydantic import Field

from jobmatch_pyfunc.contract import HIRED, NOT_HIRED, VACANCY_TEXTS
from jobmatch_pyfunc.model import SHIPPED, FittedModel
from jobmatch_pyfunc.reasons import (
    NO_KNOWN_TERMS,
    Explainer,
    PairReasons,
    Reasons,
    Term,
    Where,
    vacancy_text,
)
from jobmatch_pyfunc.scoring import Candidates, Vacancies, best_first, sigmoid
from steps import ingest
from steps.corpus import Corpus, Pairs, corpus_of, has_cv, pairs_of
from steps.failure import StepError
from steps.ingest import IngestParameters
from steps.parameters import select
from steps.progress import Progress
from steps.registry import Wanted, resolve
from steps.scratch import write_table
from steps.session import run_step
from steps.tokens import tokenise
from steps.versions import load_version

SHOWN = 20
"""Places printed to the terminal; the artifact holds all."""
EXPLAINED = 20_000
"""Places whose reasons are in memory at a time, as Python objects."""
Places = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Vacancy, candidate and match logit of each place."""


class RankParameters(IngestParameters):
    version: Wanted
    by: Literal["vacancy", "candidate"]
    codes: str = Field(min_length=1)
    top_k: int = Field(ge=1, le=100_000)
    reasons: int = Field(ge=0, le=50)


def chosen(codes: str, known: list[str], is_open: NDArray[np.bool_], kind: str) -> NDArray:
    """Numbers of the records asked for, each once. Raises StepError naming codes that are not
    there."""
    if codes == "all":
        return np.arange(len(known))
    if codes == "open":
        return np.flatnonzero(is_open)
    number = {code: i for i, code in enumerate(known)}
    wanted = dict.fromkeys(code.strip() for code in codes.split(",") if code.strip())
    if not wanted:
        raise StepError("rank: codes names no code; give some, separated by commas")
    missing = [code for code in wanted if code not in number]
    if missing:
        raise StepError(f"rank: no {kind} with code {', '.join(missing[:5])} in data_dir"
                        + (f" (and {len(missing) - 5} more)" if len(missing) > 5 else ""))
    return np.array([number[code] for code in wanted], np.int64)


def open_vacancies(vacancies: int, pairs: Pairs) -> NDArray[np.bool_]:
    """True for each vacancy in which nobody has been hired."""
    return np.bincount(pairs.vacancy, weights=pairs.hired, minlength=vacancies) == 0


def rankings(
    model: FittedModel, vacancies: Vacancies, candidates: Candidates, rows: NDArray,
    others: NDArray, by: str, top_k: int,
) -> Iterator[Places]:
    """For each row its best places."""
    scorer = model.scorer
    for row in rows:
        if by == "vacancy":
            logits = scorer.match_logits(vacancies, row, candidates)[others]
        else:
            logits = scorer.match_logits_of_candidate(vacancies, candidates, row)[others]
        best = best_first(logits, top_k)
        mine, theirs = np.full(len(best), row), others[best]
        yield (mine, theirs, logits[best]) if by == "vacancy" else (theirs, mine, logits[best])


def as_table(
    model: FittedModel, vacancies: Vacancies, candidates: Candidates, found: list[Places]
) -> pl.DataFrame:
    """All places of all rankings, with both scores."""
    v, c, match = (np.concatenate(column) for column in zip(*found, strict=True))
    scorer = model.scorer
    hire = scorer.hire_logits(
        scorer.vacancy_part(vacancies)[v], scorer.candidate_part(candidates)[c], match)
    probability = sigmoid(hire)
    return pl.DataFrame({
        "rank": np.concatenate([np.arange(1, len(places[0]) + 1) for places in found]),
        "v": v, "c": c, "match": sigmoid(match), "probability": probability,
        "prediction": np.where(probability >= model.threshold, HIRED, NOT_HIRED),
    })


def in_words(reasons: Reasons) -> str:
    """`java +0.81; spring boot +0.40`"""
    terms = "; ".join(f"{term.term} {term.contribution:+.2f}" for term in reasons.terms)
    return terms or ("" if reasons.known else NO_KNOWN_TERMS)


def with_reasons(
    table: pl.DataFrame, explainer: Explainer, jobs: pl.DataFrame, people: pl.DataFrame, most: int,
    progress: Progress,
) -> pl.DataFrame:
    """The table with the reasons of both scores beside each place."""

    def text_of(where: Where, number: int) -> str:
        if where == "vacancy":
            return vacancy_text(*(jobs[name][number] for name in VACANCY_TEXTS))
        return people["cv_pt"][number]

    def pairs(begin: int, block: pl.DataFrame) -> Iterator[tuple[int, int]]:
        for number, pair in enumerate(zip(block["v"], block["c"], strict=True), begin):
            yield pair
            progress.within(number / table.height)

    columns = []
    for begin in range(0, table.height, EXPLAINED):
        block = table.slice(begin, EXPLAINED)
        columns.append(reason_columns(explainer.explain(pairs(begin, block), text_of, most)))
    return table.hstack(pl.concat(columns))


def reason_columns(pairs: list[PairReasons]) -> pl.DataFrame:
    """The reasons as columns, those of `match` first."""
    columns: dict[str, pl.Series] = {}
    for score in PairReasons._fields:
        of_score: list[Reasons] = [getattr(pair, score) for pair in pairs]
        columns[f"{score}_reasons"] = pl.Series([in_words(one) for one in of_score])
        for name in ("logit", "intercept", "other"):
            columns[f"{score}_{name}"] = pl.Series([getattr(one, name) for one in of_score])
        columns[f"{score}_terms"] = term_lists(of_score)
    return pl.DataFrame(columns)


def term_lists(reasons: list[Reasons]) -> pl.Series:
    """The terms of each, as a list of structs."""
    ends = np.cumsum([0, *(len(one.terms) for one in reasons)], dtype=np.int32)
    terms = [term for one in reasons for term in one.terms]
    fields = [[getattr(term, name) for term in terms] for name in Term._fields]
    types = (pa.string(), pa.string(), pa.float64())
    structs = pa.StructArray.from_arrays(
        [pa.array(values, type_) for values, type_ in zip(fields, types, strict=True)],
        list(Term._fields))
    return pl.Series(pa.ListArray.from_arrays(pa.array(ends), structs))  # from dicts it is slow


def rank(p: RankParameters) -> None:
    if p.by == "candidate" and p.codes == "open":
        raise StepError("rank: by=candidate needs codes=CODE,CODE,… or codes=all")
    version = load_version(resolve(MlflowClient(), p.version))
    model = version.part(SHIPPED)
    jobs, people, listed = ingest.tables(select(IngestParameters, p))
    progress = Progress({"tokenising": 40, "ranking": 15, "reasons": 40, "logging": 5})
    progress.stage("tokenising")
    rows, others = who_and_whom(p, jobs, people, listed)
    texts, used = corpus_of(jobs, people)
    corpus = Corpus(tokenise(texts, progress.within), **used)
    vacancies, candidates = corpus.vectors(model.terms, model.space)
    progress.stage("ranking")
    found = []
    for number, places in enumerate(
        rankings(model, vacancies, candidates, rows, others, p.by, p.top_k)):
        found.append(places)
        progress.within(number / len(rows))
    table = as_table(model, vacancies, candidates, found)
    progress.stage("reasons")
    if p.reasons:
        explainer = Explainer(model.scorer, model.terms, vacancies, candidates)
        table = with_reasons(table, explainer, jobs, people, p.reasons, progress)
    progress.stage("logging")
    ranking = with_codes(table, jobs, people)
    _log(ranking)
    mlflow.log_metrics({"ranked": len(rows), "places": ranking.height})
    mlflow.set_tag("jobmatch.version", version.number)
    progress.finish()
    _show(ranking, version.number)


def who_and_whom(
    p: RankParameters, jobs: pl.DataFrame, people: pl.DataFrame, listed: pl.DataFrame
) -> tuple[NDArray, NDArray]:
    """Numbers of those to rank for, and of those to be ranked. Raises StepError where there are
    none."""
    is_open = open_vacancies(jobs.height, pairs_of(listed, jobs, people))
    filled = has_cv(people)
    if p.by == "vacancy":
        rows = chosen(p.codes, jobs["codigo"].to_list(), is_open, "vacancy")
        others = np.flatnonzero(filled)
    else:
        rows = chosen(p.codes, people["codigo"].to_list(), filled, "candidate")
        if p.codes != "all" and not filled[rows].all():
            without = [people["codigo"][int(row)] for row in rows[~filled[rows]]]
            print(f"not ranked, since they have no CV: {', '.join(without)}")
        rows = rows[filled[rows]]
        others = np.flatnonzero(is_open)
    if not len(rows) or not len(others):
        raise StepError("rank: nothing to rank: no open vacancy, or no candidate of these has a CV")
    return rows, others


def with_codes(table: pl.DataFrame, jobs: pl.DataFrame, people: pl.DataFrame) -> pl.DataFrame:
    """The table with codes and titles in place of numbers."""
    ranking = table.with_columns(
        vaga=jobs["codigo"].gather(table["v"]), titulo_vaga=jobs["titulo_vaga"].gather(table["v"]),
        candidato=people["codigo"].gather(table["c"]),
    ).drop("v", "c")
    first = ["vaga", "titulo_vaga", "rank", "candidato"]
    return ranking.select(*first, *[c for c in ranking.columns if c not in first])


def _log(ranking: pl.DataFrame) -> None:
    with TemporaryDirectory() as folder:
        write_table(ranking, Path(folder) / "ranking.parquet")
        nested = [name for name, kind in ranking.schema.items() if kind.is_nested()]
        ranking.drop(nested).write_csv(Path(folder) / "ranking.csv")
        mlflow.log_artifacts(folder)


def _show(ranking: pl.DataFrame, version: str) -> None:
    for row in ranking.head(SHOWN).iter_rows(named=True):
        reasons = row.get("match_reasons", "")
        print(f"{row['vaga']:>8} {row['titulo_vaga'][:32]:<32} {row['rank']:>4}  "
              f"{row['candidato']:>8}  match {row['match']:.3f}  "
              f"probability {row['probability']:.3f}  {reasons[:90]}")
    if ranking.height > SHOWN:
        print(f"... {ranking.height - SHOWN:,} more in ranking.csv")
    print(f"\nversion {version}; ordered by match; all places and reasons: ranking.csv and "
          "ranking.parquet in this run's artifacts (mlflow server)")


if __name__ == "__main__":
    run_step("rank", RankParameters, rank)
