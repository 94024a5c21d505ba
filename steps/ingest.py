"""Read the recruiters' three files into three clean tables.

Reads   data_dir/{vagas,applicants,prospects}.json
Writes  vacancies.parquet   codigo, data_requicisao, titulo_vaga, principais_atividades,
                            competencia_tecnicas_e_comportamentais
        candidates.parquet  codigo, cv_pt
        pairs.parquet       vaga, candidato, outcome, data_candidatura
Logs    the tables as dataset inputs, data_quality.json, row counts, seconds

Nothing else of the records leaves this step; contact details inside the texts are blanked.
"""

import os
import re
import warnings
from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import polars as pl
from mlflow.data.polars_dataset import from_polars
from mlflow.entities import DatasetInput, InputTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from jobmatch_pyfunc.contract import VACANCY_TEXTS
from steps import reuse
from steps.failure import StepError
from steps.parameters import Parameters
from steps.progress import Progress
from steps.records import (
    FILES,
    HIRED,
    NOT_HIRED,
    OUTCOMES,
    UNDECIDED,
    Candidate,
    ProspectList,
    Vacancy,
    batches,
    read,
)
from steps.redaction import redact, without_name
from steps.scratch import write_table
from steps.session import run_step

TABLES = ("vacancies", "candidates", "pairs")
Tables = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]
"""In that order."""
EARLIEST = date(1990, 1, 1)
DATE = re.compile(
    rb'"data_(?:requicisao|candidatura)"\s*:\s*"\s*([0-9]{1,2})-([0-9]{1,2})-([0-9]{4,9})\s*"')
"""A date that becomes a column, as the files hold it. One after today is an impossible date."""
ROWS_AT_ONCE = 5_000
"""So many rows of a table are compressed, and read, at once: on every core some."""
MOST_OUTCOMES, LONGEST_OUTCOME = 20, 60
"""So many unknown outcomes are named, without contact details and cut to so many characters."""


class IngestParameters(Parameters):
    data_dir: Path


Faults = dict[str, int]


def vacancies_table(records: dict[str, Vacancy]) -> tuple[pl.DataFrame, Faults]:
    """One row a vacancy, sorted as in the file; impossible dates are null."""
    table = pl.DataFrame(
        {
            "codigo": list(records),
            "data_requicisao": [r.informacoes_basicas.data_requicisao for r in records.values()],
            "titulo_vaga": [r.informacoes_basicas.titulo_vaga for r in records.values()],
            "principais_atividades": [
                r.perfil_vaga.principais_atividades for r in records.values()
            ],
            "competencia_tecnicas_e_comportamentais": [
                r.perfil_vaga.competencia_tecnicas_e_comportamentais for r in records.values()
            ],
        },
        schema=dict.fromkeys(("codigo", "data_requicisao", *VACANCY_TEXTS), pl.String),
    ).with_columns(
        _parsed("data_requicisao"),
        *(redact(pl.col(name).fill_null("")) for name in VACANCY_TEXTS),
    )
    texts = pl.concat_str([pl.col(name) for name in VACANCY_TEXTS])
    return table, {
        "vacancies with an impossible date": table["data_requicisao"].null_count(),
        "vacancies without any text": table.select(_blank(texts).sum()).item(),
        "vacancies with broken characters (U+FFFD)": table.select(
            texts.str.contains("\ufffd", literal=True).sum()
        ).item(),
    }


def candidates_table(batches: Iterable[dict[str, Candidate]]) -> tuple[pl.DataFrame, Faults]:
    """One row a candidate, sorted as in the file.

    A batch is cleaned while the next ones are read: cleaning is the longer part, and polars lets
    go of the interpreter's lock.
    """
    cores = os.cpu_count() or 1
    cleaned: list[pl.DataFrame] = []
    pending: deque[Future[pl.DataFrame]] = deque()
    with ThreadPoolExecutor(cores) as threads:
        for batch in batches:
            pending.append(threads.submit(_cleaned, batch))
            if len(pending) > cores:  # no more texts in memory than are being worked on
                cleaned.append(pending.popleft().result())
        cleaned += [future.result() for future in pending]
    table = pl.concat([_cleaned({}), *cleaned])
    filled = table.filter(~_blank(pl.col("cv_pt")))
    return table, {
        "candidates with an empty CV": table.height - filled.height,
        "candidates who share a CV with another": filled.height - filled["cv_pt"].n_unique(),
    }


