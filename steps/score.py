"""Score pairs in bulk, from Parquet to Parquet, on this machine or on Apache Spark.

Reads   input: a Parquet file or a folder of them; a row is a pair: principais_atividades,
        competencia_tecnicas_e_comportamentais, cv_pt, titulo_vaga where there is one; any other
        columns (codes, …) are carried through
Writes  output: a folder of Parquet parts with the carried columns and the scores, in the order of
        the input, without the texts
Logs    rows, rows_per_second, parts

With `top_k` the rows are ranked instead: for each vacancy, that is for all rows with the same
three texts, the `top_k` rows with the highest match, best first, with `row` (the number in the
input, from 0), `vacancy` (the same for all rows of one vacancy) and `rank`.

What was killed or stopped goes on from the last finished part when the same command runs again.
`part_rows` is the size of a part; `chunk_rows` is how many rows a process scores at a time.
"""

import re
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import mlflow
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow import MlflowClient
from pydantic import BeforeValidator, Field

from steps.failure import StepError
from steps.pair_files import PLACES, SCORES, PairFiles, find_pairs
from steps.parameters import Parameters
from steps.parts import Parts, open_parts
from steps.places import Best
from steps.progress import Progress
from steps.registry import MODEL, Wanted, resolve
from steps.score_local import score_here
from steps.score_spark import file_groups, score_on_spark
from steps.session import run_step

SCORING, JOINING = "scoring", "bringing the rankings together"
JOINED_ROWS = 500_000
"""About so many rows of the parts of a ranking are brought together at a time."""


def _no_address(value: Any) -> Any:
    if isinstance(value, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
        raise ValueError("must be a path on a file system that this process and every worker see, "
                         "not an address: mount what is there and give the path")
    return value


SharedPath = Annotated[Path, BeforeValidator(_no_address)]


class ScoreParameters(Parameters):
    input: SharedPath
    output: SharedPath
    version: Wanted
    engine: Literal["local", "spark"]
    master: str = Field(pattern=r"^(local|spark|k8s|yarn)\S*$")
    top_k: int = Field(ge=0, le=100_000)
    chunk_rows: int = Field(ge=1, le=200_000)
    part_rows: int = Field(ge=1)


class Shown:
    """Tells how many rows are done, how fast, and how long the rest will take."""

    def __init__(self, progress: Progress, rows: int, left: int) -> None:
        self._progress, self._rows = progress, rows
        self._before = self._done = rows - left
        self._began = time.perf_counter()

    def add(self, rows: int) -> None:
        self._done += rows
        speed = (self._done - self._before) / (time.perf_counter() - self._began)
        left = (self._rows - self._done) / speed
        self._progress.told(
            self._done / self._rows,
            f"{self._done:,} of {self._rows:,} rows, {speed:,.0f} rows/s, {_minutes(left)} left")


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def score(p: ScoreParameters) -> None:
    pairs = find_pairs(p.input)
    if p.output.resolve() in (p.input.resolve(), *p.input.resolve().parents):
        raise StepError("score: output must not be the input or a folder around it")
    number = resolve(MlflowClient(), p.version)
    groups = file_groups(pairs, p.part_rows)
    parts = len(groups) if p.engine == "spark" else -(-pairs.rows // p.part_rows)
    made_from = {"input": pairs.digest, "version": int(number), "engine": p.engine,
                 "top_k": p.top_k, "part_rows": p.part_rows}
    mlflow.set_tag("jobmatch.version", number)
    began = time.perf_counter()
    with open_parts(p.output, made_from, parts) as out:
        if out.complete:
            print(f"{p.output} is complete already: nothing to do")
            return
        missing = out.missing(partial=p.top_k > 0)
        if len(missing) < parts:
            print(f"{parts - len(missing)} of {parts} parts are there already")
        progress = Progress({SCORING: 95, JOINING: 5} if p.top_k else {SCORING: 100})
        progress.stage(SCORING)
        model = f"models:/{MODEL}/{number}"
        if p.engine == "local":
            left = sum(min(p.part_rows, pairs.rows - i * p.part_rows) for i in missing)
            score_here(pairs, out, missing, model, top_k=p.top_k, chunk_rows=p.chunk_rows,
                       part_rows=p.part_rows, told=Shown(progress, pairs.rows, left).add)
        else:
            left = sum(groups[i].rows(pairs) for i in missing)
            score_on_spark(pairs, out, {i: groups[i] for i in missing}, model, master=p.master,
                           top_k=p.top_k, chunk_rows=p.chunk_rows,
                           told=Shown(progress, pairs.rows, left).add)
        if p.top_k and not out.path(0).exists():
            progress.stage(JOINING)
            _join_rankings(pairs, out, p.top_k, progress.within)
        out.finish()
        progress.finish()
    seconds = time.perf_counter() - began
    mlflow.log_metrics({"rows": left, "rows_per_second": left / seconds, "parts": len(missing)})
    print(f"{left:,} rows scored with version {number} in {seconds:.0f} s "
          f"({left / seconds:,.0f} rows/s): {p.output}/*.parquet")


def _join_rankings(
    pairs: PairFiles, out: Parts, top_k: int, report: Callable[[float], None]
) -> None:
    """Write the ranking of the best rows of all parts, some of the vacancies after the other:
    memory does not grow with the rows. `report` is told the share done (0..1)."""
    parts = [out.path(number, partial=True) for number in range(out.parts)]
    ranges = -(-sum(pq.read_metadata(part).num_rows for part in parts) // JOINED_ROWS)
    # digests are spread evenly, and a "g" comes after all of them
    bounds = [f"{number * 2**64 // ranges:016x}" for number in range(ranges)] + ["g"]
    schema = pa.schema([*pairs.carried, *PLACES, *SCORES])
    with out.writer(0, schema) as writer:
        for number, (first, end) in enumerate(pairwise(bounds), 1):
            found = Best(top_k)
            for part in parts:
                found.add(pl.scan_parquet(part, glob=False).filter(
                    pl.col("vacancy") >= pl.lit(first), pl.col("vacancy") < pl.lit(end)).collect())
            ranked = found.rows().with_columns(rank=pl.int_range(1, pl.len() + 1).over("vacancy"))
            writer.write_table(ranked.select(schema.names).to_arrow().cast(schema))
            report(number / ranges)


if __name__ == "__main__":
    run_step("score", ScoreParameters, score)
