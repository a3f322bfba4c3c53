"""Estimates from `pretext_figures` and `gate_rates`, as their JSON holds them, and the rules beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from unfool.evaluation.estimates.ladders import percent
from unfool.evaluation.intervals import wilson
from unfool.evaluation.pretext.puzzles import BLOCK, OFF_THE_GRID, ON_THE_GRID
from unfool.evaluation.statistics.estimate import Estimate
from unfool.evaluation.statistics.gains import difference, mean_of
from unfool.evaluation.statistics.inference import ShareInference

GRID_LOSS = 0.05
"""Jigsaws that may be solved less often off the grid than on it, as a share, by a task that reads the image."""


def false_triggers(rates: Mapping[str, Any]) -> Estimate:
    """How often clean images trigger a gate, by its `gate_rates`: the rate of its own threshold on fresh ones."""
    more = (
        "A threshold set anew on {calibrated_on} of them triggers on {mean:.2%} of the other {evaluated_on}, the mean "
        "of {resamples} resamples, {kept:.1%} of which are at most the stated rate."
    )
    count = rates["calibrated_on"] + rates["evaluated_on"]
    detail = f"The gate triggers on this share of {count} clean test images"
    triggered = {"accuracy": rates["deployed"], "count": count}
    return replace(_share(triggered), detail=detail, more=more.format(**rates))


def _share(share: Mapping[str, float]) -> Estimate:
    """A share of ``count`` images with its interval."""
    count = int(share["count"])
    right = round(share["accuracy"] * count)
    low, high = wilson(right, count)
    inference = ShareInference(count=right, n=count)
    return Estimate(mean=right / count, low=low, high=high, points=False, inference=inference)


def solved(figures: Mapping[str, Any], task: str, count: int) -> Estimate:
    """How many jigsaws of ``count`` permutations are solved."""
    share = figures["tasks"][task]
    over = f"of {share['count']} test images, {share['accuracy'] * count:.1f} times the chance of one in {count}"
    return replace(_share(share), over=over)


def solved_off_the_grid(figures: Mapping[str, Any], task: str) -> Estimate | None:
    """How many jigsaws are solved where JPEG's blocks lie elsewhere: does the task read the grid, or the image?

    None where that was not measured.
    """
    shares = figures["tasks"]
    if f"{task} {ON_THE_GRID}" not in shares:
        return None
    still, off, on = (shares[f"{task} {words}".strip()] for words in ("", OFF_THE_GRID, ON_THE_GRID))
    return replace(
        difference(_share(off), _share(on)),
        detail=f"{percent(still)} of {still['count']} test images as they are, {percent(off)} of the same moved by "
        f"{BLOCK // 2} pixels each way, and {percent(on)} moved by {BLOCK}, to where blocks of {BLOCK} pixels, which "
        "JPEG codes together at half the size of colour, lie on their grid again. Off the grid minus on it",
        over="of the same images, their errors taken as independent",
    )


def filled(figures: Mapping[str, Any], loss: str = "") -> Estimate:
    """How much of the error of one colour an inpainter leaves."""
    parts = figures["fillings"][loss]
    return replace(
        mean_of([part["ratio"] for part in parts]),
        detail="Squared error of held-out regions over that of their image's mean visible colour",
        over=f"over {len(parts)} parts of the test split",
        more=f"The fillings vary {np.mean([part['variety'] for part in parts]):.2f} times as much as the regions.",
    )


FILLING_WORDS = {
    "variety": "Variety of the fillings (their variance over images as a share of that of what was there)",
    "sharpness": "Sharpness of the fillings (squared differences of neighbouring pixels as a share of those there)",
}


def filled_apart(figures: Mapping[str, Any], loss: str, figure: str) -> Estimate:
    """A figure of `FILLING_WORDS` of the decoder that learnt both losses, minus that of the one that learnt a single
    ``loss`` on the same trunk, part by part of the test split."""
    ours, theirs = ([part[figure] for part in figures["fillings"][name]] for name in ("", loss))
    return replace(
        mean_of([a - b for a, b in zip(ours, theirs, strict=True)]),
        detail=f"{FILLING_WORDS[figure]}: {np.mean(ours):.3f} with both losses, {np.mean(theirs):.3f} with the one "
        "alone; difference",
        over=f"over {len(ours)} parts of the test split, of these two decoders on one frozen trunk (one training seed)",
    )
