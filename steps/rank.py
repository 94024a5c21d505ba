"""Who fits a vacancy best, or which vacancies fit a candidate best, with the reasons.

Reads   data_dir, a registered version
Writes  ranking.parquet, ranking.csv: one row a place, best first
Logs    the ranking, counts

`by=vacancy` ranks the candidates with a CV for each vacancy in `codes`; `by=candidate` ranks the
vacancies that are still open for each candidate in `codes`. `codes` are codes separated by
commas, `open` (every vacancy in which nobody has been hired) or `all`. The order is that of
`match`; `probability` stands beside it.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import mlflow
import numpy as np
import polars as pl
from mlflow import MlflowClient
from numpy.typing import NDArray
from pydantic import Field

from jobmatch_pyfunc.contract import HIRED, NOT_HIRED, VACANCY_TEXTS
from jobmatch_pyfunc.model import SHIPPED, FittedModel
from jobmatch_pyfunc.reasons import explain
from jobmatch_pyfunc.scoring import Candidates, Vacancies, best_first, sigmoid
from steps import ingest
from steps.corpus import Corpus, Pairs, corpus_of, pairs_of
from steps.failure import StepError
from steps.ingest import IngestParameters
from steps.parameters import select
from steps.progress import Progress
from steps.registry import PRODUCTION, STAGING, resolve
from steps.session import run_step
from steps.tokens import tokenise
from steps.versions import load_version

SHOWN = 20
"""Places printed to the terminal; the artifact holds all."""


class RankParameters(IngestParameters):
    version: str = Field(pattern=rf"^([1-9]\d{{0,8}}|{STAGING}|{PRODUCTION})$")
    by: Literal["vacancy", "candidate"]
    codes: str = Field(min_length=1)
    top_k: int = Field(ge=1, le=100_000)
    reasons: int = Field(ge=0, le=50)


def chosen(codes: str, known: list[str], is_open: NDArray[np.bool_], kind: str) -> NDArray:
    """Numbers of the records asked for. Raises StepError naming codes that are not there."""
    if codes == "all":
        return np.arange(len(known))
    if codes == "open":
        return np.flatnonzero(is_open)
    number = {code: i for i, code in enumerate(known)}
    wanted = [code.strip() for code in codes.split(",") if code.strip()]
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
) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
    """For each row the pairs (vacancy, candidate) of its best places and their match logits."""
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
    model: FittedModel, vacancy_part: NDArray, candidate_part: NDArray,
    places: tuple[NDArray, NDArray, NDArray],
) -> pl.DataFrame:
    v, c, match = places
    hire = model.scorer.hire_logits(vacancy_part[v], candidate_part[c], match)
    probability = sigmoid(hire)
    return pl.DataFrame({
        "v": v, "c": c, "match": sigmoid(match), "probability": probability,
        "prediction": np.where(probability >= model.threshold, HIRED, NOT_HIRED),
    })


def in_words(reasons: dict[str, Any], score: str) -> str:
    """`java +0.81; spring boot +0.40`"""
    terms = "; ".join(f"{r['term']} {r['contribution']:+.2f}" for r in reasons[score]["terms"])
    return terms or reasons[score].get("note", "")


def rank(p: RankParameters) -> None:
    if p.by == "candidate" and p.codes == "open":
        raise StepError("rank: by=candidate needs codes=CODE,CODE,… or codes=all")
    version = load_version(resolve(MlflowClient(), p.version))
    model = version.part(SHIPPED)
    tables = ingest.bring_about(select(IngestParameters, p))
    progress = Progress({"tokenising": 30, "ranking": 40, "reasons": 25, "logging": 5})
    progress.stage("tokenising")
    jobs, people, listed = (pl.read_parquet(tables / f"{n}.parquet") for n in ingest.TABLES)
    pairs = pairs_of(listed, jobs, people)
    is_open = open_vacancies(jobs.height, pairs)
    filled = (people["cv_pt"].str.strip_chars() != "").to_numpy()
    if p.by == "vacancy":
        rows = chosen(p.codes, jobs["codigo"].to_list(), is_open, "vacancy")
        others = np.flatnonzero(filled)
    else:
        rows = chosen(p.codes, people["codigo"].to_list(), filled, "candidate")
        rows = rows[filled[rows]]
        others = np.flatnonzero(is_open)
    if not len(rows) or not len(others):
        raise StepError("rank: nothing to rank: no open vacancy, or no candidate of these has a CV")
    texts, used = corpus_of(jobs, people)
    corpus = Corpus(tokenise(texts, progress.within), **used)
    vacancies, candidates = corpus.vectors(model.terms, model.space)
    progress.stage("ranking")
    vacancy_part = model.scorer.vacancy_part(vacancies)
    candidate_part = model.scorer.candidate_part(candidates)
    found = []
    for number, places in enumerate(
        rankings(model, vacancies, candidates, rows, others, p.by, p.top_k)):
        ranked = as_table(model, vacancy_part, candidate_part, places)
        found.append(ranked.with_row_index("rank", 1))
        progress.within(number / len(rows))
    table = pl.concat(found)
    progress.stage("reasons")
    if p.reasons:
        table = table.with_columns(_reasons(model, vacancies, candidates, jobs, people, table,
                                            p.reasons, progress))
    progress.stage("logging")
    ranking = table.with_columns(
        vaga=jobs["codigo"].gather(table["v"]), titulo_vaga=jobs["titulo_vaga"].gather(table["v"]),
        candidato=people["codigo"].gather(table["c"]),
    ).drop("v", "c")
    first = ["vaga", "titulo_vaga", "rank", "candidato"]
    ranking = ranking.select(*first, *[c for c in ranking.columns if c not in first])
    with TemporaryDirectory() as folder:
        ranking.write_parquet(Path(folder) / "ranking.parquet")
        ranking.write_csv(Path(folder) / "ranking.csv")
        mlflow.log_artifacts(folder)
    mlflow.log_metrics({"ranked": len(rows), "places": ranking.height})
    mlflow.set_tag("jobmatch.version", version.number)
    progress.finish()
    _show(ranking, version.number)


def _reasons(
    model: FittedModel, vacancies: Vacancies, candidates: Candidates, jobs: pl.DataFrame,
    people: pl.DataFrame, table: pl.DataFrame, most: int, progress: Progress,
) -> list[pl.Series]:
    match, hire = [], []
    for number, (v, c) in enumerate(zip(table["v"], table["c"], strict=True)):
        said = explain(
            model.scorer, model.terms, vacancies, v, candidates, c,
            tuple(jobs[name][v] for name in VACANCY_TEXTS), people["cv_pt"][c], most)
        match.append(in_words(said, "match"))
        hire.append(in_words(said, "probability"))
        progress.within(number / table.height)
    return [pl.Series("match_reasons", match), pl.Series("probability_reasons", hire)]


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
