"""Pairs scored on Apache Spark: a Spark job for each part of the output."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq

from steps.failure import StepError
from steps.pair_files import SCORES, TEXTS, TITLE, PairFiles
from steps.parts import Parts
from steps.places import EQUAL_DIGITS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

RESULT = ("probability double, prediction string, confidence double, match double, "
          "model_version long")


@dataclass(frozen=True)
class FileGroup:
    """Files first..last of the input, which make one part."""

    first: int
    last: int

    def rows(self, pairs: PairFiles) -> int:
        return pairs.starts[self.last + 1] - pairs.starts[self.first]


def file_groups(pairs: PairFiles, part_rows: int) -> list[FileGroup]:
    """The files of the input, as many together as it takes to have `part_rows` rows: Spark reads
    whole files."""
    groups, first = [], 0
    for last in range(len(pairs.paths)):
        if pairs.starts[last + 1] - pairs.starts[first] >= part_rows:
            groups.append(FileGroup(first, last))
            first = last + 1
    if pairs.starts[-1] > pairs.starts[first]:
        groups.append(FileGroup(first, len(pairs.paths) - 1))
    return groups


def score_on_spark(
    pairs: PairFiles, out: Parts, groups: Mapping[int, FileGroup], model: str, *, master: str,
    top_k: int, chunk_rows: int, told: Callable[[int], None],
) -> None:
    """Write the parts of `groups`, a Spark job each. `told` is given the rows of each part.

    Raises StepError where pyspark or Java is missing, or Spark fails.
    """
    if not groups:
        return
    with _session(master, chunk_rows) as spark:
        score = mlflow.pyfunc.spark_udf(spark, model, result_type=RESULT, env_manager="local")
        for number, group in groups.items():
            files = out.scratch / f"spark-{number}"
            rows = _scored(spark, pairs, group, score)
            rows = _best(rows, top_k) if top_k else rows
            # without its texts a part is small: one file, in the order of the input
            order = ("vacancy", "row") if top_k else ("row",)
            rows.repartition(1).sortWithinPartitions(*order).write.parquet(_uri(files))
            _take(pairs, out, number, files, None if top_k else group.rows(pairs))
            told(group.rows(pairs))


@contextmanager
def _session(master: str, chunk_rows: int) -> "Iterator[SparkSession]":
    _require_spark()
    os.environ["PYSPARK_PYTHON"] = os.environ.get("PYSPARK_PYTHON") or sys.executable
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    usual = signal.getsignal(signal.SIGINT)
    spark = None
    try:
        spark = (
            SparkSession.builder.master(master).appName("jobmatch score")
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.log.level", "ERROR")
            .config("spark.sql.execution.arrow.maxRecordsPerBatch", chunk_rows)
            .getOrCreate()
        )
        signal.signal(signal.SIGINT, usual)  # Spark puts its own in place
        yield spark
    except (PySparkException, Py4JError) as error:
        # Spark's own message may hold values of the rows
        raise StepError(f"score: Spark at {master} failed ({type(error).__name__}); its log tells "
                        "why. Finished parts are kept") from error
    finally:
        if spark is not None:
            spark.stop()


def _require_spark() -> None:
    try:
        import pyspark  # noqa: F401
    except ImportError:
        raise StepError(
            "score: engine=spark needs pyspark, which is not among the requirements: uv pip "
            f"install --python {sys.executable} -r requirements-spark.txt") from None
    java = os.environ.get("JAVA_HOME")
    if not (Path(java, "bin", "java").exists() if java else shutil.which("java")):
        raise StepError("score: engine=spark needs Java 17 or later: install it (Debian: apt "
                        "install openjdk-17-jre-headless) or set JAVA_HOME")


def _scored(
    spark: "SparkSession", pairs: PairFiles, group: FileGroup, score: "Callable[..., Column]"
) -> "DataFrame":
    """The carried columns, `row`, `vacancy` and the scores."""
    from pyspark.sql import functions as f

    chosen = range(group.first, group.last + 1)
    start = f.create_map(*[f.lit(value) for i in chosen
                           for value in (pairs.paths[i].name, pairs.starts[i])])
    # Spark tells it as a part of an address, in which a space is %20; a plus is a plus there
    name = f.url_decode(f.regexp_replace(f.col("_metadata.file_name"), r"\+", "%2B"))
    read = spark.read.parquet(*[_uri(pairs.paths[i]) for i in chosen])
    texts = {t: f.coalesce(f.col(t).cast("string"), f.lit("")) for t in pairs.texts}
    vacancy = [texts.get(t, f.lit("")) for t in (TITLE, *TEXTS[1:3])]
    scores = score(f.struct(*[column.alias(t) for t, column in texts.items()]))
    return read.select(
        *[f.col(f"`{carried}`") for carried in pairs.carried.names],
        (f.element_at(start, name) + f.col("_metadata.row_index")).alias("row"),
        f.substring(f.sha2(f.concat_ws("\x1f", *vacancy), 256), 1, 16).alias("vacancy"),
        scores.alias("scores"),
    ).select("*", "scores.*").drop("scores")


def _uri(path: Path) -> str:
    # Hadoop takes a path as it is written: %20 would be part of the name
    return f"file://{path.resolve()}"


def _best(rows: "DataFrame", top_k: int) -> "DataFrame":
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    order = Window.partitionBy("vacancy").orderBy(f.round("match", EQUAL_DIGITS).desc(), "row")
    return (rows.withColumn("place", f.row_number().over(order))
            .where(f.col("place") <= top_k).drop("place"))


def _take(pairs: PairFiles, out: Parts, number: int, files: Path, rows: int | None) -> None:
    """Make what Spark wrote the part `number`; it must have `rows` rows where that is known."""
    found = pq.ParquetDataset(sorted(files.glob("*.parquet"))).read()
    if rows not in (None, len(found)):
        raise StepError(f"score: Spark wrote {len(found)} of {rows} rows of part {number}; were "
                        "the input files changed meanwhile?")
    places = [] if rows is not None else [("row", pa.int64()), ("vacancy", pa.string())]
    schema = pa.schema([*pairs.carried, *places, *SCORES])
    with out.writer(number, schema, partial=rows is None) as writer:
        writer.write_table(found.select(schema.names).cast(schema))
    shutil.rmtree(files)
