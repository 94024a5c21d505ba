"""Fitted versions on disk and in the registry.

    fitted/final/      what answers: fitted on everything
    fitted/holdout/    the same fitted without the held-out vacancies: what was judged
    fitted/described.json, pool/, fitted.json (dates, settings)
"""

from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException

from jobmatch_pyfunc.model import HOLDOUT, POOL, SHIPPED, FittedModel
from jobmatch_pyfunc.scoring import Candidates, Pool
from jobmatch_pyfunc.storage import read_json, write_json, write_pool, write_space, write_weights
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

    def described(self) -> DescribedModel:
        return read_described(self.folder / "described.json")


def load_version(number: str) -> Version:
    """Raises StepError where the version's files cannot be had or are not this project's."""
    try:
        folder = Path(mlflow.artifacts.download_artifacts(f"models:/{MODEL}/{number}"))
        fitted = folder / "artifacts" / "fitted"
        meta = read_json(fitted / "fitted.json")
        return Version(number, fitted, np.datetime64(meta["split_date"]),
                       np.datetime64(meta["trained_until"]))
    except (MlflowException, OSError, ValueError, KeyError, TypeError) as error:
        raise StepError(
            f"version {number} of {MODEL} cannot be read ({type(error).__name__}); see that its "
            "artifact store is reachable, or point the alias at another version") from error


def write_fitted(
    folder: Path, parts: dict[str, tuple[list[str], Fit]], described: DescribedModel, pool: Pool,
    split_date: str, trained_until: str,
) -> None:
    """Write what ships."""
    for name, (terms, fit) in parts.items():
        write_space(folder / name, terms, fit.scorer.space)
        write_weights(folder / name, fit.scorer.weights)
        write_json(folder / name / "threshold.json", fit.threshold)
    write_described(folder / "described.json", described)
    write_pool(folder / POOL, pool)
    write_json(folder / "fitted.json", {"split_date": split_date, "trained_until": trained_until})


def make_pool(codes: list[str], candidates: Candidates, candidate_part: np.ndarray) -> Pool:
    """The pool's vectors by term. Codes and vectors only: no text."""
    by_term = candidates.pivoted.tocsc()
    by_term.sort_indices()
    return Pool(
        codes, by_term.indptr.astype(np.int64), by_term.indices.astype(np.int32),
        by_term.data.astype(np.float32), candidates.latent.astype(np.float32), candidate_part,
    )
