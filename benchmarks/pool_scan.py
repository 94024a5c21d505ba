"""What ranking costs as the pool grows: time and memory a candidate, for docs/scaling.md.

Takes the production version of the store at MLFLOW_TRACKING_URI, makes pools of the given sizes
out of copies of its own or of a part of it, and finds the ten best for vacancies of DATA's
vagas.json, one after the other, with one BLAS thread. Prints a Markdown table; its rows:

    pool          bytes of the vectors, which workers share, and of the codes, which they do not
    request       bytes that a request holds at its peak beside the pool: median and largest
    scan          CPU and wall from the vacancy's vectors to the ten best: median of the vacancies,
                  each at the shortest of REPEATS scans
    mean          CPU of all scans, and the part of it that is the kernel's, which hands out memory

and, above it, CPU and wall from a vacancy's texts to its vectors, which no pool changes. A pool
that would take more than half of the memory available is left out.

    python -m benchmarks.pool_scan [--data DATA] [--sizes 40000,100000,1000000] [--queries 40]
"""

import argparse
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
import psutil
from threadpoolctl import threadpool_limits

from benchmarks.compare import REPEATS, resized, texts_of
from jobmatch_pyfunc.columns import VacancyTexts
from jobmatch_pyfunc.model import POOL, SHIPPED, FittedModel
from jobmatch_pyfunc.scoring import Floats, Ints, Pool, Query, best_first
from jobmatch_pyfunc.storage import read_pool
from steps.parameters import PROJECT
from steps.records import Vacancy, read
from steps.registry import MODEL, PRODUCTION

BEST = 10
WARM = 3
"""So many vacancies are asked for before the clock runs."""
ENLARGING = 1.2
"""Memory while a pool is made, over that of the pool."""


@dataclass(frozen=True)
class Asked:
    """A vacancy as a scan takes it."""

    query: Query
    latent: Floats


@dataclass(frozen=True)
class Figures:
    """Of one size of pool."""

    candidates: int
    pool_bytes: int
    code_bytes: float
    request_bytes: float
    """Median of the vacancies."""
    largest_request_bytes: int
    cpu: float
    """Seconds of a scan, of all threads: median of the vacancies."""
    wall: float
    mean_cpu: float
    mean_system: float
    """The kernel's part of `mean_cpu`."""


@dataclass(frozen=True)
class Seconds:
    """What some work took."""

    cpu: float
    wall: float
    system: float


def timed(work: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    system = resource.getrusage(resource.RUSAGE_SELF).ru_stime
    work()
    return Seconds(time.process_time() - cpu, time.perf_counter() - wall,
                   resource.getrusage(resource.RUSAGE_SELF).ru_stime - system)


def vectors_bytes(pool: Pool) -> int:
    """What is mapped from files, so that all workers of a machine share it."""
    return sum(part.nbytes for part in
               (pool.indptr, pool.indices, pool.data, pool.latent, pool.candidate_part))


def codes_bytes(pool: Pool) -> float:
    """Bytes of a candidate's code in each worker: the text and a list's reference to it."""
    return 8 + mean(map(sys.getsizeof, pool.codes))


def scan(part: FittedModel, pool: Pool, asked: Asked) -> Ints:
    return best_first(pool.match_logits(part.scorer, asked.query, asked.latent), BEST)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that was allocated at a time, numpy's arrays included."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def measure(part: FittedModel, own: Pool, size: int, asked: list[Asked]) -> Figures:
    """Scan a pool of this size for each of the vacancies."""
    pool = resized(own, size)
    scans = [partial(scan, part, pool, some) for some in asked]
    for work in scans[:WARM]:
        work()
    taken = [[timed(work) for _ in range(REPEATS)] for work in scans]
    requests = [peak_bytes(work) for work in scans]
    return Figures(
        pool.size, vectors_bytes(pool), codes_bytes(own), median(requests), max(requests),
        cpu=median(min(s.cpu for s in one) for one in taken),
        wall=median(min(s.wall for s in one) for one in taken),
        mean_cpu=mean(s.cpu for one in taken for s in one),
        mean_system=mean(s.system for one in taken for s in one))


def table(figures: list[Figures]) -> str:
    def row(what: str, value: Callable[[Figures], float], shown: str) -> str:
        return f"| {what} | " + " | ".join(format(value(f), shown) for f in figures) + " |"

    return "\n".join([
        row("candidates", lambda f: f.candidates, ",d"),
        "|---|" + "---|" * len(figures),
        row("pool, bytes a candidate", lambda f: f.pool_bytes / f.candidates, ",.0f"),
        row("its code, bytes in each worker", lambda f: f.code_bytes, ".0f"),
        row("request, bytes a candidate", lambda f: f.request_bytes / f.candidates, ".0f"),
        row("the largest", lambda f: f.largest_request_bytes / f.candidates, ".0f"),
        row("scan, ms of CPU", lambda f: 1e3 * f.cpu, ".1f"),
        row("scan, ms of wall", lambda f: 1e3 * f.wall, ".1f"),
        row("ns of CPU a candidate", lambda f: 1e9 * f.cpu / f.candidates, ".0f"),
        row("ns of wall a candidate", lambda f: 1e9 * f.wall / f.candidates, ".0f"),
        row("mean, ns of CPU a candidate", lambda f: 1e9 * f.mean_cpu / f.candidates, ".0f"),
        row("of that the kernel's", lambda f: 1e9 * f.mean_system / f.candidates, ".0f"),
    ])


def sizes(text: str) -> list[int]:
    """Whole numbers above zero, between commas."""
    values = [int(part) for part in text.split(",")]
    if min(values) < BEST:
        raise ValueError
    return values


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=PROJECT / "data" / "sample",
                        help="the folder whose vagas.json has the vacancies to ask for")
    parser.add_argument("--sizes", type=sizes, default=[40_000, 100_000, 1_000_000, 2_500_000],
                        help="candidates in each pool, between commas")
    parser.add_argument("--queries", type=int, default=40, help="how many vacancies to ask for")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    given = parsed()
    with TemporaryDirectory() as scratch, threadpool_limits(1, "blas"):
        version = mlflow.artifacts.download_artifacts(
            f"models:/{MODEL}@{PRODUCTION}", dst_path=scratch)
        fitted = Path(version) / "artifacts" / "fitted"
        part, own = FittedModel(fitted / SHIPPED), read_pool(fitted / POOL)
        asked, analysing = [], []

        def analyse(text: tuple[str, str, str]) -> None:
            vectors, _ = part.analyser.vacancies(VacancyTexts.of([text]))
            asked.append(Asked(part.scorer.query(vectors, 0), vectors.latent[0]))

        vacancies = list(read(given.data / "vagas.json", Vacancy).values())[:given.queries]
        for text in map(texts_of, vacancies):
            analysing.append(timed(partial(analyse, text)))
        each = vectors_bytes(own) / own.size
        figures = []
        for size in given.sizes:
            if size * each * ENLARGING > psutil.virtual_memory().available / 2:
                print(f"left out: {size:,} candidates, not enough memory", file=sys.stderr)
                continue
            figures.append(measure(part, own, size, asked))
    terms = np.diff(own.indptr).sum() / own.size
    print(f"{len(asked)} vacancies; own pool {own.size:,} candidates, {terms:.0f} terms each; "
          f"vocabulary {len(own.indptr) - 1:,}, latent dimensions {own.latent.shape[1]}; "
          f"texts {1e3 * median(s.cpu for s in analysing):.1f} ms of CPU, "
          f"{1e3 * median(s.wall for s in analysing):.1f} of wall\n")
    print(table(figures))


if __name__ == "__main__":
    main()
