"""Estimates from `pretext_figures` and `gate_rates`, as their JSON holds them, and the rules beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from unfool.evaluation.estimates.ladders import percent
from unfool.evaluation.pretext.puzzles import BLOCK, OFF_THE_GRID, ON_THE_GRID
from unfool.evaluation.statistics.gains import Estimate, counted, mean_of
from unfool.evaluation.statistics.rules import Conditions

LEAST_KEPT = 0.92
"""Share of resamples that must stay within a gate's rate: 95 % is what the Beta law gives for the true one."""

KEEPS_ITS_RATE = Conditions(
    holds=lambda rates: rates["mean"] <= rates["rate"] and rates["kept"] >= LEAST_KEPT,
    fails=lambda rates: True,
    words=f"holds if the mean is at most the stated rate, and so are {LEAST_KEPT:.0%} of the resamples; else it fails",
)
SOLVES_IMAGES = Conditions(
    holds=lambda ends: ends["off"] >= max(ends["still"], ends["on"]),
    fails=lambda ends: ends["off"] < ends["on"],
    words="fails if it solves fewer off the grid than on it (their intervals apart), holds if moving off the grid "
    "changes nothing",
)


def false_triggers(rates: Mapping[str, Any]) -> Estimate:
    """How often clean images trigger a gate, by its `gate_rates`."""
    detail = "Threshold set on {calibrated_on} clean test images, evaluated on the other {evaluated_on}: mean rate"
    more = (
        "That is {mean:.2%} over {resamples} resamples, of which {kept:.1%} are at most the stated one; the gate "
        "itself has {deployed:.2%}."
    )
    return replace(counted(rates["mean"], detail.format(**rates), more.format(**rates)), figures=rates)


def solved(figures: Mapping[str, Any], task: str, count: int) -> Estimate:
    """How many jigsaws of ``count`` permutations are solved."""
    share = figures["tasks"][task]
    over = f"of {share['count']} test images, {share['accuracy'] * count:.1f} times the chance of one in {count}"
    return Estimate(mean=share["accuracy"], low=share["low"], high=share["high"], points=False, over=over)


def solved_off_the_grid(figures: Mapping[str, Any], task: str) -> Estimate | None:
    """How many jigsaws are solved where JPEG's blocks lie elsewhere: does the task read the grid, or the image?

    None where that was not measured.
    """
    shares = figures["tasks"]
    if f"{task} {ON_THE_GRID}" not in shares:
        return None
    still, off, on = (shares[f"{task} {words}".strip()] for words in ("", OFF_THE_GRID, ON_THE_GRID))
    return Estimate(
        mean=off["accuracy"],
        low=off["low"],
        high=off["high"],
        points=False,
        figures={"off": off["high"], "on": on["low"], "still": still["low"]},
        detail=f"{percent(still)} of {still['count']} test images as they are, {percent(off)} of the same moved by "
        f"{BLOCK // 2} pixels each way, and {percent(on)} moved by {BLOCK}, to where blocks of {BLOCK} pixels, which "
        "JPEG codes together at half the size of colour, lie on their grid again. Off the grid",
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
