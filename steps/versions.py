"""Fitted versions on disk and in the registry.

    fitted/final/      what answers: fitted on everything
    fitted/holdout/    the same fitted without the held-out vacancies: what was judged
    fitted/described/  the described model fitted on either, to compare with
    fitted/pool/, fitted.json (dates, share of hired people)
"""

from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from jobmatch_pyfunc.model import HOLDOUT, SHIPPED, THRESHOLD, FittedModel
from jobmatch_pyfunc.scoring import Candidates, Pool, Scorer, with_data
from jobmatch_pyfunc.storage import read_json, write_json, write_space, write_weights
from steps.corpus import row_batches
from steps.described import DescribedModel, read_described, write_described
from steps.failure import StepError
from steps.fitting import Fit
from steps.registry import MODEL


@dataclass(frozen=True)
class Version:
    """A version's fitted parts."""

    number: str
    """The registry's number; empty while it is not registered yet."""
    folder: Path
    split_date: np.datetime64
    trained_until: np.datetime64
    hired_share: dict[str, float]
    """Of the pairs with a CV that each part was fitted on."""

    @property
    def name(self) -> str:
        return f"version {self.number}" if self.number else "this version"

    def part_unseen_from(self, day: np.datetime64) -> str | None:
        """The part that has seen no vacancy from `day` on, the shipped one if possible."""
        if self.trained_until < day:
            return SHIPPED
        return HOLDOUT if self.split_date <= day else None

    def part(self, name: str) -> FittedModel:
        return FittedModel(self.folder / name)

    def threshold(self, part: str) -> float:
        return float(read_json(self.folder / part / THRESHOLD))

    def described(self, part: str) -> DescribedModel:
        return read_described(self.folder / "described" / f"{part}.json")


class UnreadableVersion(StepError):
    """A version's files cannot be had or are not this project's."""


def load_version(number: str) -> Version:
    """A registered version. Raises UnreadableVersion."""
    try:
        folder = Path(mlflow.artifacts.download_artifacts(f"models:/{MODEL}/{number}"))
        fitted = folder / "artifacts" / "fitted"
        meta = read_json(fitted / "fitted.json")
        version = Version(number, fitted, np.datetime64(meta["split_date"]),
                          np.datetime64(meta["trained_until"]), meta["hired_share"])
        for part in (SHIPPED, HOLDOUT):
            version.part(part)
        return version
    except (MlflowException, OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableVersion(
            f"version {number} of {MODEL} cannot be read ({type(error).__name__}); see that its "
            "artifact store is reachable, or point the alias at another version") from error


def write_part(fitted: Path, name: str, terms: list[str], fit: Fit) -> None:
    """Write what was fitted on one part."""
    write_space(fitted / name, terms, fit.scorer.space)
    write_weights(fitted / name, fit.scorer.weights)
    write_json(fitted / name / THRESHOLD, fit.threshold)


def write_described_part(fitted: Path, name: str, described: DescribedModel) -> None:
    """Write the described model as it was fitted on one part."""
    (fitted / "described").mkdir(parents=True, exist_ok=True)
    write_described(fitted / "described" / f"{name}.json", described)


def write_about(version: Version) -> None:
    """Write what `load_version` reads of a version besides its parts."""
    write_json(version.folder / "fitted.json", {
        "split_date": str(version.split_date), "trained_until": str(version.trained_until),
        "hired_share": version.hired_share})


def make_pool(
    codes: list[str], candidates: Candidates, rows: NDArray[np.int64], scorer: Scorer
) -> Pool:
    """The pool of some of the candidates: their vectors, by term. Codes and vectors only: no
    text."""
    unit, relative_idf = candidates.unit, scorer.space.relative_idf
    # in single precision from the start: the copies on the way are the largest of a training
    pivoted = np.empty(unit.nnz, np.float32)
    for some in row_batches(unit.shape[0]):
        at = slice(unit.indptr[some.start], unit.indptr[some.stop])
        scales = np.repeat(candidates.scale[some], np.diff(unit.indptr[some.start:some.stop + 1]))
        pivoted[at] = unit.data[at] * scales * relative_idf[unit.indices[at]]
    by_term = with_data(unit, pivoted)[rows].tocsc()
    by_term.sort_indices()
    return Pool(
        codes, by_term.indptr.astype(np.int64), by_term.indices.astype(np.int32, copy=False),
        by_term.data, candidates.latent[rows].astype(np.float32),
        scorer.candidate_part(candidates)[rows],
    )
