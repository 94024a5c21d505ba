"""Fit, judge and register a version.

Reads   the features of featurize (brought about if they are not there yet)
Writes  a version of the registered model `jobmatch`, alias `staging`; alias `production` where
        there is none yet
Logs    parameters, figures with intervals, plots, model card, seconds per stage, peak memory
"""

import gc
import sys

from steps import worker

if __name__ == "__main__":
    gc.disable()  # until `run_step`: a tenth of the time that the imports take
    worker.start_where_worth(sys.argv)  # its imports take as long as those that follow

import json
import resource
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
from mlflow import MlflowClient
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score
from threadpoolctl import threadpool_limits

from jobmatch_pyfunc.contract import ACTIVITIES, CV, REQUIREMENTS, TITLE, signature
from jobmatch_pyfunc.model import HOLDOUT, POOL, SHIPPED
from jobmatch_pyfunc.scoring import Pool
from jobmatch_pyfunc.storage import write_pool
from steps import featurize, ingest
from steps.beside import beside
from steps.convergence import silence_unconverged
from steps.corpus import Pairs, candidates_seen
from steps.described import DescribedModel, Vectoriser, fit_described
from steps.evaluate import judge_all, judge_part, judge_version, readable
from steps.features import Features
from steps.featurize import FeaturizeParameters
from steps.fitting import (
    Data,
    Earlier,
    Fit,
    TrainParameters,
    fit,
    require_no_leak,
    unseen_logits,
)
from steps.ingest import IngestParameters
from steps.judging import Held, held, verdict
from steps.memory import give_back, keep_freed
from steps.parameters import PROJECT, command, select
from steps.progress import Progress
from steps.registry import MODEL, PRODUCTION, STAGING, current_user, set_production, version_at
from steps.report import begin_drawing, log_judgement, print_table
from steps.scores import Judgement
from steps.session import past_stopping, run_step
from steps.versions import Version, make_pool, write_about, write_described_part, write_part

SHIPPED_REQUIREMENTS = ("mlflow", "numpy", "pandas", "pyarrow", "scipy", "pystemmer")
EXAMPLE = {
    TITLE: "Desenvolvedor Java Pleno",
    ACTIVITIES: "Desenvolver e manter APIs em Java e Spring Boot.",
    REQUIREMENTS: "Java, Spring Boot, SQL e testes automatizados.",
    CV: "Desenvolvedor Java há 6 anos. Spring Boot, Hibernate, SQL e JUnit.",
}


def data_of(features: Features, part: str) -> Data:
    """What one part is fitted on."""
    vacancies, candidates = features.vectors(part)
    pairs = features.training_pairs(part)
    return Data(
        vacancies, candidates, features.spaces[part], pairs, features.corpus.postings,
        age_in_days(features.vacancy_dates, pairs),
        candidates_seen(features.candidate_filled, features.pairs, pairs))


def fit_everything(
    features: Features, p: TrainParameters, first: Fit, described: DescribedModel
) -> tuple[Fit, Pool, DescribedModel]:
    """Fit both scores and the described model on all vacancies, with what the first fits found; and
    the pool that ships with them."""
    data = data_of(features, SHIPPED)
    require_no_leak(data, p)
    held_out, posting = features.held_out_pairs, data.posting[data.pairs.vacancy]
    final = fit(data, p, Earlier(
        first.match_grid, first.hire_grid,
        unseen_logits(data.pairs, held_out, first, *features.vectors(HOLDOUT)),
        (~held_out | ~np.isin(posting, posting[~held_out]))[data.pairs.known]))
    pool = shipped_pool(features, final)
    return final, pool, fit_baseline(features, p, SHIPPED, described)


def age_in_days(dates: NDArray[np.datetime64], pairs: Pairs) -> NDArray[np.float64]:
    """Days from each pair's vacancy to the newest; an unknown date counts as the oldest."""
    days = dates[pairs.vacancy]
    if np.isnat(days).all():
        return np.zeros(len(days))
    age = (days[~np.isnat(days)].max() - days) / np.timedelta64(1, "D")
    return np.where(np.isnat(days), np.nanmax(age), age)


def at_threshold(judgement: Judgement, hired: NDArray[np.int64]) -> dict[str, float]:
    """Precision, recall, accuracy and the four confusion counts at the version's threshold."""
    threshold = 0.5 if judgement.threshold is None else judgement.threshold
    predicted = judgement.hire >= threshold
    (tn, fp), (fn, tp) = confusion_matrix(hired, predicted, labels=[False, True])
    return {
        "hire_precision": precision_score(hired, predicted, zero_division=0),
        "hire_recall": recall_score(hired, predicted, zero_division=0),
        "hire_accuracy": accuracy_score(hired, predicted),
        "true_positives": tp, "false_positives": fp, "true_negatives": tn, "false_negatives": fn,
        "held_out_hired_share": hired.mean(),
    }


