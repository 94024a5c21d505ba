"""What featurize hands on to train, and how it lies on disk."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from jobmatch_pyfunc.model import HOLDOUT, SHIPPED
from jobmatch_pyfunc.scoring import Candidates, Space, Vacancies
from jobmatch_pyfunc.storage import read_space, write_space
from steps.corpus import Corpus, Pairs
from steps.tokens import Tokens

PARTS = (HOLDOUT, SHIPPED)
"""The first is fitted without the held-out vacancies and is what gets judged; the second is fitted
on everything with the settings that the first found."""

CORPUS = ("title", "activities", "requirements", "cv")


@dataclass(frozen=True)
class Features:
    """Everything that training needs."""

    vacancy_codes: list[str]
    vacancy_dates: NDArray[np.datetime64]
    held_out: NDArray[np.bool_]
    candidate_codes: list[str]
    candidate_filled: NDArray[np.bool_]
    pairs: Pairs
    split_date: str
    trained_until: str
    corpus: Corpus
    terms: dict[str, list[str]]
    spaces: dict[str, Space]
    described: dict[str, tuple[list[str], list[float]]]
    """Terms and idf of the described model's three vectorisers."""

    def vectors(self, part: str) -> tuple[Vacancies, Candidates]:
        """Vectors of every vacancy and every candidate in one part's space."""
        return self.corpus.vectors(self.terms[part], self.spaces[part])

    def training_pairs(self, part: str) -> Pairs:
        return self.pairs if part == SHIPPED else self.pairs.where(~self.held_out_pairs)

    @property
    def held_out_pairs(self) -> NDArray[np.bool_]:
        return self.held_out[self.pairs.vacancy]


def write(features: Features, folder: Path) -> None:
    """Write the features; no object is pickled."""
    tokens = features.corpus.tokens
    np.savez(
        folder / "arrays.npz",
        **{f"pairs_{name}": getattr(features.pairs, name) for name in Pairs.__dataclass_fields__},
        **{
            f"corpus_{name}": getattr(features.corpus, name)
            for name in CORPUS
        },
        tokens_offsets=tokens.offsets,
        tokens_ids=tokens.ids,
        vacancy_dates=features.vacancy_dates.astype("datetime64[D]").astype(np.int64),
        held_out=features.held_out,
        candidate_filled=features.candidate_filled,
    )
    names = {
        "vacancy_codes": features.vacancy_codes,
        "candidate_codes": features.candidate_codes,
        "split_date": features.split_date,
        "trained_until": features.trained_until,
        "tokens_terms": tokens.terms,
        "tokens_written": tokens.written,
        "described": features.described,
    }
    (folder / "names.json").write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
    for part in PARTS:
        write_space(folder / part, features.terms[part], features.spaces[part])

    def save(counted: tuple[str, list[str]]) -> None:
        name, terms = counted
        sp.save_npz(folder / f"counts_{name}.npz", _small(features.corpus.counts(terms)),
                    compressed=False)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        vocabularies = _vocabularies(features.terms, features.described)
        list(threads.map(save, vocabularies.items()))  # raises what they raise


def read(folder: Path) -> Features:
    """Read what `write` wrote."""
    names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        tokens = Tokens(
            arrays["tokens_offsets"], arrays["tokens_ids"],
            names["tokens_terms"], names["tokens_written"],
        )
        corpus = Corpus(
            tokens,
            **{n: arrays[f"corpus_{n}"] for n in CORPUS},
        )
        pairs = Pairs(**{name: arrays[f"pairs_{name}"] for name in Pairs.__dataclass_fields__})
        dates = arrays["vacancy_dates"].astype("datetime64[D]")
        held_out, filled = arrays["held_out"], arrays["candidate_filled"]
    read_parts = {part: read_space(folder / part) for part in PARTS}
    parts = {part: terms for part, (terms, _) in read_parts.items()}
    for name, terms in _vocabularies(parts, names["described"]).items():
        counts = sp.load_npz(folder / f"counts_{name}.npz").astype(np.float32)
        corpus.remember_counts(terms, counts)
    return Features(
        names["vacancy_codes"], dates, held_out, names["candidate_codes"], filled, pairs,
        names["split_date"], names["trained_until"], corpus,
        parts,
        {part: space for part, (_, space) in read_parts.items()},
        {name: (terms, idf) for name, (terms, idf) in names["described"].items()},
    )


def _vocabularies(
    parts: dict[str, list[str]], described: dict[str, tuple[list[str], list[float]]]
) -> dict[str, list[str]]:
    """Every vocabulary, by the name of the file that holds its counts."""
    return parts | {f"described_{name}": terms for name, (terms, _) in described.items()}


def _small(counts: sp.csr_matrix) -> sp.csr_matrix:
    """The same counts in nearly always one byte each, and their columns in two."""
    small = counts.astype(np.min_scalar_type(int(counts.data.max(initial=0))))
    small.indices = small.indices.astype(np.min_scalar_type(counts.shape[1]))  # until it is read
    return small
