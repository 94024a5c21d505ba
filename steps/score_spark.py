"""Pairs scored on Apache Spark: a Spark job for each part of the output.

Spark is shown the texts alone. The other columns are brought from the input when a part is taken
over, so they are what engine=local gives, whatever their names and types mean to Spark.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from steps.failure import StepError
from steps.pair_files import SCORES, TEXTS, TITLE, PairFiles, read_rows
from steps.parts import RANGE_ROWS, Parts
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

    def names(self, pairs: PairFiles) -> str:
        """From which file to which."""
        first, last = pairs.paths[self.first].name, pairs.paths[self.last].name
        return first if first == last else f"{first} to {last}"


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
        with _explained(master, "before the first part"):
            score = mlflow.pyfunc.spark_udf(spark, model, result_type=RESULT, env_manager="local")
        for number, group in groups.items():
            files = out.scratch / f"spark-{number}"
            with _explained(master, f"at part {number} ({group.names(pairs)})"):
                _link(pairs, group, files / "in")
                rows = _scored(spark, pairs, files / "in", score)
                rows = _best(rows, top_k) if top_k else rows
                # without its texts a part is small: one file, in the order of the input
                rows = rows.repartition(1).sortWithinPartitions("row")
                rows.write.parquet(_uri(files / "out"))
            _take(pairs, out, number, group, files / "out", ranked=top_k > 0, size=chunk_rows)
            shutil.rmtree(files)
            told(group.rows(pairs))


@contextmanager
def _session(master: str, chunk_rows: int) -> "Iterator[SparkSession]":
    _require_spark()
    os.environ["PYSPARK_PYTHON"] = os.environ.get("PYSPARK_PYTHON") or sys.executable
    from pyspark.sql import SparkSession

    usual = signal.getsignal(signal.SIGINT)
    with _explained(master, "to start"):
        spark = (
            SparkSession.builder.master(master).appName("jobmatch score")
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.log.level", "ERROR")
            .config("spark.sql.caseSensitive", "true")  # CV_PT may stand beside cv_pt
            .config("spark.sql.execution.arrow.maxRecordsPerBatch", chunk_rows)
            .getOrCreate()
        )
    try:
        signal.signal(signal.SIGINT, usual)  # Spark puts its own in place
        yield spark
    finally:
        spark.stop()


@contextmanager
def _explained(master: str, where: str) -> Iterator[None]:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise StepError(f"score: Spark at {master} failed {where}: {_condition(error)}. Finished "
                        "parts are kept, and the same command goes on from there") from error


def _condition(error: Exception) -> str:
    """What Spark calls the failure, and the exception beneath it: Spark's own message may hold
    values of the rows."""
    from py4j.protocol import Py4JError

    found, beneath = None, type(error).__name__
    with suppress(Py4JError):  # Java may be gone
        found = error.getCondition() if hasattr(error, "getCondition") else None
        java: Any = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
        while java is not None:
            beneath = java.getClass().getSimpleName()
            with suppress(Py4JError, TypeError):  # not one of Spark's exceptions
                found = found or java.getCondition()
            java = java.getCause()
    return f"{found} ({beneath})" if found else beneath


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


def _link(pairs: PairFiles, group: FileGroup, folder: Path) -> None:
    """Fill `folder` with links to the files of `group`, each named after the number of its first
    row: Spark passes over names that begin with _ or ., takes signs such as [ ] { } * ? for
    patterns and fails at a colon."""
    try:
        folder.mkdir(parents=True)
        for i in range(group.first, group.last + 1):
            if pairs.starts[i] < pairs.starts[i + 1]:
                (folder / f"{pairs.starts[i]}.parquet").symlink_to(pairs.paths[i].resolve())
    except OSError as error:
        raise StepError(f"score: cannot make links in {folder} ({error.strerror}); engine=spark "
                        "needs an output on a file system with symbolic links") from error


def _scored(
    spark: "SparkSession", pairs: PairFiles, links: Path, score: "Callable[..., Column]"
) -> "DataFrame":
    """`row`, `vacancy` and the scores."""
    from pyspark.sql import functions as f
    from pyspark.sql.types import StringType, StructField, StructType

    # a column of the type null, which is all empty, is no text to Spark
    known = [t for t in pairs.texts if not pa.types.is_null(pairs.schema.field(t).type)]
    schema = StructType([StructField(t, StringType()) for t in known])
    # the output's path, too, may hold such signs. Of several paths Spark would read all for each
    read = spark.read.schema(schema).option("__globPaths__", "false").parquet(_uri(links))
    texts = {t: f.coalesce(f.col(t), f.lit("")) if t in known else f.lit("") for t in pairs.texts}
    vacancy = [texts.get(t, f.lit("")) for t in (TITLE, *TEXTS[1:3])]
    scores = score(f.struct(*[column.alias(t) for t, column in texts.items()]))
    start = f.substring_index(f.col("_metadata.file_name"), ".", 1).cast("long")
    return read.select(
        (start + f.col("_metadata.row_index")).alias("row"),
        f.substring(f.sha2(f.concat_ws("\x1f", *vacancy), 256), 1, 16).alias("vacancy"),
        scores.alias("scores"),
    ).select("row", "vacancy", "scores.*")


def _uri(path: Path) -> str:
    # Hadoop takes a path as it is written: %20 would be part of the name
    return f"file://{path.resolve()}"


def _best(rows: "DataFrame", top_k: int) -> "DataFrame":
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    order = Window.partitionBy("vacancy").orderBy(f.round("match", EQUAL_DIGITS).desc(), "row")
    return (rows.withColumn("place", f.row_number().over(order))
            .where(f.col("place") <= top_k).drop("place"))


def _take(
    pairs: PairFiles, out: Parts, number: int, group: FileGroup, files: Path, *, ranked: bool,
    size: int,
) -> None:
    """Make what Spark wrote, and the carried columns of the same rows, the part `number`."""
    found = pq.ParquetDataset(sorted(files.glob("*.parquet"))).read()
    rows = found["row"].to_numpy()
    begin, end = pairs.starts[group.first], pairs.starts[group.last + 1]
    if not ranked and not np.array_equal(rows, np.arange(begin, end)):
        raise StepError(f"score: Spark wrote {len(rows)} of {end - begin} rows of part {number}; "
                        "were the input files changed meanwhile?")
    places = [("row", pa.int64()), ("vacancy", pa.string())] if ranked else []
    schema = pa.schema([*pairs.carried, *places, *SCORES])
    scores = found.select(schema.names[len(pairs.carried):])

    def tables() -> Iterator[pa.Table]:
        at = begin
        for batch in read_rows(pairs, begin, end, size, pairs.carried.names):
            first, last = np.searchsorted(rows, [at, at + len(batch)])
            if last - first < len(batch):
                carried = batch.take(pa.array(rows[first:last] - at)).columns
            else:
                carried = batch.columns
            columns = [*carried, *scores.slice(first, last - first).columns]
            yield pa.table(columns, names=schema.names).cast(schema)
            at += len(batch)

    with out.writer(number, schema, partial=ranked) as writer:
        if ranked:
            writer.write_table(pa.concat_tables(tables()).sort_by("vacancy"), RANGE_ROWS)
        else:
            for table in tables():
                writer.write_table(table)
