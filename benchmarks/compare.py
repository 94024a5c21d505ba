"""jobmatch beside what people would use instead, in one run (entry point `benchmark`).

Reads  records made by steps.generate; with data_dir also those
Logs   comparison.md, comparison.json, plots of how time grows and of where it goes

form=smoke   a hundredth of the complete size: shows only that everything works
form=short   a twentieth, under five minutes
form=long    the complete size: 14,000 vacancies, 42,000 CVs of 4,300 characters, 54,000 prospects;
             the baseline is fitted on a tenth of its rows and its time multiplied

Every measurement but that of ranking is a process of its own, one after the other: leave the
machine alone meanwhile. Reading, scoring and the user's records are measured REPEATS times (once
in form=smoke), the trainings of form=long twice, the two sides in turns, and the shortest counts:
what other work on the machine adds is no part of either. MB are 2²⁰ bytes.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import joblib
import matplotlib

matplotlib.use("Agg")

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib import pyplot as plt
from mlflow import MlflowClient
from numpy.typing import NDArray
from pydantic import field_validator

from benchmarks.memory import peak_of_all
from jobmatch_pyfunc.columns import VacancyTexts
from jobmatch_pyfunc.contract import ACTIVITIES, CV, REQUIREMENTS, TITLE
from jobmatch_pyfunc.model import POOL, SHIPPED, FittedModel
from jobmatch_pyfunc.scoring import Pool, best_first
from jobmatch_pyfunc.storage import read_pool
from steps.failure import StepError
from steps.parameters import PROJECT, Parameters
from steps.records import Candidate, ProspectList, Vacancy, read
from steps.session import run_step

COMPLETE = {"vacancies": 14_000, "candidates": 42_000, "prospects": 54_000}
EXPERIMENT = "benchmark"
QUERIES = 20
REPEATS = 3
BLANKED = 400
"""CVs that the described pipeline's reading blanks: one takes milliseconds."""
PLAIN_PAIRS = 5_000
"""Pairs that the described pipeline scores: some seconds."""
PAIRS_AT_ONCE = 10_000
"""So many are written at once: a million of them do not fit into memory."""
SHORTEST, FEWEST_PAIRS = 0.5, 10_000
"""Seconds: a difference of two processes that is smaller is noise, and so few pairs make none."""
PREPARING = (
    ("ingest", "reading"), ("ingest", "cleaning"), ("featurize", "splitting"),
    ("featurize", "tokenising"), ("featurize", "counting_terms"))
OURS = (*PREPARING, ("featurize", "fitting_the_vectorisers"), ("train", "weighting_terms"),
        ("train", "fitting"))
"""What the baseline does too: parsing, vectorising, grid search. The steps' other seconds go to
the leak guard, the second fit on everything, the baselines, judging, plots and the registry."""
DESCRIBED = (*PREPARING, ("featurize", "fitting_the_baseline_vectorisers"),
             ("train", "fitting_the_baseline"))
"""The same for the described model as jobmatch fits it beside its own."""


AUCS = {"hire_auc": "hire AUC", "pool_auc": "pool AUC"}


@dataclass(frozen=True)
class Form:
    """How much of everything is done."""

    size: float
    """Share of the complete size."""
    growth: tuple[float, ...]
    """Shares of that for the plot of growth; the last is 1."""
    baseline_rows: float
    """Share of its rows that the baseline is fitted on."""
    pools: tuple[int, ...]
    turns: int
    """How often both are trained on the largest records, in turns: the shortest counts."""
    repeats: int
    """The same for reading, scoring and the user's records."""
    pairs: tuple[int, int]
    """Distinct pairs to score, fewer and more: what the difference takes is what counts."""


FORMS = {
    "smoke": Form(1 / 100, (1 / 2, 1.0), 1 / 2, (1_000,), 2, 1, (125, 500)),
    "short": Form(1 / 20, (1 / 2, 1.0), 1, (42_000,), 1, REPEATS, (5_000, 20_000)),
    "long": Form(1, (1 / 8, 1 / 4, 1 / 2, 1.0), 1 / 10, (42_000, 1_000_000), 2, REPEATS,
                 (100_000, 1_000_000)),
}


