"""Output in parts. Each is there whole or not at all, so work that was killed goes on from there.

    OUTPUT/part-00000.parquet …   the rows
    OUTPUT/_manifest.json         what they are made from: parts of anything else are not mixed in
    OUTPUT/_lock                  held by the process that writes
    OUTPUT/_partial/              a ranking's parts before they are brought together
    OUTPUT/_SUCCESS               everything is there
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from steps.failure import StepError

MANIFEST, LOCK, SUCCESS, PARTIAL, SCRATCH = (
    "_manifest.json", "_lock", "_SUCCESS", "_partial", "_scratch")
RANGE_ROWS = 1_000
"""Rows of a row group in `_partial`: who looks for some vacancies skips the others' groups."""


@dataclass(frozen=True)
class Parts:
    """A folder that this process alone writes parts into."""

    folder: Path
    parts: int

    @property
    def complete(self) -> bool:
        return (self.folder / SUCCESS).exists()

    @property
    def scratch(self) -> Path:
        """For what is not whole yet; emptied by whoever opens the folder next."""
        return self.folder / SCRATCH

    def missing(self, *, partial: bool = False) -> list[int]:
        """Numbers of the parts that are not there yet."""
        return [i for i in range(self.parts) if not self.path(i, partial=partial).exists()]

    def path(self, number: int, *, partial: bool = False) -> Path:
        folder = self.folder / PARTIAL if partial else self.folder
        return folder / f"part-{number:05}.parquet"

    @contextmanager
    def writer(
        self, number: int, schema: pa.Schema, *, partial: bool = False
    ) -> Iterator[pq.ParquetWriter]:
        """Writes part `number`, which is there once the block is left without an error."""
        path, scratch = self.path(number, partial=partial), self.scratch / f"{number}.parquet"
        with _told(path):
            path.parent.mkdir(exist_ok=True)
            with pq.ParquetWriter(scratch, schema, compression="zstd") as writer:
                yield writer
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            scratch.replace(path)

    def finish(self) -> None:
        """Say that everything is there, and only then take away what it was made from."""
        with _told(self.folder):
            (self.folder / SUCCESS).touch()
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            shutil.rmtree(self.folder / PARTIAL, ignore_errors=True)


@contextmanager
def open_parts(folder: Path, made_from: dict[str, Any], parts: int) -> Iterator[Parts]:
    """The output folder, new or as an earlier process with the same `made_from` left it.

    Raises StepError where it cannot be written, holds anything else, or is being written.
    """
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StepError(f"score: {folder} is being written by another process; wait for it "
                            "or choose another output") from None
        with _told(folder):
            _require_same(folder, made_from)
            shutil.rmtree(folder / SCRATCH, ignore_errors=True)
            (folder / SCRATCH).mkdir()
            if (folder / SUCCESS).exists():  # whoever finished it may have been killed then
                shutil.rmtree(folder / PARTIAL, ignore_errors=True)
        yield Parts(folder, parts)
        shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    finally:
        os.close(lock)


def _require_same(folder: Path, made_from: dict[str, Any]) -> None:
    """Take the folder for `made_from`, or raise StepError saying what is different."""
    path = folder / MANIFEST
    if not path.exists():
        new = folder / f"{MANIFEST}.new"
        ours = (LOCK, SCRATCH, new.name)
        others = sorted(p.name for p in folder.iterdir() if p.name not in ours)
        if others:
            raise StepError(f"score: {folder} holds other files ({others[0]}); output must be an "
                            "empty or a new folder")
        new.write_text(json.dumps(made_from, indent=1), encoding="utf-8")
        new.replace(path)
        return
    try:
        known = dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise StepError(f"score: {path} is broken; choose another output") from error
    changed = [name for name in made_from if known.get(name) != made_from[name]]
    if changed:
        told = ", ".join(
            "another input" if name == "input" else f"{name} {known.get(name)} instead of "
            f"{made_from[name]}" for name in changed)
        raise StepError(f"score: {folder} holds parts made with {told}; choose another output")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error).splitlines()[0]
        raise StepError(f"score: cannot write {path}: {why}; finished parts are kept, and the "
                        "same command goes on from there") from error
