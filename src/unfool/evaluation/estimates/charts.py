"""Charts of several systems side by side, from their audits, ladders and `pretext_figures` as JSON holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unfool.evaluation.adaptive.audit_result import DEFENSE, NOISE, VIEWS
from unfool.evaluation.estimates.audits import audit_figures
from unfool.evaluation.results.charts import Chart, Point
from unfool.evaluation.statistics.chart_kinds import bars
from unfool.evaluation.statistics.gains import mean_of

_WAYS = {"replayed": DEFENSE, "augmentation instead": VIEWS, "noise instead": NOISE}
_LOOKS = {
    "AUROC − 0.5": "auroc",
    "cosine": "cosine",
    "gain on replayed examples": "replayed",
    "gain in the worst case": "adaptive",
}


def gains_chart(title: str, x: str, audits: Mapping[str, Any], ladders: Mapping[str, Any], attack: str) -> Chart:
    """What each reversal gains on replayed examples of an ``attack``, what its controls do, and the worst case."""
    series = {
        name: [spread(words, audit["gains"][way], "difference", "least", "most") for words, audit in audits.items()]
        for name, way in _WAYS.items()
    }
    changes = {words: ladder["difference"] for words, ladder in ladders.items() if ladder["difference"]}
    worst = [spread(words, change, "difference", "low", "high") for words, change in changes.items()]
    return bars(
        title,
        x,
        "difference in accuracy",
        series | ({"adaptive": worst} if worst else {}),
        f"Replayed: {attack} examples of the bare network, with the reversal minus without. Instead: the same images "
        "when as many passes go into averaging crops and flips, or into noise. Adaptive: the worst case of the ladder "
        "minus the bare network under the yardstick. Whiskers: 95 % intervals.",
    )


def audit_and_gain_chart(title: str, x: str, audits: Mapping[str, Any], ladders: Mapping[str, Any]) -> Chart:
    """The figures of each audit, beside what the reversal gains."""
    figures = {words: audit_figures(audit, ladders[words]) for words, audit in audits.items()}
    series = {
        name: [[words, round(each[key] - (key == "auroc") / 2, 6)] for words, each in figures.items() if key in each]
        for name, key in _LOOKS.items()
    }
    return bars(
        title,
        x,
        "figure of the audit, and gain",
        {name: points for name, points in series.items() if points},
        "AUROC: how well the pretext loss tells attacked images from clean ones; 0 here is blind. Cosine: of the "
        "gradients of pretext loss and cross-entropy at attacked images; 0 leads nowhere.",
    )


def tasks_chart(networks: Iterable[tuple[str, Mapping[str, Any], Mapping[str, float | None]]]) -> Chart | None:
    """What share of held-out images networks do their tasks on, and of their last batches in training.

    Each network gives its name, its figures, and its training accuracy by task: one far above the held-out share tells
    of features in training that eval mode has not. None where no task has an accuracy.
    """
    series: dict[str, list[Point]] = {"held out": [], "in training": []}
    for name, figures, training in networks:
        for task, share in figures["tasks"].items():
            if share["accuracy"] is not None:
                series["held out"].append(spread(f"{task}, {name}", share, "accuracy", "low", "high"))
                last = training.get(task)
                series["in training"] += [] if last is None else [[f"{task}, {name}", round(last, 6)]]
    text = (
        "Share of images whose question is answered right: of held-out ones with 95 % intervals, and of the last "
        "batches in training, as they were learnt from. Blocks are JPEG's, of 16 pixels: moved by half of one, an "
        "image's grid lies elsewhere; by a whole one, it lies there again."
    )
    return bars("What the tasks learnt", "task, network", "accuracy", series, text) if series["held out"] else None


def fillings_charts(networks: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Chart]:
    """Error, variety and sharpness of the fillings of networks, given by name and figures, and of each loss; none
    without any."""
    decoders = [
        (f"{loss or 'both losses'}, {name}", parts)
        for name, figures in networks
        for loss, parts in figures["fillings"].items()
    ]
    text = (
        "Centred regions of test images: their squared error, variance over images, or squared steps between "
        "neighbours. 95 % intervals over disjoint parts of the test split."
    )
    kinds = (
        ("ratio", "Error of the fillings", "error over the mean colour's"),
        ("variety", "Do the fillings vary with the image?", "variance, share of the regions'"),
        ("sharpness", "Are the fillings sharp?", "steps, share of the regions'"),
    )
    charts = []
    for figure, title, what in kinds if decoders else ():
        means = [(words, vars(mean_of([part[figure] for part in parts]))) for words, parts in decoders]
        points = [spread(words, mean, "mean", "low", "high") for words, mean in means]
        charts.append(bars(title, "loss, network", what, {"inpainting": points}, text))
    return charts


def spread(words: str, figures: Mapping[str, float], mean: str, low: str, high: str) -> Point:
    """A figure with the ends of its interval, each under its key, at a place of a chart."""
    return [words, *(round(figures[key], 6) for key in (mean, low, high))]
