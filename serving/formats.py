"""Request bodies in MLflow's formats to a table of texts, and answers to JSON.

Stricter than MLflow's own parsing, which turns numbers into texts and repeats the input in its
errors. Nothing of a body is ever repeated here: it may be somebody's CV.
"""

import csv
import io
import json
import math
import re
from typing import Any

import msgspec
import pandas as pd
from mlflow.types import DataType, ParamSchema, Schema

JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
TABLES = ("dataframe_records", "dataframe_split", "inputs", "instances")
MOST_ROWS = 200_000
TOO_MANY_ROWS = f"there may be at most {MOST_ROWS} rows"
MOST_COLUMNS = 100
MOST_UNPACKED = 512 * 2**20
"""Bytes of a Parquet file's columns after decompression."""

Columns = dict[str, list[Any]]

_TEXT = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+"?', re.DOTALL)
"""A text in JSON, also one that is not ended: so that each byte is looked at once."""


class BadRequest(Exception):
    """A request that cannot be answered: its HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class NotFinite(Exception):
    """The model answered a number that is none."""


class Reader:
    """Reads bodies for a model of the given signature, whose columns are all texts."""

    def __init__(self, inputs: Schema, params: ParamSchema | None) -> None:
        self._required = frozenset(str(name) for name in inputs.required_input_names())
        self._columns = [str(name) for name in inputs.input_names()]
        self._params = {p.name: p.dtype for p in params.params} if params else {}
        self._defaults = {p.name: p.default for p in params.params} if params else {}

    def read(self, body: bytes, content_type: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """The table of texts (missing ones are None) and the params of a body or their defaults.

        Raises BadRequest.
        """
        media_type, _, parameters = content_type.partition(";")
        charset = parameters.strip().lower().removeprefix("charset=").strip('"')
        _require(charset in ("", "utf-8", "utf8"), "the charset must be UTF-8", 415)
        params: dict[str, Any] = {}
        match media_type.strip().lower():
            case "application/json":
                columns, params = self._json(body)
            case "text/csv":
                columns = self._csv(body)
            case "application/vnd.apache.parquet":
                columns = self._parquet(body)
            case _:
                raise BadRequest(415, f"the content type must be {JSON}, {CSV} or {PARQUET}")
        return self._table(columns), self._defaults | params

    def _json(self, body: bytes) -> tuple[Columns, dict[str, Any]]:
        _require(not _brackets_exceed(body, 2 * MOST_ROWS + 10), TOO_MANY_ROWS, 413)
        try:
            request = _decoded(body)
        except UnicodeDecodeError as error:
            raise BadRequest(400, "the body is not UTF-8") from error
        except RecursionError as error:
            raise BadRequest(400, "the body is nested too deeply") from error
        except ValueError as error:
            raise BadRequest(400, "the body is not JSON") from error
        given = [name for name in TABLES if name in request] if isinstance(request, dict) else []
        _require(len(given) == 1,
                 "the body must be an object with exactly one of " + ", ".join(TABLES[:3]), 422)
        name, table = given[0], request[given[0]]
        if name == "dataframe_split":
            columns = _split(table)
        elif name != "dataframe_records" and isinstance(table, dict):
            columns = _by_column(name, table)
        else:
            columns = self._records(name, table)
        return columns, self._checked_params(request.get("params"))

    def _records(self, name: str, table: Any) -> Columns:
        _require(isinstance(table, list) and all(isinstance(row, dict) for row in table),
                 f"{name} must be a list of objects")
        given = {column for row in table for column in row}
        return {c: [row.get(c) for row in table] for c in self._columns if c in given}

    def _csv(self, body: bytes) -> Columns:
        try:
            lines = csv.reader(io.TextIOWrapper(io.BytesIO(body), "utf-8-sig"))
            header = next((line for line in lines if any(map(str.strip, line))), [])
        except UnicodeDecodeError as error:
            raise BadRequest(400, "the body is not UTF-8") from error
        except csv.Error as error:
            raise BadRequest(400, "the body is not CSV with a header") from error
        # pandas would make their names distinct, in a time that grows with their square
        _require(len(header) <= MOST_COLUMNS and len(set(header)) == len(header),
                 f"the CSV's columns must be distinct, and at most {MOST_COLUMNS}")
        try:
            table = pd.read_csv(io.BytesIO(body), dtype=object, keep_default_na=False,
                                usecols=lambda name: name in self._columns, nrows=MOST_ROWS + 1)
        except UnicodeDecodeError as error:
            raise BadRequest(400, "the body is not UTF-8") from error
        except Exception as error:
            raise BadRequest(400, "the body is not CSV with a header") from error
        return {c: table[c].tolist() for c in self._columns if c in table.columns}

    def _parquet(self, body: bytes) -> Columns:
        import pyarrow.parquet as pq  # 30 MB that most servers never need

        try:
            # dictionaries are kept, or a small file could unpack to any size
            file = pq.ParquetFile(io.BytesIO(body), read_dictionary=self._columns)
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            columns = [c for c in self._columns if c in file.schema_arrow.names]
            rows, size = file.metadata.num_rows, sum(g.total_byte_size for g in groups)
        except Exception as error:
            raise BadRequest(400, "the body is not a Parquet file") from error
        _require(rows <= MOST_ROWS and size <= MOST_UNPACKED, "the Parquet file is too large", 413)
        try:
            table = file.read(columns=columns)
            return {c: _texts(table.column(c)) for c in columns}
        except Exception as error:
            raise BadRequest(400, "the Parquet file cannot be read") from error

    def _table(self, columns: Columns) -> pd.DataFrame:
        rows = len(next(iter(columns.values()), []))
        missing = sorted(self._required - columns.keys())
        _require(not missing or not columns, f"column {''.join(missing[:1])} is missing")
        _require(rows > 0, "there is no row with the model's columns: " + ", ".join(self._columns))
        _require(rows <= MOST_ROWS, TOO_MANY_ROWS, 413)
        table: Columns = {}
        for name in self._columns:
            if name not in columns:
                continue
            values = columns[name]
            for row, value in enumerate(values):
                _require(value is None or isinstance(value, str),
                         f"column {name} must hold texts (row {row} does not)")
            table[name] = values
        return pd.DataFrame(table, dtype=object)

    def _checked_params(self, params: Any) -> dict[str, Any]:
        if params is None:
            return {}
        known = ", ".join(self._params)
        _require(isinstance(params, dict), "params must be an object")
        _require(params.keys() <= self._params.keys(), f"params may only be: {known}")
        given = {name: value for name, value in params.items() if value is not None}
        for name, value in given.items():
            whole = self._params[name] != DataType.double
            fits = isinstance(value, int) if whole else isinstance(value, int | float)
            _require(fits and not isinstance(value, bool) and abs(value) < 2**53,
                     f"params.{name} must be a {'whole ' if whole else ''}number")
            given[name] = value if whole else float(value)
        return given


def answer(table: pd.DataFrame) -> bytes:
    """The predictions as JSON, one object a row. Raises NotFinite."""
    columns = [table[name].tolist() for name in table.columns]
    for values in columns:
        if values and isinstance(values[0], float) and not all(map(math.isfinite, values)):
            raise NotFinite
    names = table.columns.tolist()
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return msgspec.json.encode({"predictions": rows})


def _decoded(body: bytes) -> Any:
    """A JSON body; NaN, which is what MLflow's own client sends for a missing value, is null."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        if b"NaN" not in body:
            raise
        return json.loads(body, parse_constant=_missing)