def gate(
    features: Features, on: Held, own: Judgement, theirs: Judgement | None, version: Version,
    production: Version | None,
) -> tuple[bool, str]:
    """The verdict, on held-out vacancies that the production version has not seen either. `theirs`
    is production's judgement on all of them, where it has seen none."""
    if production is None:
        return verdict(own, None)
    if theirs is None:  # production was held back from fewer days: judge both on those
        later = features.vacancy_dates >= production.split_date
        if not (later[features.pairs.vacancy] & features.pairs.joined).any():
            return False, (f"production (version {production.number}) has seen every held-out "
                           "vacancy, so the two cannot be compared")
        on = held(features.pairs, later & features.held_out, features.vacancy_dates, on.pool,
                  on.seed)
        theirs = judge_version(features.corpus, on, production)
        own = judge_part(own.name, features.corpus, on, version.part(HOLDOUT))
    return verdict(own, theirs)


def register(folder: Path, fit_: Fit, tags: dict[str, str]) -> str:
    """Log the model and register it as a whole: files first, then one version with its tags."""
    package = folder / "jobmatch_pyfunc"
    shutil.copytree(PROJECT / "jobmatch_pyfunc", package,
                    ignore=shutil.ignore_patterns("__pycache__"))
    sys.dont_write_bytecode = True  # MLflow imports the code where it is stored: leave it as it is
    info = mlflow.pyfunc.log_model(
        name="model",
        python_model=str(package / "entrypoint.py"),
        code_paths=[str(package)],
        artifacts={"fitted": str(folder / "fitted")},
        signature=signature(fit_.threshold),
        input_example=([EXAMPLE], {"threshold": fit_.threshold, "reasons": 0, "top_k": 0}),
        pip_requirements=shipped_requirements(),
    )
    past_stopping()  # a version and its aliases belong together
    version = mlflow.register_model(info.model_uri, MODEL, tags=tags)
    return str(version.version)


def shipped_requirements() -> list[str]:
    """What the model needs where it is served, with the versions that it was made with."""
    pinned = (PROJECT / "requirements.txt").read_text(encoding="utf-8").split()
    return [line for line in pinned if line.partition("==")[0] in SHIPPED_REQUIREMENTS]


def train(p: TrainParameters) -> None:
    """The whole of it."""
    keep_freed()
    silence_unconverged()
    features = featurize.features_of(select(FeaturizeParameters, p))
    ingest.log_inputs(select(IngestParameters, p), "train")
    progress = Progress({"weighting terms": 4, "looking for leaks": 4, "fitting": 40,
                         "fitting the baseline": 17, "judging": 23,
                         "logging and registering": 12})
    progress.stage("weighting terms")
    data = data_of(features, HOLDOUT)
    progress.stage("looking for leaks")
    require_no_leak(data, p)
    progress.stage("fitting")
    first = fit(data, p, report=progress.within)
    del data
    progress.stage("fitting the baseline")
    described = fit_baseline(features, p, HOLDOUT)
    worker.forget()
    give_back()
    client = MlflowClient()
    progress.stage("judging", "and fitting on everything")
    with (
        TemporaryDirectory() as temporary, beside(1) as other,
        threadpool_limits(1, "blas"),  # those of BLAS would take the core of the other work
    ):
        # the judging must fit nothing, nor touch the filters of warnings: liblinear has one random
        # generator a process, and scikit-learn's fits change those filters
        whole = other.submit(fit_everything, features, p, first, described)
        current = version_at(client, PRODUCTION)
        production = readable(current)
        work = Path(temporary)
        fitted = work / "fitted"
        write_part(fitted, HOLDOUT, features.terms[HOLDOUT], first)
        write_described_part(fitted, HOLDOUT, described)
        on = held(features.pairs, features.held_out, features.vacancy_dates,
                  np.flatnonzero(features.candidate_filled), p.random_state)
        mine = Version("", fitted, np.datetime64(features.split_date),
                       np.datetime64(features.trained_until), hired_shares(features))
        write_about(mine)
        theirs = judge_version(features.corpus, on, production) if production else None
        judgements = judge_all(features.corpus, on, mine, HOLDOUT, theirs, progress)
        own = judgements[-1]
        plots = begin_drawing(judgements, on, mine, HOLDOUT, features.corpus.tokens)
        if current and production is None:
            passed, reason = False, (f"production (version {current.version}) cannot be read, so "
                                     "the two cannot be compared")
        else:
            passed, reason = gate(features, on, own, theirs, mine, production)
        final, pool, described = whole.result()
        write_part(fitted, SHIPPED, features.terms[SHIPPED], final)
        write_described_part(fitted, SHIPPED, described)
        write_pool(fitted / POOL, pool)
        progress.stage("logging and registering")
        trained = (f"{len(features.pairs):,} people put forward for "
                   f"{len(features.vacancy_codes):,} vacancies up to {features.trained_until}, "
                   f"{int(features.pairs.hired.sum()):,} of them hired.")
        log_judgement(judgements, on, mine, HOLDOUT, plots, trained)
        worker.end()
        _log_figures(first, final, own, on, features)
        number = register(work, final, {
            "gate": "passed" if passed else "failed", "gate_reason": reason,
            "gate_against": production.number if production else "none",
            "split_date": features.split_date, "trained_until": features.trained_until,
        })
    newest = version_at(client, STAGING)
    if newest is None or int(newest.version) < int(number):  # another training may have been faster
        client.set_registered_model_alias(MODEL, STAGING, number)
    serving = version_at(client, PRODUCTION)
    live = serving is None and passed
    if live:
        set_production(client, number, None, by=current_user())
    mlflow.set_tags({"jobmatch.version": number,
                     "jobmatch.gate": "passed" if passed else f"failed: {reason}"})
    progress.finish()
    mlflow.log_metric("peak_memory_mb", _peak_memory_mb())
    print_table(judgements, on, HOLDOUT)
    _say_what_next(number, own, passed, reason, live, str(serving.version) if serving else None)
    _say_if_unconverged(first, final)