class BenchmarkParameters(Parameters):
    form: Literal["smoke", "short", "long"]
    data_dir: Path | None

    @field_validator("data_dir", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return value or None


class Measured(NamedTuple):
    """What a process took."""

    wall: float
    """Seconds."""
    peak_memory_mb: float
    """Of the process itself; begins at that of this one."""
    peak_memory_all_mb: float
    """Of it and the processes that it started, together (benchmarks.memory)."""
    cpu: float
    """Seconds, of all of them too."""


def measured(arguments: list[str], **environment: str) -> Measured:
    """Run Python so. Raises StepError where it fails."""
    own = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")
    kept = {name: value for name, value in os.environ.items() if name not in own}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=PROJECT, env={**kept, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    with peak_of_all(process.pid) as peak:
        output = process.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = output.strip().splitlines()[-1:] or ["no output"]
        raise StepError(f"benchmark: {' '.join(arguments[:2])} failed: {last[0]}")
    return Measured(time.perf_counter() - began, usage.ru_maxrss / 1024,
                    peak.mb, usage.ru_utime + usage.ru_stime)


def run_baseline(data: Path, work: Path, rows: float = 1, *options: str) -> dict[str, Any]:
    """Seconds, memory and figures of the described pipeline; its fit on a share of the rows is
    multiplied to all of them. Registered in a store of its own."""
    result = work / "baseline.json"
    arguments = ["-m", "benchmarks.described_pipeline", str(data), str(result), *options]
    if rows < 1:
        listed = read(data / "prospects.json", ProspectList)
        pairs = sum(len(record.prospects) for record in listed.values())
        arguments += ["--rows", str(int(rows * 0.8 * pairs))]
    with TemporaryDirectory() as folder:
        _, uri, _ = new_store(Path(folder))
        took = measured(arguments, MLFLOW_TRACKING_URI=uri, MLFLOW_EXPERIMENT_NAME=EXPERIMENT)
    figures: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    figures["peak_memory_all_mb"] = took.peak_memory_all_mb
    if "rows" in figures:
        figures["seconds_fitting"] *= figures["rows_training"] / figures["rows"]
        figures["share"] = figures["rows"] / figures["rows_training"]
        figures["seconds"] = figures["seconds_reading"] + figures["seconds_fitting"]
        figures["seconds_whole"] = figures["seconds"] + sum(
            figures[f"seconds_{part}"] for part in ("start", "joining", "registering"))
    return figures


def new_store(folder: Path) -> tuple[MlflowClient, str, str]:
    """A store whose tables are made, as those of a real one are; its address, and the id of its
    experiment. What a training keeps holds CVs: it goes with the folder."""
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri)
    return client, uri, client.create_experiment(EXPERIMENT, (folder / "artifacts").as_uri())


def train(data: Path, store: Path) -> dict[str, Any]:
    """A training from files to a registered version in a store of its own."""
    store.mkdir()
    client, uri, experiment = new_store(store)
    took = measured(
        ["-m", "steps.train", "--data_dir", str(data)], MLFLOW_TRACKING_URI=uri,
        MLFLOW_EXPERIMENT_NAME=EXPERIMENT)
    runs = {run.data.tags["mlflow.runName"]: run for run in client.search_runs([experiment])}
    stages = {f"{step}: {name.removeprefix('seconds_')}": value for step, run in runs.items()
              for name, value in run.data.metrics.items() if name.startswith("seconds_")}
    judged = json.loads(Path(client.download_artifacts(
        runs["train"].info.run_id, "judgement.json", str(store))).read_text(encoding="utf-8"))
    return {
        "wall": took.wall, "peak_memory_mb": took.peak_memory_mb,
        "peak_memory_all_mb": took.peak_memory_all_mb, "stages": stages,
        "split_date": runs["featurize"].data.tags["jobmatch.split_date"],
        **{name: sum(runs[step].data.metrics[f"seconds_{stage}"] for step, stage in stages_)
           for name, stages_ in (("seconds", OURS), ("seconds_described", DESCRIBED))},
        "jobmatch": judged["this version"], "described": judged["described model"],
        "version": _fitted(client, uri),
    }


def start_and_registry(trained: dict[str, Any]) -> float:
    """Seconds of a training outside its stages (imports, opening the store, runs and their tags)
    and in its last one, which logs and registers."""
    stages = trained["stages"]
    return float(trained["wall"] - sum(stages.values())
                 + stages["train: logging_and_registering"])


def _fitted(client: MlflowClient, uri: str) -> Path:
    source = client.get_model_version_download_uri("jobmatch", "1")
    folder = mlflow.artifacts.download_artifacts(source, tracking_uri=uri)
    return Path(folder) / "artifacts" / "fitted"


def resized(pool: Pool, size: int) -> Pool:
    """A pool of exactly this size: as few copies of as many of the candidates as divide it."""
    copies = next(n for n in range(-(-size // pool.size), size + 1) if size % n == 0)
    some = size // copies
    kept = pool.indices < some
    before = np.concatenate([[0], np.cumsum(kept)])
    return copied(Pool(
        pool.codes[:some], before[pool.indptr], pool.indices[kept], pool.data[kept],
        pool.latent[:some], pool.candidate_part[:some]), copies)


def copied(pool: Pool, copies: int) -> Pool:
    """A pool of so many copies of the given one."""
    counts = np.diff(pool.indptr)
    indptr = np.concatenate([[0], np.cumsum(counts * copies)])
    indices = np.empty(indptr[-1], np.int32)
    data = np.empty(indptr[-1], np.float32)
    offsets = np.arange(copies, dtype=np.int64) * pool.size
    for term in range(len(counts)):
        here = slice(pool.indptr[term], pool.indptr[term + 1])
        there = slice(indptr[term], indptr[term + 1])
        indices[there] = (offsets[:, None] + pool.indices[here]).ravel()
        data[there] = np.tile(pool.data[here], copies)
    return Pool(pool.codes * copies, indptr, indices, data, np.tile(pool.latent, (copies, 1)),
                np.tile(pool.candidate_part, copies))


def rank_milliseconds(fitted: Path, texts: list[tuple[str, str, str]], size: int) -> float:
    """Median time to find the best ten of a pool of this size, from the vacancy's texts on."""
    part = FittedModel(fitted / SHIPPED)
    pool = resized(read_pool(fitted / POOL), size)
    taken = []
    for text in texts:
        began = time.perf_counter()
        vectors, _ = part.analyser.vacancies(VacancyTexts.of([text]))
        query = part.scorer.query(vectors, 0)
        best_first(pool.match_logits(part.scorer, query, vectors.latent[0]), 10)
        taken.append(1000 * (time.perf_counter() - began))
    return median(taken)


def write_pairs(data: Path, path: Path, rows: int) -> None:
    """Pairs whose texts are all different but for the titles: each copy of a text gets a number of
    its own."""
    jobs = [texts_of(vacancy) for vacancy in read(data / "vagas.json", Vacancy).values()]
    cvs = [r.cv_pt for r in read(data / "applicants.json", Candidate).values() if r.cv_pt]
    schema = pa.schema([(name, pa.string()) for name in (TITLE, ACTIVITIES, REQUIREMENTS, CV)])
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as file:
        for begin in range(0, rows, PAIRS_AT_ONCE):
            some = [(*jobs[row % len(jobs)], cvs[row % len(cvs)], row)
                    for row in range(begin, min(begin + PAIRS_AT_ONCE, rows))]
            file.write_table(pa.table({
                TITLE: [title for title, *_ in some],
                ACTIVITIES: [f"{activities} {row}" for _, activities, _, _, row in some],
                REQUIREMENTS: [f"{requirements} {row}" for _, _, requirements, _, row in some],
                CV: [f"{cv} {row}" for *_, cv, row in some],
            }, schema))


Speed = dict[str, float]
"""`rows_per_second`, and `rows_per_cpu_second` of all cores together; of `score` also the seconds
and the memory of the larger file."""


def scoring_speeds(
    data: Path, store: Path, plain: Path, work: Path, form: Form
) -> tuple[Speed, Speed | None]:
    """How fast the described pipeline, a fitted model in a file, and the entry point `score` are,
    in turns on the same pairs.

    `score` reads and writes Parquet; the start of processes and the loading of the version are
    apart, as what more rows take longer than fewer counts. None where that is too short, or the
    rows are too few, to tell.
    """
    uri = f"sqlite:///{store}/mlflow.db"
    few, many = form.pairs
    chunk = max(1, min(4000, few // (2 * joblib.cpu_count())))  # few rows keep every core busy too
    ours: dict[int, list[Measured]] = {few: [], many: []}
    theirs: list[Speed] = []
    result = work / "plain_scoring.json"
    for number in ours:
        write_pairs(data, work / f"pairs_{number}.parquet", number)
    for turn in range(form.repeats):
        for number, taken in ours.items():
            taken.append(measured(
                ["-m", "steps.score", "--input", str(work / f"pairs_{number}.parquet"),
                 "--output", str(work / f"out_{number}_{turn}"), "--version", "1",
                 "--chunk_rows", str(chunk)],
                MLFLOW_TRACKING_URI=uri, MLFLOW_EXPERIMENT_NAME="benchmark"))
        measured(["-m", "benchmarks.plain_scoring", str(plain), str(work / f"pairs_{few}.parquet"),
                  str(result), "--rows", str(PLAIN_PAIRS)])
        theirs.append(json.loads(result.read_text(encoding="utf-8")))
    fastest = max(theirs, key=lambda speed: speed["rows_per_second"])
    wall, cpu = (
        min(getattr(took, kind) for took in ours[many])
        - min(getattr(took, kind) for took in ours[few]) for kind in ("wall", "cpu"))
    if wall < SHORTEST or many < FEWEST_PAIRS:
        return fastest, None
    return fastest, {
        "rows_per_second": (many - few) / wall, "rows_per_cpu_second": (many - few) / cpu,
        "wall": min(took.wall for took in ours[many]),
        "peak_memory_all_mb": min(took.peak_memory_all_mb for took in ours[many])}


def growth_exponent(sizes: NDArray, seconds: NDArray) -> float:
    """The slope of log time over log size: 1 is linear."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def texts_of(vacancy: Vacancy) -> tuple[str, str, str]:
    """Title, activities and requirements."""
    profile = vacancy.perfil_vaga
    return (vacancy.informacoes_basicas.titulo_vaga or "", profile.principais_atividades or "",
            profile.competencia_tecnicas_e_comportamentais or "")


@dataclass
class Comparison:
    """The table, a row at a time, and every figure behind it."""

    work: Path
    form: Form
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, what: str, theirs: str, ours: str, compared: str = "") -> None:
        self.rows.append((what, theirs, ours, compared))

    def training(self) -> None:
        """Train on every size, and the baseline on the largest."""
        form, trained = self.form, []
        for share in form.growth:
            data = self.work / f"data_{share:g}"
            say(f"making records: {form.size * share:.3g} of the complete size")
            sizes = {name: max(60, round(n * form.size * share)) for name, n in COMPLETE.items()}
            measured(["-m", "steps.generate", "--seed", "1", "--out", str(data),
                      *(part for name, n in sizes.items() for part in (f"--{name}", str(n)))])
            say("training")
            trained.append(train(data, self.work / f"store_{share:g}"))
        # the first training of each size: the largest is measured again below
        walls = np.array([figures["wall"] for figures in trained])
        plains, ours = [], trained[-1:]
        for turn in range(form.turns):
            if turn:
                say("training once more")
                ours.append(train(self.data, self.work / f"store_1_{turn}"))
            say("the described pipeline")
            plains.append(run_baseline(
                self.data, self.work, form.baseline_rows, "--split", ours[0]["split_date"],
                "--model", str(self.plain_model)))
        trained[-1] = min(ours, key=lambda figures: figures["wall"])
        plain = min(plains, key=lambda figures: figures["seconds"])
        self.figures |= {"training": trained, "baseline": plain, "walls": walls.tolist()}
        whole, seconds = trained[-1], plain["seconds"]
        theirs = f"{seconds:.0f} s"
        if form.baseline_rows < 1:
            theirs += f" (from {plain['share']:.0%} of its rows)"
        self.add("parsing, vectorising, grid search", theirs, f"{whole['seconds']:.1f} s",
                 ratio(seconds, whole["seconds"]))
        self.add("the same, for the described model alone", theirs,
                 f"{whole['seconds_described']:.1f} s", ratio(seconds, whole["seconds_described"]))
        # theirs with its start and the registry calls too, but without judging
        self.add("from files to registered version", f"{plain['seconds_whole']:.0f} s",
                 f"{whole['wall']:.0f} s", ratio(plain["seconds_whole"], whole["wall"]))
        self.add_memory("peak memory of that, all processes", "peak_memory_all_mb", plain, whole)
        # jobmatch fits the described model on all rows, which does it more justice than a share
        for name, shown in AUCS.items():
            self.add(f"{shown} (both fitted by jobmatch, on all rows)",
                     f"{whole['described'][name][0]:.3f}", f"{whole['jobmatch'][name][0]:.3f}")
        if form.baseline_rows < 1:
            for name, shown in AUCS.items():
                self.add(f"{shown} (the pipeline itself, on {plain['share']:.0%} of the rows)",
                         f"{plain[name]:.3f}", f"{whole['jobmatch'][name][0]:.3f}")
        if len(form.growth) > 1:
            exponent = growth_exponent(np.array(form.growth), walls)
            self.figures["growth_exponent"] = exponent
            self.add("time grows with size to the power of", "", f"{exponent:.2f}")

    @property
    def data(self) -> Path:
        """The largest records."""
        return self.work / "data_1"

    @property
    def plain_model(self) -> Path:
        """The described pipeline, fitted on them."""
        return self.work / "plain.joblib"

    def add_memory(
        self, what: str, figure: str, theirs: dict[str, Any], ours: dict[str, Any]
    ) -> None:
        self.add(what, f"{theirs[figure]:,.0f} MB", f"{ours[figure]:,.0f} MB",
                 ratio(theirs[figure], ours[figure]))

    def reading(self) -> None:
        """Read the largest records both ways."""
        say("reading")
        both = [(run_baseline(self.data, self.work, 1, "--read-only"),
                 self.measured_json("benchmarks.reading")) for _ in range(self.form.repeats)]
        theirs, ours = (min(side, key=lambda figures: figures["seconds_reading"])
                        for side in zip(*both, strict=True))
        blanking = self.measured_json("benchmarks.plain_blanking", str(BLANKED))
        self.figures |= {"reading": ours, "reading_baseline": theirs | blanking}
        self.add("ingest", f"{theirs['seconds_reading']:.2f} s", f"{ours['seconds_reading']:.2f} s",
                 ratio(theirs["seconds_reading"], ours["seconds_reading"]))
        self.add_memory("peak memory of that", "peak_memory_mb", theirs, ours)
        whole = theirs["seconds_reading"] + blanking["seconds_blanking"]
        self.add(f"ingest where both blank contact details and names (theirs from {BLANKED} CVs)",
                 f"{whole:.0f} s", f"{ours['seconds_reading']:.2f} s",
                 ratio(whole, ours["seconds_reading"]))

    def measured_json(self, module: str, *options: str) -> dict[str, Any]:
        """What a script writes of the largest records."""
        result = self.work / f"{module}.json"
        measured(["-m", module, str(self.data), str(result), *options])
        figures: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return figures

    def ranking(self) -> None:
        """Rank pools of the given sizes."""
        vacancies = list(read(self.data / "vagas.json", Vacancy).values())[:QUERIES]
        texts = [texts_of(vacancy) for vacancy in vacancies]
        for size in self.form.pools:
            say(f"ranking a pool of {size:,}")
            taken = rank_milliseconds(self.figures["training"][-1]["version"], texts, size)
            self.figures[f"rank_{size}_ms"] = taken
            self.add(f"rank a vacancy against {size:,} candidates", "", f"{taken:.1f} ms")

    def scoring(self) -> None:
        """Score pairs of distinct texts."""
        say("scoring pairs")
        theirs, ours = scoring_speeds(
            self.data, self.work / "store_1", self.plain_model, self.work, self.form)
        self.figures |= {"scoring_baseline": theirs, "scoring": ours}
        what = f"score pairs of distinct texts ({self.form.pairs[-1]:,})"
        for kind, unit in (("rows_per_second", "rows/s"),
                           ("rows_per_cpu_second", "rows per second of CPU")):
            self.add(f"{what}: {unit}", f"{theirs[kind]:,.0f}",
                     f"{ours[kind]:,.0f}" if ours else "too few to tell",
                     ratio(ours[kind], theirs[kind]) if ours else "")
        if ours:
            self.add(f"{what}: start included, peak memory of all processes", "",
                     f"{ours['wall']:.1f} s, {ours['peak_memory_all_mb']:,.0f} MB")

    def own_records(self, data_dir: Path) -> None:
        """Both on the user's records."""
        say(f"your records: {data_dir}")
        trained, plains = [], []
        for turn in range(self.form.repeats):
            trained.append(train(data_dir, self.work / f"own_{turn}"))
            plains.append(run_baseline(
                data_dir, self.work, 1, "--split", trained[0]["split_date"]))
        ours, theirs = (min(side, key=lambda figures: figures["seconds"])
                        for side in (trained, plains))
        self.figures |= {"own": ours, "own_baseline": theirs}
        self.add("**your records**: parsing, vectorising, grid search",
                 f"{theirs['seconds']:.1f} s",
                 f"{ours['seconds']:.1f} s", ratio(theirs["seconds"], ours["seconds"]))
        self.add("the same, for the described model alone", f"{theirs['seconds']:.1f} s",
                 f"{ours['seconds_described']:.1f} s",
                 ratio(theirs["seconds"], ours["seconds_described"]))
        self.add("process start and registry calls",
                 f"{theirs['seconds_start'] + theirs['seconds_registering']:.1f} s",
                 f"{start_and_registry(ours):.1f} s")
        self.add("from files to registered version", f"{theirs['seconds_whole']:.1f} s",
                 f"{ours['wall']:.1f} s", ratio(theirs["seconds_whole"], ours["wall"]))
        for name, shown in AUCS.items():
            self.add(shown, f"{theirs[name]:.3f}", f"{ours['jobmatch'][name][0]:.3f}")


def benchmark(p: BenchmarkParameters) -> None:
    """Everything, then the table."""
    with TemporaryDirectory() as work:
        comparison = Comparison(Path(work), FORMS[p.form])
        comparison.training()
        comparison.reading()
        if p.data_dir:  # before the pools: a process's peak memory begins at that of its parent
            comparison.own_records(p.data_dir)
        comparison.ranking()
        comparison.scoring()
    figures = comparison.figures | {"form": p.form, "cores": os.cpu_count()}
    text = table(comparison.rows)
    print("\n" + text)
    mlflow.log_text(text, "comparison.md")
    mlflow.log_dict(json.loads(json.dumps(figures, default=str)), "comparison.json")
    mlflow.log_metrics({name: value for name, value in {
        "training_seconds": figures["training"][-1]["wall"],
        "training_seconds_baseline": figures["baseline"]["seconds"],
        "score_rows_per_second": figures["scoring"] and figures["scoring"]["rows_per_second"],
        "ingest_seconds": figures["reading"]["seconds_reading"],
    }.items() if value is not None})
    for name, figure in plots(comparison.form, figures["training"][-1]["stages"],
                              figures["walls"]).items():
        mlflow.log_figure(figure, f"plots/{name}.png")
    plt.close("all")


def ratio(baseline: float, ours: float) -> str:
    return f"{baseline / ours:.1f} ×"


def table(rows: list[tuple[str, str, str, str]]) -> str:
    lines = ["| | described pipeline | jobmatch | ratio |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows]) + "\n"


def plots(form: Form, stages: dict[str, float], walls: list[float]) -> dict[str, Any]:
    """Where the time goes, and how it grows: seconds of each stage, and of the first training of
    each size."""
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    axes.barh(list(stages), list(stages.values()))
    axes.invert_yaxis()
    axes.set(title="Where a training's time goes", xlabel="seconds")
    drawn = {"stages": figure}
    if len(form.growth) > 1:
        figure, axes = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
        sizes = [form.size * share * COMPLETE["candidates"] for share in form.growth]
        axes.plot(sizes, walls, "o-", label="training")
        axes.plot(sizes, [walls[-1] * size / sizes[-1] for size in sizes], ":", color="grey",
                  label="linear")
        axes.set(title="How a training's time grows", xlabel="candidates", ylabel="seconds",
                 xlim=(0, None), ylim=(0, None))
        axes.legend()
        drawn["growth"] = figure
    return drawn


def say(what: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {what}", flush=True)
    mlflow.set_tag("jobmatch.stage", what)


if __name__ == "__main__":
    run_step("benchmark", BenchmarkParameters, benchmark)