def _cleaned(records: dict[str, Candidate]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "codigo": list(records),
            "cv_pt": [
                without_name(r.cv_pt or "", r.infos_basicas.nome if r.infos_basicas else None)
                for r in records.values()
            ],
        },
        schema={"codigo": pl.String, "cv_pt": pl.String},
    ).with_columns(redact(pl.col("cv_pt")))


def pairs_table(
    records: dict[str, ProspectList], vacancies: pl.DataFrame, candidates: pl.DataFrame
) -> tuple[pl.DataFrame, Faults, dict[str, int]]:
    """One row a candidate put forward for a known vacancy, and the outcomes that are not known.

    A pair that is listed twice keeps its most decided outcome (hired before not hired before
    undecided). An outcome that `OUTCOMES` does not know is null: the pair still tells who was put
    forward, not what came of it.
    """
    flat = [(code, row) for code, listed in records.items() for row in listed.prospects]
    known = {" ".join(text.casefold().split()): outcome for text, outcome in OUTCOMES.items()}
    written = [" ".join((row.situacao_candidado or "").split()) for _, row in flat]
    rows = pl.DataFrame(
        {
            "vaga": [code for code, _ in flat],
            "candidato": [str(row.codigo) for _, row in flat],
            "outcome": [known.get(text.casefold()) for text in written],
            "data_candidatura": [row.data_candidatura for _, row in flat],
        },
        schema=dict.fromkeys(("vaga", "candidato", "outcome", "data_candidatura"), pl.String),
    ).with_columns(_parsed("data_candidatura"))
    joined = rows.join(vacancies.select(vaga="codigo"), on="vaga", how="semi")
    dated = sum(bool((row.data_candidatura or "").strip()) for _, row in flat)
    decided = {HIRED: 0, NOT_HIRED: 1, UNDECIDED: 2}
    pairs = (
        joined.with_row_index("order")
        .sort(pl.col("outcome").replace_strict(decided, default=3, return_dtype=pl.Int8), "order")
        .unique(["vaga", "candidato"], keep="first", maintain_order=True)
        .sort("order")
        .drop("order")
    )
    foreign = pl.Series("text", [text for text in written if text.casefold() not in known],
                        pl.String)
    unknown = foreign.to_frame().select(
        redact(pl.col("text")).str.slice(0, LONGEST_OUTCOME)).to_series()
    return (
        pairs,
        {
            "prospects of an unknown vacancy": rows.height - joined.height,
            "prospects of an unknown candidate": pairs.join(
                candidates, left_on="candidato", right_on="codigo", how="anti"
            ).height,
            "duplicate prospects": joined.height - pairs.height,
            "prospects with an impossible date": dated - rows["data_candidatura"].count(),
            "prospects with an unknown outcome": len(unknown),
        },
        dict(Counter(unknown).most_common(MOST_OUTCOMES)),
    )


def input_digests(data_dir: Path) -> dict[str, str]:
    """SHA-256 of each of the three files, and the dates in them that count as impossible only
    until their day comes."""
    with ThreadPoolExecutor() as threads:  # hashing lets go of the interpreter's lock
        digests = threads.map(lambda name: reuse.file_digest(data_dir / name), FILES)
        dates = str(_dates_to_come(data_dir))
        return dict(zip(FILES, digests, strict=True)) | {"dates to come": dates}


def _dates_to_come(data_dir: Path) -> list[tuple[int, ...]]:
    """Year, month and day of every date of the files that lies after today."""
    today = date.today().timetuple()[:3]
    files = (data_dir / "vagas.json", data_dir / "prospects.json")
    found = set().union(*(_dates(path) for path in files if path.is_file()))
    return sorted(day for day in found if day > today)


@reuse.while_unchanged
def _dates(path: Path) -> set[tuple[int, ...]]:
    """Year, month and day of every date of a file."""
    return {tuple(map(int, reversed(day))) for day in set(DATE.findall(path.read_bytes()))}


def result_digest(parameters: IngestParameters) -> str:
    return reuse.step_digest("ingest", parameters, input_digests(parameters.data_dir))


def tables(parameters: IngestParameters) -> Tables:
    """Vacancies, candidates and pairs, from an earlier run where possible."""
    return reuse.bring_about(
        "ingest", result_digest(parameters), lambda: ingest(parameters), _read_tables)


def _read_tables(folder: Path) -> Tables:
    vacancies, candidates, pairs = (
        pl.read_parquet(folder / f"{name}.parquet") for name in TABLES)
    return vacancies, candidates, pairs


