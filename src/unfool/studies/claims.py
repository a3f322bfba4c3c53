"""From records of two models to a verdict on what a source claimed about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import t as student

from unfool.core.errors import SpecError
from unfool.evaluation import Records
from unfool.evaluation.intervals import paired_bootstrap

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
ABOVE_ZERO = "Rule: holds if the whole 95 % interval is above 0, fails if none of it is."
"""The rule of `above`, told with a claim."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A difference of accuracies (shares) with a 95 % interval, over ``seeds`` pairs of trained networks."""

    mean: float
    low: float
    high: float
    seeds: int

    def words(self, pair: str = "between these two networks") -> str:
        """The gain in percentage points; a single ``pair`` is called that."""
        over = f"over {self.seeds} training seeds" if self.seeds > 1 else f"{pair} (one training seed)"
        return f"{100 * self.mean:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}] {over}"

    def above(self, bound: float = 0.0) -> str:
        """Its verdict by `ABOVE_ZERO`, or as that of another bound."""
        return above(self.low, self.high, bound)


def gain(better: Sequence[Records], base: Sequence[Records]) -> Gain:
    """Mean accuracy of ``better`` minus that of ``base``, pair by pair (one pair a training seed, on the same images).

    For one pair the interval is the paired bootstrap's over the images. For several it adds two errors in quadrature:
    Student's t over the seeds' differences, and the paired sampling error of the images. Raises SpecError for pairs
    judged on different images.
    """
    if not better or len(better) != len(base):
        raise SpecError(f"{len(better)} and {len(base)} records cannot be paired; give one pair a training seed")
    differences, sampling = [], 0.0
    for ours, theirs in zip(better, base, strict=True):
        if ours.ids != theirs.ids or (ours.data, ours.split) != (theirs.data, theirs.split):
            raise SpecError("records of different images cannot be paired; judge both models on the same images")
        paired = [float(a) - float(b) for a, b in zip(ours.correct, theirs.correct, strict=True)]
        mean = sum(paired) / len(paired)
        differences.append(mean)
        sampling += sum((value - mean) ** 2 for value in paired) / len(paired) ** 2
    seeds = len(differences)
    if seeds == 1:
        mean, low, high = paired_bootstrap(better[0].correct, base[0].correct)
        return Gain(mean=mean, low=low, high=high, seeds=1)
    centre = sum(differences) / seeds
    # The same images serve every seed, so their error does not shrink with the number of seeds.
    error = math.hypot(1.96 * math.sqrt(sampling / seeds), seed_error(differences))
    return Gain(mean=centre, low=max(-1.0, centre - error), high=min(1.0, centre + error), seeds=seeds)


def seed_error(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean of one value a seed, by Student's t; 0 for a single seed."""
    seeds = len(values)
    if seeds == 1:
        return 0.0
    centre = sum(values) / seeds
    spread = math.sqrt(sum((value - centre) ** 2 for value in values) / (seeds - 1))
    return float(student.ppf(0.975, seeds - 1)) * spread / math.sqrt(seeds)


def difference(first: Gain, second: Gain) -> Gain:
    """First gain minus second, their errors taken as independent."""
    centre = first.mean - second.mean
    below = math.hypot(first.mean - first.low, second.high - second.mean)
    above = math.hypot(first.high - first.mean, second.mean - second.low)
    return Gain(mean=centre, low=centre - below, high=centre + above, seeds=min(first.seeds, second.seeds))


def above(low: float, high: float, bound: float = 0.0) -> str:
    """holds if the whole interval is above ``bound``, fails if none of it is, undecided between."""
    return HOLDS if low > bound else FAILS if high <= bound else UNDECIDED


def at_least(found: Gain, bound: float) -> str:
    """holds if the whole interval reaches ``bound``, fails if none of it does, undecided between."""
    return HOLDS if found.low >= bound else FAILS if found.high < bound else UNDECIDED


def claim(
    text: str, found: Gain, claimed: float, detail: str, pair: str = "between these two networks"
) -> dict[str, Any]:
    """A claim of a gain of about ``claimed``: it holds where at least half of that is there; the rule is told."""
    verdict = at_least(found, claimed / 2)
    share = f"half of the claimed {100 * claimed:.3g} points"
    rule = f"Rule: holds if the whole 95 % interval reaches {share}, fails if none of it does."
    return {"text": text, "verdict": verdict, "evidence": f"{detail}: {found.words(pair)}. {rule}"}
