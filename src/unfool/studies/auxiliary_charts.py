"""The graphs of system D: what was learnt, what reversals gain, and whether an audit foresees it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unfool.evaluation.adaptive.audit_result import DEFENSE, NOISE, VIEWS
from unfool.studies.auxiliary_claims import Learnt
from unfool.studies.auxiliary_foresight import adaptive_gain, auroc, cosine, replay_gain
from unfool.studies.auxiliary_measures import AUDITED, Judged
from unfool.studies.auxiliary_networks import Trained
from unfool.studies.auxiliary_scales import IN_SHORT
from unfool.studies.auxiliary_source import Fillings
from unfool.studies.chart import chart, histogram
from unfool.studies.claims import seed_error
from unfool.training.regimes import CLASSIFIER_FIRST, REGIMES


def charts(
    judged: Sequence[Judged], learnt: Learnt, training: Mapping[Trained, Mapping[str, float]], fillings: Fillings
) -> list[dict[str, Any]]:
    """All of them, as a results file carries them; ``training`` has the heads' last accuracies while they learnt."""
    reversed_ = [one for one in judged if one.reversal is not None and one.ladder is not None and one.audit is not None]
    kinds = dict.fromkeys((one.network.part.data, one.network.base) for one in reversed_)
    found = []
    for data, base in kinds:
        these = [one for one in reversed_ if (one.network.part.data, one.network.base) == (data, base)]
        found += [_gains(these, f"{data}, {base}"), _foresight(these, f"{data}, {base}")]
    if any(one["accuracy"] is not None for told in learnt.values() for one in told.values()):
        found.append(_tasks(learnt, training))
    if fillings:
        found += [_filled(fillings, key) for key in ("ratio", "variety", "sharpness")]
    for one in reversed_:
        if one.network.regime == CLASSIFIER_FIRST and one.reversal is not None and one.audit is not None:
            title = f"What {one.reversal.task} sees, {one.network.part.data}, {one.network.base}, classifier first"
            found.append(histogram(title, f"{one.reversal.task} loss", one.audit))
    return found


def _words(one: Judged) -> str:
    task = one.network.task if one.reversal is None else one.reversal.task
    return f"{task}, {one.network.regime.replace('-', ' ')}"


def _gains(judged: Sequence[Judged], where: str) -> dict[str, Any]:
    names = ("replayed", "augmentation instead", "noise instead", "adaptive")
    series: dict[str, list[list[Any]]] = {name: [] for name in names}
    for one in judged:
        for name, way in (("replayed", DEFENSE), ("augmentation instead", VIEWS), ("noise instead", NOISE)):
            if one.audit is not None:
                told = one.audit["gains"][way]
                series[name].append([_words(one), *(told[key] for key in ("difference", "least", "most"))])
        if one.ladder is not None and (found := one.ladder["ladder"]["difference"]) is not None:
            series["adaptive"].append([_words(one), *(found[key] for key in ("difference", "low", "high"))])
    return chart(
        f"What reversals gain, {where}",
        "task, regime",
        "difference in accuracy",
        "bars",
        {name: points for name, points in series.items() if points},
        f"Replayed: {AUDITED} examples of the bare network, with the reversal minus without. Instead: the same images "
        "when as many passes go into averaging crops and flips, or into noise. Adaptive: the worst case of the ladder "
        "minus the bare network under the yardstick. Whiskers: 95 % intervals.",
    )


def _foresight(judged: Sequence[Judged], where: str) -> dict[str, Any]:
    """Each system's audit beside what came of it."""
    series = {
        "AUROC − 0.5": [[_words(one), round(auroc(one) - 0.5, 6)] for one in judged],
        "cosine": [[_words(one), round(cosine(one), 6)] for one in judged],
        "gain on replayed examples": [[_words(one), round(replay_gain(one), 6)] for one in judged],
        "gain in the worst case": [
            [_words(one), round(adaptive_gain(one), 6)] for one in judged if math.isfinite(adaptive_gain(one))
        ],
    }
    return chart(
        f"Does the audit tell when a task suits? {where}",
        "task, regime",
        "figure of the audit, and gain",
        "bars",
        {name: points for name, points in series.items() if points},
        "AUROC: how well the pretext loss tells attacked images from clean ones; 0 here is blind. Cosine: of the "
        "gradients of pretext loss and cross-entropy at attacked images; 0 leads nowhere.",
    )


def _tasks(learnt: Learnt, training: Mapping[Trained, Mapping[str, float]]) -> dict[str, Any]:
    points, seen = [], []
    for network, told in learnt.items():
        for task, found in told.items():
            if found["accuracy"] is not None:
                name = f"{task}, {_place(network)}"
                points.append([name, *(round(found[key], 6) for key in ("accuracy", "low", "high"))])
                if task in training[network]:
                    seen.append([name, round(training[network][task], 6)])
    text = (
        "Share of images whose question is answered right: of held-out ones with 95 % intervals, and of the last "
        "batches in training, as they were learnt from. Blocks are JPEG's, of 16 pixels: moved by half of one, an "
        "image's grid lies elsewhere; by a whole one, it lies there again."
    )
    series = {"held out": points, "in training": seen}
    return chart("What the tasks learnt", "task, network", "accuracy", "bars", series, text)


def _place(network: Trained) -> str:
    base = [IN_SHORT[network.base]] if network.regime in REGIMES else []
    return ", ".join([network.regime.replace("-", " "), *base, network.part.data])


def _filled(fillings: Fillings, key: str) -> dict[str, Any]:
    titles = {
        "ratio": ("Error of the fillings", "error over the mean colour's"),
        "variety": ("Do the fillings vary with the image?", "variance, share of the regions'"),
        "sharpness": ("Are the fillings sharp?", "steps, share of the regions'"),
    }
    points = []
    for network, told in fillings.items():
        for variant, parts in told.items():
            values = [one[key] for one in parts]
            mean, error = float(np.mean(values)), seed_error(values)
            name = f"{variant or 'both losses'}, {network.regime.replace('-', ' ')}, {IN_SHORT[network.base]}"
            points.append([name, *(round(value, 6) for value in (mean, mean - error, mean + error))])
    title, what = titles[key]
    text = (
        "Centred regions of test images: their squared error, variance over images, or squared steps between "
        "neighbours. 95 % intervals over disjoint parts of the test split."
    )
    return chart(title, "loss, network", what, "bars", {"inpainting": points}, text)
