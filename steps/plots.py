"""Plots of a judgement, as images for the run.

Matplotlib is imported where something is drawn: where the worker draws, a training does without.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    PrecisionRecallDisplay,
    RocCurveDisplay,
)

from steps.scores import Judgement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (5.2, 4.2)
Image = NDArray[np.uint8]
"""(height × width × 3): red, green and blue of each pixel."""


def _both(hired: NDArray) -> bool:
    """Whether there are both hired and not hired people: without, there is no curve."""
    return bool(0 < hired.sum() < len(hired))


def roc(axes: "Axes", hired: NDArray, judgements: Sequence[Judgement]) -> None:
    for judgement in judgements if _both(hired) else ():
        RocCurveDisplay.from_predictions(hired, judgement.hire, ax=axes, name=judgement.name)
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.set(title="Hired or not: ROC", xlabel="not hired, ranked above",
             ylabel="hired, found")
    if _both(hired):
        axes.legend(fontsize=7, loc="lower right")


def precision_recall(axes: "Axes", hired: NDArray, judgements: Sequence[Judgement]) -> None:
    for judgement in judgements if _both(hired) else ():
        PrecisionRecallDisplay.from_predictions(hired, judgement.hire, ax=axes,
                                                name=judgement.name)
    axes.axhline(hired.mean(), linestyle=":", color="grey")
    axes.set(title="Hired or not: precision and recall", xlabel="recall", ylabel="precision",
             ylim=(-0.02, 1.02))
    if _both(hired):
        axes.legend(fontsize=7, loc="upper right")


def calibration(axes: "Axes", hired: NDArray, probability: NDArray) -> None:
    groups = np.array_split(np.argsort(probability, kind="stable"), 10)
    groups = [g for g in groups if len(g)]
    predicted = [probability[g].mean() for g in groups]
    observed = [hired[g].mean() for g in groups]
    top = max(*predicted, *observed, 0.05) * 1.1
    axes.plot([0, top], [0, top], ":", color="grey")
    axes.plot(predicted, observed, "o-")
    axes.set(title="Calibration (tenths of the pairs)", xlabel="probability given",
             ylabel="share really hired", xlim=(0, top), ylim=(0, top))


def confusion(axes: "Axes", hired: NDArray, probability: NDArray, threshold: float) -> None:
    ConfusionMatrixDisplay.from_predictions(
        hired == 1, probability >= threshold, ax=axes, colorbar=False, labels=[False, True],
        display_labels=["not hired", "hired"])
    axes.set(title=f"Confusion at threshold {threshold:.3f}")


def distribution(axes: "Axes", hired: NDArray, probability: NDArray) -> None:
    bins = np.linspace(0, max(probability.max(), 0.05), 30).tolist()
    for value, name in ((0, "not hired"), (1, "hired")):
        if (hired == value).any():
            axes.hist(probability[hired == value], bins=bins, density=True, alpha=0.6, label=name)
    axes.set(title="Probability by outcome", xlabel="probability", ylabel="density")
    axes.legend()


def strongest(terms: Sequence[str], weights: NDArray[np.float64]) -> dict[str, float]:
    """The terms that are shown, with their weights: the twelve lowest and the twelve highest."""
    order = np.argsort(weights)
    return {terms[i]: float(weights[i]) for i in (*order[:12], *order[-12:])}


def strongest_terms(axes: "Axes", terms: dict[str, float], title: str) -> None:
    axes.barh([term[:28] for term in terms], list(terms.values()),
              color=["tab:red" if weight < 0 else "tab:blue" for weight in terms.values()])
    axes.tick_params(axis="y", labelsize=6)
    axes.set(title=title)


def pool_recall(axes: "Axes", judgements: Sequence[Judgement]) -> None:
    names = ("pool_recall_at_10", "pool_recall_at_50")
    width = 0.8 / len(judgements)
    for number, judgement in enumerate(judgements):
        values = [judgement.estimates[name].value for name in names]
        axes.bar(np.arange(2) + number * width, values, width, label=judgement.name)
    axes.set(title="People put forward, found in the pool", ylabel="share",
             xticks=np.arange(2) + 0.4 - width / 2,
           xticklabels=["in the first 10", "in the first 50"])
    axes.legend(fontsize=7)


@dataclass(frozen=True)
class Drawing:
    """What the plots show."""

    hired: NDArray[np.int64]
    """Of each pair that was judged."""
    judgements: Sequence[Judgement]
    """The last is the model's."""
    terms_of_vacancy: dict[str, float]
    """The `strongest` in a vacancy's body, as they are written, with their weights."""
    terms_of_cv: dict[str, float]
    """The same in a CV."""


def draw(what: Drawing) -> dict[str, Image]:
    """Every plot as an image of its own, and all on one page."""
    import matplotlib

    matplotlib.use("Agg")  # whatever the environment says: nothing is shown
    hired, judgements = what.hired, what.judgements
    own = judgements[-1]
    threshold = own.threshold if own.threshold is not None else 0.5
    images = {name: _image(drawing) for name, drawing in {
        "roc": lambda a: roc(a, hired, judgements),
        "precision_recall": lambda a: precision_recall(a, hired, judgements),
        "calibration": lambda a: calibration(a, hired, own.hire),
        "confusion_matrix": lambda a: confusion(a, hired, own.hire, threshold),
        "score_distribution": lambda a: distribution(a, hired, own.hire),
        "pool_recall": lambda a: pool_recall(a, judgements),
        "strongest_terms_vacancy": lambda a: strongest_terms(
            a, what.terms_of_vacancy, "Terms of the vacancy: hired more (blue), less (red)"),
        "strongest_terms_cv": lambda a: strongest_terms(
            a, what.terms_of_cv, "Terms of the CV: hired more (blue), less (red)"),
    }.items()}
    # put together from the images: drawing each plot again took as long as all of them
    single = list(images.values())
    images["page"] = np.vstack([np.hstack(single[i:i + 2]) for i in range(0, len(single), 2)])
    return images


def _image(drawing: Callable[["Axes"], None]) -> Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    drawing(figure.subplots())
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