def ingest(parameters: IngestParameters) -> Tables:
    """Make the tables and log them on the active run."""
    digest = result_digest(parameters)
    progress = Progress({"reading": 60, "cleaning": 25, "logging the tables": 15})
    progress.stage("reading", str(parameters.data_dir))
    files = {name: parameters.data_dir / name for name in FILES}
    for path in files.values():  # say so before minutes of reading
        if not path.is_file():
            raise StepError(f"{path}: file not found; data_dir must hold {', '.join(FILES)}")
    vacancies, faults = vacancies_table(read(files["vagas.json"], Vacancy))
    candidates, more = candidates_table(batches(files["applicants.json"], Candidate))
    faults |= more
    listed = read(files["prospects.json"], ProspectList)
    if result_digest(parameters) != digest:  # the tables would be reused for files they are not of
        raise changed(parameters.data_dir)
    progress.stage("cleaning")
    pairs, more, unknown = pairs_table(listed, vacancies, candidates)
    faults |= more
    with_cv = pairs.join(
        candidates.filter(~_blank(pl.col("cv_pt"))),
        left_on="candidato", right_on="codigo", how="semi",
    )
    _require_joins(with_cv, files)
    counts = {
        "vacancies": vacancies.height,
        "candidates": candidates.height,
        "pairs": pairs.height,
        "pairs_with_cv": with_cv.height,
        "hired_with_cv": with_cv.filter(outcome=HIRED).height,
    }
    progress.stage("logging the tables")
    _log_tables(parameters.data_dir, vacancies=vacancies, candidates=candidates, pairs=pairs)
    mlflow.log_dict({"rows": counts, "faults": faults, "unknown outcomes": unknown},
                    "data_quality.json")
    mlflow.log_metrics({f"rows_{name}": count for name, count in counts.items()})
    progress.finish()
    _print_report(counts, faults, unknown)
    reuse.mark("ingest", digest)
    return vacancies, candidates, pairs


def log_inputs(parameters: IngestParameters, context: str) -> None:
    """Log the tables as dataset inputs of the active run too, as the run that made them logged
    them; nothing where that run has been deleted since."""
    made, active = reuse.find("ingest", result_digest(parameters)), mlflow.active_run()
    if made is None or made.inputs is None or active is None:
        return
    tags = [InputTag(MLFLOW_DATASET_CONTEXT, context)]
    inputs = [DatasetInput(one.dataset, tags) for one in made.inputs.dataset_inputs]
    mlflow.MlflowClient().log_inputs(active.info.run_id, inputs)


def changed(data_dir: Path) -> StepError:
    """What stops a step whose result would be kept for files that it was not made from."""
    return StepError(f"{data_dir}: a file changed while it was read; run again")


def _log_tables(data_dir: Path, **tables: pl.DataFrame) -> None:
    with TemporaryDirectory() as folder:
        for name, table in tables.items():
            path = Path(folder) / f"{name}.parquet"
            write_table(table, path, compression="zstd", compression_level=1,
                        row_group_size=ROWS_AT_ONCE)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # two of MLflow's source types fit a local folder
                dataset = from_polars(
                    table.cast({pl.Date: pl.Datetime}),  # its schemas have no plain date
                    source=str(data_dir.absolute()),
                    name=name,
                    digest=reuse.file_digest(path)[:16],
                )
            mlflow.log_input(dataset, context="ingest")
        mlflow.log_artifacts(folder)


def _require_joins(with_cv: pl.DataFrame, files: dict[str, Path]) -> None:
    if with_cv.is_empty():
        raise StepError(
            f"{files['prospects.json']}: no prospect joins to both a vacancy of vagas.json and a "
            "CV of applicants.json; check that the three files are of one export"
        )
    hired = with_cv.filter(outcome=HIRED).height
    if hired in (0, with_cv.height):
        only = "hired" if hired else "not hired or undecided"
        raise StepError(
            f"{files['prospects.json']}: every outcome is {only}; a model needs both; check "
            "situacao_candidado (the outcomes it may hold are listed in docs/data.md)"
        )


def _print_report(counts: dict[str, int], faults: Faults, unknown: dict[str, int]) -> None:
    print(", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items()))
    for kind, count in faults.items():
        if count:
            print(f"  {count:,} {kind}")
    for text, count in unknown.items():
        print(f"  unknown outcome {text!r}: {count:,} (add it to OUTCOMES in steps/records.py)")


def _parsed(column: str) -> pl.Expr:
    day = pl.col(column).str.strip_chars().str.to_date("%d-%m-%Y", strict=False)
    return pl.when(day.is_between(EARLIEST, date.today())).then(day).alias(column)


def _blank(text: pl.Expr) -> pl.Expr:
    return text.str.strip_chars() == ""


if __name__ == "__main__":
    run_step("ingest", IngestParameters, ingest)
