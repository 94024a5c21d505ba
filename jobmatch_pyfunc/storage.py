"""The fitted model on disk: arrays and JSON, no pickle, readable anywhere.

    FOLDER/terms.json                   the vocabulary, in the order of the columns
    FOLDER/idf.npy, latent.npy, projection.npy, space.json
                                        the Space
    FOLDER/hire_*.npy, weights.json     the Weights
    FOLDER/pool/*                       the candidates' pool: codes and vectors

Arrays are memory-mapped, so the workers of a server share one copy of them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jobmatch_pyfunc.scoring import Pool, Space, Weights

_ARRAYS = ("hire_title", "hire_body", "hire_cv")
_POOL = ("indptr", "indices", "data", "latent", "candidate_part")


def write_space(folder: Path, terms: list[str], space: Space) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "terms.json", terms)
    np.save(folder / "idf.npy", space.idf, allow_pickle=False)
    np.save(folder / "latent.npy", space.latent, allow_pickle=False)
    np.save(folder / "projection.npy", space.projection, allow_pickle=False)
    write_json(folder / "space.json",
               {"slope": space.slope, "pivot": space.pivot, "projected": True})


def read_space(folder: Path) -> tuple[list[str], Space]:
    """The vocabulary and the Space. Raises ValueError where the files do not fit together."""
    terms = read_json(folder / "terms.json")
    latent, constants = _array(folder / "latent.npy"), read_json(folder / "space.json")
    # versions from before there was a projection leave vacancies where they are
    projected = constants.pop("projected", False)
    projection = _array(folder / "projection.npy") if projected else np.eye(latent.shape[1])
    space = Space(_array(folder / "idf.npy"), latent, projection, **constants)
    if (not len(terms) == len(space.idf) == len(latent)
            or space.projection.shape != 2 * latent.shape[1:]):
        raise ValueError(f"{folder.name}: vocabulary and arrays are of different sizes")
    return terms, space


def write_weights(folder: Path, weights: Weights) -> None:
    for name in _ARRAYS:
        np.save(folder / f"{name}.npy", getattr(weights, name), allow_pickle=False)
    scalars = {
        name: float(getattr(weights, name))
        for name in Weights.__dataclass_fields__
        if name not in _ARRAYS
    }
    write_json(folder / "weights.json", scalars)


def read_weights(folder: Path) -> Weights:
    arrays: dict[str, Any] = {name: _array(folder / f"{name}.npy") for name in _ARRAYS}
    return Weights(**arrays, **read_json(folder / "weights.json"))


def write_pool(folder: Path, pool: Pool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "codes.json", pool.codes)
    for name in _POOL:
        np.save(folder / f"{name}.npy", getattr(pool, name), allow_pickle=False)


def read_pool(folder: Path) -> Pool:
    """The Pool. Raises ValueError where the files do not fit together."""
    arrays = {name: _array(folder / f"{name}.npy") for name in _POOL}
    pool = Pool(read_json(folder / "codes.json"), **arrays)
    bounds = np.concatenate([[0], pool.indptr, [len(pool.indices)]])
    if (not len(pool.codes) == len(pool.latent) == len(pool.candidate_part)
            or len(pool.indices) != len(pool.data) or (np.diff(bounds) < 0).any()):
        raise ValueError(f"{folder.name}: codes and arrays are of different sizes")
    # a scan does not look where it writes
    if len(pool.indices) and not 0 <= pool.indices.min() <= pool.indices.max() < pool.size:
        raise ValueError(f"{folder.name}: the vectors are of other candidates than the codes")
    return pool


def _array(path: Path) -> np.ndarray:
    # a plain view of the mapped file: numpy's memmap class makes every slice slower
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def read_json(path: Path):  # type: ignore[no-untyped-def]
    return json.loads(path.read_text(encoding="utf-8"))
