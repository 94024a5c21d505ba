"""A judgement as people read it: a table, plots, a model card."""

import json

import mlflow
import numpy as np
from numpy.typing import NDArray

from jobmatch_pyfunc.model import HOLDOUT, SHIPPED
from steps.judging import POOL_VACANCIES, Held, table
from steps.plots import Drawing, Image, draw, strongest
from steps.scores import Judgement
from steps.tokens import Tokens
from steps.versions import Version
from steps.worker import Calls

WORDS = {
    "hire_auc": "a hired person gets a higher probability than one who was not (0.5 is chance)",
    "hire_average_precision": "precision averaged over recall, of those hired",
    "hire_brier": "mean squared error of the probability (lower is better)",
    "hire_ece": "how far probabilities are from the shares really hired (lower is better)",
    "hire_f1": "F1 of `Contratado` at the threshold",
    "hire_within_vacancy_auc": "the same as the first, but among candidates of one vacancy",
    "pool_auc": "a person who was put forward ranks above another one of the pool",
    "pool_recall_at_10": "share of those put forward who are among the first 10 of the pool",
    "pool_recall_at_50": "share of those put forward who are among the first 50 of the pool",
    "pool_mrr": "mean of 1 / rank of those put forward",
    "hired_pool_auc": "a person who was hired ranks above another one of the pool",
    "hired_pool_recall_at_10": "share of those hired who are among the first 10 of the pool",
    "hired_pool_recall_at_50": "share of those hired who are among the first 50 of the pool",
    "hired_pool_mrr": "mean of 1 / rank of those hired",
}

CARD = """# jobmatch: {version}

**What it is for.** It supports a recruiter's decision; it does not take one. `match` says how much
a CV looks like those that recruiters put forward for such a vacancy; `probability` estimates how
often people in this position were hired. Both are read from texts alone. Do not reject anybody by
a score alone, and look at the reasons before relying on one.

**What it learned from.** {trained}

**What it was judged on.** {judged_people:,} people, put forward {judged_pairs:,} times for
{judged_vacancies:,} vacancies requested from {first} to {last}, {hired:,} times with a hire; none
of these vacancies was seen in fitting{which}. {ranked} ranked against a pool of {pool:,} CVs.
Intervals are 95 % bootstrap intervals over vacancies; that of the calibration error leans upwards,
since drawing again adds noise of its own. The row `random` gives everybody the share of hired
people before: what a probability has to beat.

| | | {names} |
|---|---|{rules}|
{rows}

The confusion matrix and the F1 use the threshold {threshold:.3f}, chosen on out-of-fold predictions
of what was fitted; `prediction` of what ships uses {shipped:.3f}, chosen in the same way.

**Known limits.**
- Whether somebody is hired depends mostly on the vacancy: among candidates of one vacancy the
  probability hardly separates (see the within-vacancy row and its interval). Rankings therefore
  follow `match`.
- It repeats what recruiters did. Where their choices were unfair, its scores are too. The
  records' personal fields were left out, and contact details, identity numbers and the full name
  blanked in the texts; other words of a CV can still tell sex, age or origin.
- Undecided applications count as not hired, so probabilities are low rather than high.
- CVs in Portuguese; others are scored by the terms they share.
- With {hired:,} hired people to judge on, small differences between versions mean nothing: read
  the intervals.
"""


def log_metrics(judgement: Judgement) -> None:
    """Each figure as a metric, with the ends of its interval as `_low` and `_high`."""
    metrics = {}
    for name, estimate in judgement.estimates.items():
        metrics[name] = estimate.value
        metrics[f"{name}_low"], metrics[f"{name}_high"] = estimate.low, estimate.high
    mlflow.log_metrics({name: value for name, value in metrics.items() if np.isfinite(value)})


def begin_drawing(
    judgements: list[Judgement], on: Held, version: Version, part: str, tokens: Tokens
) -> Calls[dict[str, Image]]:
    """The plots of the last judgement, of a version's part: the worker, where there is one, draws
    them while this process does something else."""
    fitted = version.part(part)
    written = dict(zip(tokens.terms, tokens.written, strict=True))

    def shown(weights: NDArray[np.float64]) -> dict[str, float]:
        return {" ".join(written.get(word, word) for word in term.split(" ")): weight
                for term, weight in strongest(fitted.terms, weights).items()}

    weights = fitted.scorer.weights
    plots: Calls[dict[str, Image]] = Calls([draw], Drawing(
        on.pairs.hired, judgements, shown(weights.hire_body), shown(weights.hire_cv)))
    plots.begin()
    return plots


def log_judgement(
    judgements: list[Judgement], on: Held, version: Version, part: str,
    plots: Calls[dict[str, Image]], trained: str = "See the run that trained it.",
) -> None:
    """Log table, plots and model card of the last judgement, of a version's part, on the active
    run."""
    log_metrics(judgements[-1])
    figures = table(judgements)
    mlflow.log_text(figures.write_csv(), "judgement.csv")
    mlflow.log_text(
        json.dumps({j.name: {n: [e.value, e.low, e.high] for n, e in j.estimates.items()}
                    for j in judgements}, indent=1),
        "judgement.json")
    mlflow.log_text(model_card(judgements, on, version, part, trained), "model_card.md")
    for name, image in plots.results()[0].items():
        mlflow.log_image(image, artifact_file=f"plots/{name}.png")


def model_card(
    judgements: list[Judgement], on: Held, version: Version, part: str, trained: str
) -> str:
    """What the version is for, what it was judged on, its figures and its limits."""
    rows = [
        f"| {name} | {WORDS[name]} | "
        + " | ".join(str(j.estimates[name]) if name in j.estimates else "–" for j in judgements)
        + " |"
        for name in WORDS
        if any(name in j.estimates for j in judgements)
    ]
    pairs = judgements[-1].estimates.get("hire_within_vacancy_pairs")
    if pairs:
        rows.append(f"\nThe within-vacancy row compares {pairs.value:,.0f} pairs of people.")
    which = (" (the figures are those of the same model fitted without them; what ships is fitted "
             "on everything with the same settings)" if part == HOLDOUT else "")
    vacancies = int(on.vacancy.max()) + 1
    ranked = (f"{POOL_VACANCIES:,} of the vacancies, drawn at random, were"
              if vacancies > POOL_VACANCIES else "Each vacancy was")
    return CARD.format(
        version=version.name, trained=trained, judged_pairs=len(on.pairs),
        judged_people=len(np.unique(on.pairs.person)), ranked=ranked,
        judged_vacancies=vacancies, first=on.first_day, last=on.last_day,
        hired=int(on.pairs.hired.sum()), which=which, pool=len(on.pool),
        names=" | ".join(j.name for j in judgements), rules="|".join(["---"] * len(judgements)),
        rows="\n".join(rows), threshold=version.threshold(part),
        shipped=version.threshold(SHIPPED))


def print_table(judgements: list[Judgement], on: Held, part: str) -> None:
    """The figures for a terminal."""
    print(f"\njudged on {len(on.pairs):,} pairs ({int(on.pairs.hired.sum()):,} hired) of vacancies "
          f"from {on.first_day} to {on.last_day}; pool of {len(on.pool):,} CVs; part: {part}")
    figures = table(judgements)
    width = max(len(name) for name in figures["model"]) + 2
    columns = [name for name in figures.columns if name != "model"]
    print(f"{'':<24}" + "".join(f"{name:>{max(width, 24)}}" for name in figures["model"]))
    for column in columns:
        print(f"{column:<24}" + "".join(f"{v:>{max(width, 24)}}" for v in figures[column]))