def fit_baseline(features: Features, p: TrainParameters, part: str,
                 fixed: DescribedModel | None = None) -> DescribedModel:
    """The described model on one part, after a grid search; with `fixed`, at its C."""
    vectorisers = {name: Vectoriser(*spec) for name, spec in features.described.items()}
    return fit_described(vectorisers, features.corpus, joined_pairs(features, part), p, fixed)


def joined_pairs(features: Features, part: str) -> Pairs:
    """The training pairs with a CV of one part."""
    pairs = features.training_pairs(part)
    return pairs.where(pairs.joined)


def hired_shares(features: Features) -> dict[str, float]:
    """The share of hired people among the pairs with a CV that each part is fitted on."""
    shares = {}
    for part in (HOLDOUT, SHIPPED):
        shares[part] = float(joined_pairs(features, part).hired.mean())
    return shares


def shipped_pool(features: Features, final: Fit) -> Pool:
    """The candidates that ship: all that have a CV."""
    filled = np.flatnonzero(features.candidate_filled)
    return make_pool([features.candidate_codes[i] for i in filled], features.vectors(SHIPPED)[1],
                     filled, final.scorer)


def _log_figures(
    first: Fit, final: Fit, own: Judgement, on: Held, features: Features
) -> None:
    training = features.training_pairs(HOLDOUT)
    metrics = at_threshold(own, on.pairs.hired) | {
        "best_c": first.hire_grid.best_c, "best_c_match": first.match_grid.best_c,
        "cv_mean": first.hire_grid.mean(), "cv_deviation": first.hire_grid.deviation(),
        "cv_mean_match": first.match_grid.mean(),
        "cv_deviation_match": first.match_grid.deviation(),
        "threshold": final.threshold, "threshold_holdout": first.threshold,
        "rows_training": len(training), "rows_training_joined": int(training.joined.sum()),
        "rows_held_out": len(on.pairs),
        "training_hired_share": float(training.hired[training.known].mean()),
        "joined_hired_share": hired_shares(features)[SHIPPED],
        "fits_not_converged": first.unconverged + final.unconverged,
    }
    mlflow.log_metrics({name: float(value) for name, value in metrics.items()})
    mlflow.log_text(json.dumps({
        name: {"c": grid.c_values, "scores_by_fold": grid.scores.tolist()}
        for name, grid in (("match", first.match_grid), ("hire", first.hire_grid))
    }, indent=1), "grid_search.json")


def _say_what_next(
    number: str, own: Judgement, passed: bool, reason: str, live: bool, serving: str | None
) -> None:
    e = own.estimates
    print(f"\nversion {number} of {MODEL} is registered, alias {STAGING}"
          + (f" and {PRODUCTION}" if live else ""))
    print(f"  hired or not: AUC {e.get('hire_auc', '–')}, calibration error {e['hire_ece']}")
    print(f"  ranking:      pool AUC {e['pool_auc']}, recall at 10 {e['pool_recall_at_10']}")
    print(f"  gate {'passed' if passed else 'FAILED'}: {reason}")
    steps = {
        "mlflow server --port 5001": "look at runs, plots and the registry: http://127.0.0.1:5001"}
    if not live:
        force = {} if passed else {"force": "true"}
        now = f" (now it is version {serving})" if serving else ""
        steps[command("promote", version=number, **force)] = f"make it the one that serves{now}"
    if live or serving:
        steps[command("serve")] = f"serve the version that {PRODUCTION} points to"
    print("\nnext:")
    width = max(map(len, steps)) + 3
    for line, what in steps.items():
        print(f"  {line:<{width}}{what}")


def _say_if_unconverged(first: Fit, final: Fit) -> None:
    count = first.unconverged + final.unconverged
    if count:
        print(f"\nnote: {count} fits stopped before they converged; raise "
              "logistic_regression_max_iter")


def _peak_memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    try:
        run_step("train", TrainParameters, train)
    finally:
        worker.end()  # or the process would wait for what the worker still does