def _missing(constant: str) -> None:
    if constant != "NaN":
        raise ValueError("not a number of JSON")


def _brackets_exceed(body: bytes, most: int) -> bool:
    """Whether more than `most` lists and objects open, each of which becomes many times its size.

    Those in texts count only at first: taking the texts out of every body would cost time.
    """

    def exceed(part: bytes) -> bool:
        return part.count(b"{") + part.count(b"[") > most

    return exceed(body) and exceed(_TEXT.sub(b"", body))


def _split(table: Any) -> Columns:
    _require(
        isinstance(table, dict) and table.keys() <= {"columns", "data", "index"}
        and isinstance(table.get("columns"), list) and isinstance(table.get("data"), list),
        "dataframe_split must be an object with the lists columns and data")
    names, data = table["columns"], table["data"]
    _require(all(isinstance(name, str) for name in names) and len(set(names)) == len(names),
             "dataframe_split.columns must be distinct texts")
    _require(all(isinstance(row, list) and len(row) == len(names) for row in data),
             "dataframe_split.data must be lists of as many values as there are columns")
    return {name: [row[i] for row in data] for i, name in enumerate(names)}


def _by_column(name: str, table: dict[str, Any]) -> Columns:
    columns = {c: values if isinstance(values, list) else [values] for c, values in table.items()}
    _require(len({len(values) for values in columns.values()}) <= 1,
             f"the columns of {name} must be of equal length")
    return columns


def _texts(column: Any) -> list[Any]:
    """The values of an Arrow column; equal ones are one object."""
    texts: list[Any] = []
    for chunk in column.chunks:
        if hasattr(chunk, "dictionary"):
            distinct = chunk.dictionary.to_pylist()
            texts += [None if i is None else distinct[i] for i in chunk.indices.to_pylist()]
        else:
            texts += chunk.to_pylist()
    return texts


def _require(condition: bool, sentence: str, status: int = 422) -> None:
    if not condition:
        raise BadRequest(status, sentence)
