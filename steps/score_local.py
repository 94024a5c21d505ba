"""Pairs scored in processes of this machine, a chunk at a time: memory does not grow with the
input."""

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from io import BufferedWriter
from itertools import cycle, groupby
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import joblib
import mlflow
import polars as pl
import pyarrow as pa

from steps.failure import StepError
from steps.memory import keep_freed
from steps.pair_files import (
    SCORES,
    TEXTS,
    TITLE,
    PairFiles,
    read_rows,
    vacancy_digests,
)
from steps.parent import end_with
from steps.parts import RANGE_ROWS, Parts
from steps.places import Best

WORKER_SETTINGS = {
    # the processes themselves take all cores
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    # one allocator for all, which keeps what a chunk frees for the next one (docs/performance.md)
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
"""Read where a process starts; what the environment says already is left as it is."""

_model: Any = None
"""The version, in a process that scores, or why it could not be loaded."""


def score_here(
    pairs: PairFiles, out: Parts, missing: Sequence[int], model: str, *, top_k: int,
    chunk_rows: int, part_rows: int, told: Callable[[int], None],
) -> None:
    """Write the missing parts; part i holds rows i · part_rows and following. `told` is given the
    number of rows of each chunk that is done."""
    folder = mlflow.artifacts.download_artifacts(model)
    workers = min(joblib.cpu_count(), -(-pairs.rows // chunk_rows))
    for name, value in WORKER_SETTINGS.items():
        os.environ.setdefault(name, value)
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_begin, initargs=(folder, os.getpid())) as pool:
        chunks = _in_order(pool, _chunks(pairs, missing, chunk_rows, part_rows), top_k > 0, workers)
        try:
            for number in missing:
                rows = min(part_rows, pairs.rows - number * part_rows)
                _write_part(pairs, out, number, _take(chunks, rows), top_k, told)
        except BrokenProcessPool as error:
            raise StepError(
                "score: a scoring process died, perhaps for want of memory; try a smaller "
                "chunk_rows, or fewer processes (LOKY_MAX_CPU_COUNT). Finished parts are kept"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _chunks(
    pairs: PairFiles, missing: Sequence[int], chunk_rows: int, part_rows: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Number of the first row, and rows, of every chunk; none lies in two parts."""
    for _, run in groupby(enumerate(missing), key=lambda pair: pair[1] - pair[0]):
        together = [number for _, number in run]  # parts in a row are read in one go
        at = together[0] * part_rows
        end = min((together[-1] + 1) * part_rows, pairs.rows)
        for batch in read_rows(pairs, at, end, chunk_rows):
            while len(batch):
                piece = batch.slice(0, part_rows - at % part_rows)
                yield at, piece
                at, batch = at + len(piece), batch.slice(len(piece))


def _take(chunks: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The next chunks, `rows` rows together; what comes after them is not asked for."""
    while rows:
        table = next(chunks, None)
        if table is None:
            raise StepError(f"score: {rows} rows less than the input's footers say; was it changed "
                            "meanwhile?")
        yield table
        rows -= len(table)


def _in_order(
    pool: ProcessPoolExecutor, chunks: Iterator[tuple[int, pa.RecordBatch]],
    ranked: bool, workers: int,
) -> Iterator[pa.Table]:
    """The scored rows of every chunk; only a few chunks are under way at a time."""
    with TemporaryDirectory() as folder:
        files = [(Path(folder) / str(number)).open("wb") for number in range(workers + 2)]
        try:
            yield from _through(files, pool, chunks, ranked)
        finally:
            for file in files:
                with suppress(OSError):  # what there was no room for is tried once more
                    file.close()


def _through(
    files: Sequence[BufferedWriter], pool: ProcessPoolExecutor,
    chunks: Iterator[tuple[int, pa.RecordBatch]], ranked: bool,
) -> Iterator[pa.Table]:
    """The same, the texts of each chunk under way in one of the files: the processes map it, where
    what goes through a pipe is copied four times."""
    under_way: deque[tuple[pa.RecordBatch, int, Future[bytes]]] = deque()

    def first() -> pa.Table:
        carried, at, future = under_way.popleft()
        scored = pa.ipc.open_stream(future.result()).read_all()
        columns = dict(zip(carried.schema.names, carried.columns, strict=True))
        if ranked:
            columns["row"] = pa.array(range(at, at + len(carried)), pa.int64())
        return pa.table(columns | dict(zip(scored.column_names, scored.columns, strict=True)))

    broken: StepError | None = None
    try:
        # chunks end in the order in which they began: the next file's turn comes when it is free
        for file, (at, batch) in zip(cycle(files), chunks, strict=False):
            texts = [name for name in TEXTS if name in batch.schema.names]
            _write(batch.select(texts), file)
            future = pool.submit(_score, Path(file.name), ranked)
            others = [name for name in batch.schema.names if name not in TEXTS]
            under_way.append((batch.select(others), at, future))
            if len(under_way) == len(files):
                yield first()
    except StepError as error:  # what has been read is still scored and kept
        broken = error
    while under_way:
        yield first()
    if broken:
        raise broken


def _write(texts: pa.RecordBatch, file: BufferedWriter) -> None:
    """Write over what the file held: new memory would be slower."""
    try:
        file.seek(0)
        with pa.ipc.new_stream(file, texts.schema) as stream:
            stream.write_batch(texts)
        file.flush()
    except OSError as error:
        raise StepError(
            f"score: {Path(file.name).parent}: {error.strerror or error}; the texts of the chunks "
            "under way are kept there: make room, set TMPDIR, or try a smaller chunk_rows. "
            "Finished parts are kept") from error


def _write_part(
    pairs: PairFiles, out: Parts, number: int, tables: Iterator[pa.Table], top_k: int,
    told: Callable[[int], None],
) -> None:
    if not top_k:
        schema = pa.schema([*pairs.carried, *SCORES])
        with out.writer(number, schema) as writer:
            for table in tables:
                writer.write_table(table.select(schema.names).cast(schema))
                told(len(table))
        return
    found = Best(top_k)
    for table in tables:
        found.add(pl.DataFrame(table))
        told(len(table))
    ranked = found.rows().to_arrow()
    with out.writer(number, ranked.schema, partial=True) as writer:
        writer.write_table(ranked, RANGE_ROWS)


# --- in the processes that score


def _begin(folder: str, parent: int) -> None:
    global _model
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches them too; the parent ends them
    keep_freed()
    end_with(parent)
    # the version's own code is to answer, not the project's, which may be another
    for name in [name for name in sys.modules if name.partition(".")[0] == "jobmatch_pyfunc"]:
        del sys.modules[name]
    try:
        _model = mlflow.pyfunc.load_model(folder)
    except Exception as error:  # told by the first chunk: what is raised here says only "died"
        _model = StepError(f"score: the version's model cannot be loaded ({type(error).__name__}); "
                           "see that its artifacts are complete, or score with another version")


def _score(chunk: Path, ranked: bool) -> bytes:
    """Scores of a chunk of texts; both are Arrow streams. Raises StepError where the version could
    not be loaded."""
    if isinstance(_model, StepError):
        raise _model
    table = pa.ipc.open_stream(pa.memory_map(str(chunk))).read_all()
    table = table.cast(pa.schema([(name, pa.large_string()) for name in table.column_names]))
    answer = _model.predict(table.to_pandas())
    scores = pa.Table.from_pandas(answer[SCORES.names], preserve_index=False).cast(SCORES)
    if ranked:
        texts = [[text or "" for text in table[name].to_pylist()] if name in table.column_names
                 else [""] * len(table) for name in (TITLE, *TEXTS[1:3])]
        scores = scores.append_column("vacancy", pa.array(vacancy_digests(texts), pa.string()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, scores.schema) as out:
        out.write_table(scores)
    return bytes(sink.getvalue().to_pybytes())
