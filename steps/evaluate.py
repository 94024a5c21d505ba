"""Judge a registered version beside the baselines, on any three files.

Reads   data_dir, the version, the production version
Writes  judgement.csv, model_card.md, plots/
Logs    every figure with its 95 % interval

Only vacancies that the version has not seen are judged: those later than everything it was
trained on; where the files hold none, the version's holdout part is judged on the vacancies that
were kept from it.
"""

import os
from collections.abc import Callable

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from numpy.typing import NDArray
from pydantic import Field

from jobmatch_pyfunc.model import HOLDOUT, SHIPPED, FittedModel
from steps import ingest
from steps.beside import beside
from steps.corpus import Corpus, Pairs, corpus_of, has_cv, pairs_of
from steps.failure import StepError
from steps.ingest import IngestParameters
from steps.judging import (
    Contender,
    Held,
    cosine_contender,
    described_contender,
    held,
    judge,
    model_contender,
    pool_of,
    random_contender,
)
from steps.parameters import select
from steps.progress import Progress
from steps.registry import PRODUCTION, Wanted, resolve, version_at
from steps.report import begin_drawing, log_judgement, print_table
from steps.scores import Judgement
from steps.session import run_step
from steps.tokens import tokenise
from steps.versions import UnreadableVersion, Version, load_version


class EvaluateParameters(IngestParameters):
    version: Wanted
    random_state: int = Field(ge=0, lt=2**32)


def unseen(
    version: Version, dates: NDArray, pairs: Pairs
) -> tuple[str, NDArray[np.bool_]]:
    """The part of the version to judge and the vacancies to judge it on.

    Raises StepError where the files hold no joined pair that the version has not seen.
    """
    for part, judged in ((SHIPPED, dates > version.trained_until),
                         (HOLDOUT, dates >= version.split_date)):
        if (judged[pairs.vacancy] & pairs.joined).any():
            return part, judged
    raise StepError(
        f"evaluate: the files hold no vacancy with a CV from {version.split_date} on, and version "
        f"{version.number} was trained on all earlier ones; give later records")


def judge_all(
    corpus: Corpus, on: Held, version: Version, part: str, production: Judgement | None,
    progress: Progress,
) -> list[Judgement]:
    """The baselines, production where it can be judged, and the version last."""
    fitted = version.part(part)
    vacancies, candidates = corpus.vectors(fitted.terms, fitted.space)
    pool = pool_of(candidates, fitted.scorer, on)
    contenders: list[Callable[[], Contender]] = [
        lambda: model_contender(version.name, fitted.scorer, vacancies, candidates,
                                fitted.threshold, on, pool),  # takes longest
        lambda: cosine_contender(vacancies, candidates, on, pool, fitted.scorer.space),
        lambda: described_contender(version.described(part), corpus, on),
        lambda: random_contender(on, version.hired_share[part]),
    ]
    judged = []
    with beside(os.cpu_count() or 1) as threads:  # numpy lets go of the interpreter's lock
        for judgement in threads.map(lambda make: judge(make(), on), contenders):
            judged.append(judgement)
            progress.within(len(judged) / len(contenders))
    own, cosine, described, by_chance = judged
    return [by_chance, cosine, described, *([production] if production else []), own]


def readable(version: ModelVersion | None) -> Version | None:
    """The version in production; None where there is none, or where it cannot be read: that must
    not stop the work on another one."""
    try:
        return load_version(str(version.version)) if version else None
    except UnreadableVersion as error:
        print(f"not compared with production: {error}")
        return None


def judge_version(corpus: Corpus, on: Held, version: Version) -> Judgement | None:
    """The production version's row, or None where it has seen these vacancies."""
    part = version.part_unseen_from(on.first_day)
    if part is None:
        return None
    return judge_part(f"production ({version.name})", corpus, on, version.part(part))


def judge_part(name: str, corpus: Corpus, on: Held, fitted: FittedModel) -> Judgement:
    """A row of a fitted part of any version."""
    vacancies, candidates = corpus.vectors(fitted.terms, fitted.space)
    return judge(model_contender(
        name, fitted.scorer, vacancies, candidates, fitted.threshold, on,
        pool_of(candidates, fitted.scorer, on)), on)


def evaluate(p: EvaluateParameters) -> None:
    client = MlflowClient()
    version = load_version(resolve(client, p.version))
    vacancies, candidates, listed = ingest.tables(select(IngestParameters, p))
    progress = Progress({"tokenising": 40, "judging": 50, "writing the report": 10})
    progress.stage("tokenising")
    pairs = pairs_of(listed, vacancies, candidates)
    dates = vacancies["data_requicisao"].to_numpy().astype("datetime64[D]")
    part, judged = unseen(version, dates, pairs)
    texts, used = corpus_of(vacancies, candidates)
    corpus = Corpus(tokenise(texts, progress.within), **used)
    on = held(pairs, judged, dates, np.flatnonzero(has_cv(candidates)), p.random_state)
    progress.stage("judging")
    production = readable(version_at(client, PRODUCTION))
    theirs = (judge_version(corpus, on, production)
              if production and production.number != version.number else None)
    judgements = judge_all(corpus, on, version, part, theirs, progress)
    progress.stage("writing the report")
    drawn = begin_drawing(judgements, on, version, part, corpus.tokens)
    log_judgement(judgements, on, version, part, drawn)
    mlflow.set_tags({"jobmatch.version": version.number, "jobmatch.part": part})
    progress.finish()
    print_table(judgements, on, part)


if __name__ == "__main__":
    run_step("evaluate", EvaluateParameters, evaluate)
