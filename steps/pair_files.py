"""Parquet files of pairs, vacancy beside CV: checked before anything is scored, read in pieces."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobmatch_pyfunc.contract import CV, REQUIRED_TEXTS, TITLE
from steps.failure import StepError

NEEDED = (*REQUIRED_TEXTS, CV)
TEXTS = (TITLE, *NEEDED)
SCORES = pa.schema([
    ("probability", pa.float64()), ("prediction", pa.string()), ("confidence", pa.float64()),
    ("match", pa.float64()), ("model_version", pa.int64()),
])  # fmt: skip
PLACES = pa.schema([("row", pa.int64()), ("vacancy", pa.string()), ("rank", pa.int64())])
"""What a ranking adds: the row of the input, which vacancy it is for, and its place there."""


@dataclass(frozen=True)
class PairFiles:
    """Files of one schema, in the order of their names."""

    paths: tuple[Path, ...]
    starts: tuple[int, ...]
    """The number of the first row of each file, and the number of all rows at the end."""
    schema: pa.Schema
    digest: str

    @property
    def rows(self) -> int:
        return self.starts[-1]

    @property
    def texts(self) -> list[str]:
        return [name for name in TEXTS if name in self.schema.names]

    @property
    def carried(self) -> pa.Schema:
        """The columns that are carried through: all but the texts."""
        return pa.schema([field.remove_metadata() for field in self.schema
                          if field.name not in TEXTS])


def find_pairs(path: Path) -> PairFiles:
    """The Parquet file at `path`, or those in the folder.

    Raises StepError where there is none, or one cannot be read or lacks what scoring needs.
    """
    paths = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if not paths:
        what = "holds no *.parquet file" if path.is_dir() else "not found"
        raise StepError(f"score: {path}: {what}; input is a Parquet file, or a folder of them")
    footers = [_footer(one) for one in paths]
    schema = footers[0].schema.to_arrow_schema().remove_metadata()
    for one, footer in zip(paths, footers, strict=True):
        found = footer.schema.to_arrow_schema().remove_metadata()
        _check(one, found)
        if found != schema:
            raise StepError(f"score: {one}: its columns are not those of {paths[0].name}; all "
                            "files of one input need the same columns and types")
    if not sum(footer.num_rows for footer in footers):
        raise StepError(f"score: {path}: holds no rows")
    starts = tuple(accumulate((footer.num_rows for footer in footers), initial=0))
    stats = [one.stat() for one in paths]
    made_of = [[one.name, stat.st_size, stat.st_mtime_ns, footer.num_rows, footer.serialized_size]
               for one, stat, footer in zip(paths, stats, footers, strict=True)]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    return PairFiles(tuple(paths), starts, schema, digest)


def _footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> StepError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else "broken or cut off"
    return StepError(f"score: {path}: cannot be read as Parquet ({why.lower()})")


def _check(path: Path, schema: pa.Schema) -> None:
    missing = [name for name in NEEDED if name not in schema.names]
    if missing:
        raise StepError(f"score: {path}: column {missing[0]!r} is missing; needed are "
                        f"{', '.join(NEEDED)}, and {TITLE} where there is one")
    if "" in schema.names:
        raise StepError(f"score: {path}: a column has no name; give it one or leave it out")
    twice = [name for name in schema.names if schema.names.count(name) > 1]
    if twice:
        raise StepError(f"score: {path}: two columns are named {twice[0]!r}; rename one")
    for name in TEXTS:
        if name in schema.names and not _is_text(schema.field(name).type):
            raise StepError(f"score: {path}: column {name!r} must hold texts, not "
                            f"{schema.field(name).type}")
    taken = [name for name in (*SCORES.names, *PLACES.names) if name in schema.names]
    if taken:
        raise StepError(f"score: {path}: column {taken[0]!r} is what scoring adds; rename it")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (pa.types.is_string(kind) or pa.types.is_large_string(kind)
            or pa.types.is_string_view(kind) or pa.types.is_null(kind))


def read_rows(
    pairs: PairFiles, begin: int, end: int, size: int, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows begin..end, in pieces of at most `size` rows; row groups before them are skipped. All
    columns, or those of `columns`.

    Raises StepError where a file turns out to be broken.
    """
    for path, first, last in zip(pairs.paths, pairs.starts, pairs.starts[1:], strict=False):
        if first >= end or last <= begin or first == last:
            continue
        at = max(begin, first)
        try:
            for piece in _read_file(path, at - first, min(end, last) - first, size, columns):
                _require_utf8(path, piece, at - first)
                at += len(piece)
                yield piece
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(path, error) from error


def _require_utf8(path: Path, piece: pa.RecordBatch, at: int) -> None:
    try:
        piece.select([name for name in TEXTS if name in piece.schema.names]).validate(full=True)
    except pa.ArrowInvalid:
        raise StepError(f"score: {path}: a text in rows {at + 1:,} to {at + len(piece):,} is not "
                        "valid UTF-8; write the file again with texts that are") from None


def _read_file(
    path: Path, begin: int, end: int, size: int, columns: list[str] | None
) -> Iterator[pa.RecordBatch]:
    # read page by page: a row group may be larger than the memory
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = list(accumulate(sizes, initial=0))
        groups = [i for i in range(len(sizes)) if starts[i] < end and starts[i + 1] > begin]
        at = starts[groups[0]]
        for batch in file.iter_batches(size, row_groups=groups, columns=columns,
                                       use_threads=False):
            piece = batch.slice(max(begin - at, 0), max(min(end, at + len(batch)) - max(begin, at),
                                                        0))
            at += len(batch)
            if len(piece):
                yield piece
            if at >= end:
                return


def vacancy_digests(texts: Sequence[Sequence[str]]) -> list[str]:
    """Which vacancy each row is for: the beginning of the SHA-256 of its texts, each of which is
    given as a column. Rows with the same texts are for the same vacancy."""
    return [hashlib.sha256("\x1f".join(row).encode("utf-8", "replace")).hexdigest()[:16]
            for row in zip(*texts, strict=True)]
