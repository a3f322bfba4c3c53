"""Estimates with their intervals: differences of accuracy between networks, over training seeds and images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import t as student

from unfool.core.errors import SpecError
from unfool.evaluation.intervals import mean_interval, paired_bootstrap
from unfool.evaluation.records import Records

SAME_NETWORK = "on the same network"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval, and the words for it in the evidence of a claim.

    ``points``: it is a difference of shares, told in percentage points. ``exact``: it was counted, and has no interval.
    ``detail`` says what it is of, ``pair`` what a single pair of networks is called, ``over`` replaces the words for
    the seeds, ``more`` are further sentences. ``interval`` is what ``low`` and ``high`` are the ends of; a rule may
    compare further ``figures``.
    """

    mean: float
    low: float
    high: float
    seeds: int = 1
    points: bool = True
    exact: bool = False
    pair: str = "between these two networks"
    over: str = ""
    detail: str = ""
    more: str = ""
    interval: str = "95 % interval"
    figures: Mapping[str, float] = field(default_factory=dict)

    def amount(self, value: float, sign: str = "") -> str:
        """A value as it is written: 5 points, or a plain number."""
        return f"{100 * value:{sign}.3g} points" if self.points else f"{value:{sign}.3g}"

    @property
    def words(self) -> str:
        """The figure with its interval, and over how many seeds."""
        seeds = f"over {self.seeds} training seeds" if self.seeds > 1 else f"{self.pair} (one training seed)"
        if self.points:
            return f"{100 * self.mean:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}] {self.over or seeds}"
        interval = "" if self.exact else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.mean:.3f}{interval} {self.over}".rstrip()

    @property
    def evidence(self) -> str:
        """All that is said of it."""
        sentence = f"{self.detail}: {self.words}" if self.detail else self.words
        return f"{sentence}. {self.more}".rstrip()


def counted(value: float, detail: str, more: str = "") -> Estimate:
    """A number that was counted."""
    return Estimate(mean=value, low=value, high=value, points=False, exact=True, detail=detail, more=more)


def gain(better: Sequence[Records], base: Sequence[Records]) -> Estimate:
    """Mean accuracy of ``better`` minus that of ``base``, pair by pair (one pair a training seed, on the same images).

    For one pair the interval is the paired bootstrap's over the images. For several it adds two errors in quadrature:
    Student's t over the seeds' differences, and the paired sampling error of the images. Raises SpecError for pairs
    of records of different images.
    """
    if not better or len(better) != len(base):
        raise SpecError(f"{len(better)} and {len(base)} records cannot be paired; give one pair a training seed")
    differences, sampling = [], 0.0
    for ours, theirs in zip(better, base, strict=True):
        if ours.ids != theirs.ids or (ours.data, ours.split) != (theirs.data, theirs.split):
            raise SpecError("records of different images cannot be paired; evaluate both models on the same images")
        paired = [float(a) - float(b) for a, b in zip(ours.correct, theirs.correct, strict=True)]
        mean = sum(paired) / len(paired)
        differences.append(mean)
        sampling += sum((value - mean) ** 2 for value in paired) / len(paired) ** 2
    seeds = len(differences)
    if seeds == 1:
        mean, low, high = paired_bootstrap(better[0].correct, base[0].correct)
        return Estimate(mean=mean, low=low, high=high)
    # The same images serve every seed, so their error does not shrink with the number of seeds.
    error = math.hypot(1.96 * math.sqrt(sampling / seeds), seed_error(differences))
    return bounded(sum(differences) / seeds, error, seeds)


def pair_gain(ours: Records, theirs: Records) -> Estimate:
    """Accuracy of one pair of records, the first minus the second, on the same images."""
    return gain([ours], [theirs])


def corrupted_gain(ours: Sequence[Records], theirs: Sequence[Records]) -> Estimate:
    """Accuracy on corrupted images, the mean over corruptions of each image, with a normal interval over images."""
    gains = np.mean([each.correct for each in ours], axis=0) - np.mean([each.correct for each in theirs], axis=0)
    mean, _, high = mean_interval(gains)
    detail = f"Mean over {len(ours)} corruptions of {len(gains)} images"
    return replace(bounded(mean, high - mean), detail=detail, pair=SAME_NETWORK)


def unpaired(ours: Sequence[Records], theirs: Sequence[Records]) -> Estimate:
    """Mean accuracy of ``ours`` minus that of ``theirs`` on other images, seed by seed.

    The interval adds in quadrature Student's t over the seeds' differences (none for one seed) and the sampling errors
    of the two sets of images, which do not shrink with the number of seeds.
    """
    differences = [a.accuracy - b.accuracy for a, b in zip(ours, theirs, strict=True)]
    seeds = len(differences)
    means = [(sum(records.accuracy for records in side) / seeds, side[0].count) for side in (ours, theirs)]
    sampling = sum(share * (1 - share) / count for share, count in means)
    error = math.hypot(1.96 * math.sqrt(sampling), seed_error(differences))
    return bounded(sum(differences) / seeds, error, seeds)


def bounded(mean: float, error: float, seeds: int = 1) -> Estimate:
    """A difference of shares plus and minus an error, within [-1, 1]."""
    return Estimate(mean=mean, low=max(-1.0, mean - error), high=min(1.0, mean + error), seeds=seeds)


def mean_of(values: Sequence[float]) -> Estimate:
    """The mean of plain numbers, one a seed or part, with Student's interval."""
    mean, error = sum(values) / len(values), seed_error(values)
    return Estimate(mean=mean, low=mean - error, high=mean + error, seeds=len(values), points=False)


def seed_error(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean of one value a seed, by Student's t; 0 for a single seed."""
    seeds = len(values)
    if seeds == 1:
        return 0.0
    centre = sum(values) / seeds
    spread = math.sqrt(sum((value - centre) ** 2 for value in values) / (seeds - 1))
    return float(student.ppf(0.975, seeds - 1)) * spread / math.sqrt(seeds)


def difference(first: Estimate, second: Estimate) -> Estimate:
    """First minus second, their errors taken as independent."""
    centre = first.mean - second.mean
    below = math.hypot(first.mean - first.low, second.high - second.mean)
    above = math.hypot(first.high - first.mean, second.mean - second.low)
    return replace(first, mean=centre, low=centre - below, high=centre + above, seeds=min(first.seeds, second.seeds))
