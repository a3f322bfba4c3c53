"""Estimates of differences: of accuracy between networks, over training seeds and images, and of other figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from unfool.core.errors import SpecError
from unfool.evaluation.records import Records
from unfool.evaluation.statistics.estimate import Estimate
from unfool.evaluation.statistics.inference import (
    LeastInference,
    MeanInference,
    PairedInference,
    of_differences,
    spread_of_seeds,
)
from unfool.evaluation.statistics.paired import PairedCounts, score_interval

SAME_NETWORK = "on the same network"


def gain(better: Sequence[Records], base: Sequence[Records]) -> Estimate:
    """Mean accuracy of ``better`` minus that of ``base``, pair by pair (one pair a training seed, on the same images).

    One pair has Tango's score interval over the images, and is tested by McNemar's exact test. For several the interval
    adds two errors in quadrature: Student's t over the seeds' differences, and the sampling error of the images (see
    `MeanInference`). Two seeds have one degree of freedom, which shows hardly anything among several claims: take one,
    and say "these two networks", or three or more. Raises SpecError for pairs of records of different images.
    """
    control = float(np.mean([records.accuracy for records in base])) if base else 0.0
    return replace(of_values(paired_values(better, base)), reach=(-control, 1 - control))


def paired_values(better: Sequence[Records], base: Sequence[Records]) -> list[np.ndarray]:
    """The differences of images, 1, 0 or -1, of each pair of records; SpecError for what cannot be paired."""
    if not better or len(better) != len(base):
        raise SpecError(f"{len(better)} and {len(base)} records cannot be paired; give one pair a training seed")
    for ours, theirs in zip(better, base, strict=True):
        if ours.ids != theirs.ids or (ours.data, ours.split) != (theirs.data, theirs.split):
            raise SpecError("records of different images cannot be paired; evaluate both models on the same images")
    pairs = zip(better, base, strict=True)
    return [np.asarray(ours.correct, dtype=float) - np.asarray(theirs.correct, dtype=float) for ours, theirs in pairs]


def of_values(values: Sequence[np.ndarray]) -> Estimate:
    """The mean of differences of images, one row a training seed."""
    if len(values) == 1 and np.isin(values[0], (-1, 0, 1)).all():
        ahead, behind = int((values[0] > 0).sum()), int((values[0] < 0).sum())
        counts = PairedCounts(only_first=ahead, only_second=behind, n=len(values[0]))
        low, high = score_interval(counts)
        return Estimate(mean=counts.difference, low=low, high=high, inference=PairedInference(counts))
    return of_mean(of_differences(values), len(values))


def of_mean(inference: MeanInference, seeds: int = 1) -> Estimate:
    """A difference of shares, its interval within [-1, 1]."""
    mean, half = inference.mean, inference.half()
    low, high = (min(max(end, -1.0), 1.0) for end in (mean - half, mean + half))
    return Estimate(mean=mean, low=low, high=high, seeds=seeds, inference=inference)


def pair_gain(ours: Records, theirs: Records) -> Estimate:
    """Accuracy of one pair of records, the first minus the second, on the same images."""
    return gain([ours], [theirs])


Sides = tuple[Mapping[int, Records], Mapping[int, Records]]
"""The records that are compared, by training seed."""


def gain_beyond(first: Sides, second: Sides) -> Estimate:
    """One gain minus another one: image by image where both are of the same images
    and seeds, so that what they share cancels; else their errors are taken as independent."""
    (better, base), (other, other_base) = first, second
    images = {tuple(records.ids) for side in (*first, *second) for records in side.values()}
    if set(better) != set(other) or len(images) > 1:
        gains = [gain([*ours.values()], [*theirs.values()]) for ours, theirs in (first, second)]
        return difference(*gains)
    pairs = ([*better.values()], [*base.values()]), ([other[s] for s in better], [other_base[s] for s in better])
    ours, theirs = (paired_values(*pair) for pair in pairs)
    return of_values([a - b for a, b in zip(ours, theirs, strict=True)])


def corrupted_gain(ours: Sequence[Records], theirs: Sequence[Records]) -> Estimate:
    """Accuracy on corrupted images, the mean over corruptions of each image, with its interval over images."""
    values = np.mean(paired_values(ours, theirs), axis=0)
    detail = f"Mean over {len(ours)} corruptions of {len(values)} images"
    return replace(of_values([values]), detail=detail, pair=SAME_NETWORK)


def unpaired(ours: Sequence[Records], theirs: Sequence[Records]) -> Estimate:
    """Mean accuracy of ``ours`` minus that of ``theirs`` on other images, seed by seed.

    The interval adds in quadrature Student's t over the seeds' differences (none for one seed) and the sampling errors
    of the two sets of images, which do not shrink with the number of seeds; one image more is counted as right in each
    set and one as wrong (Agresti & Caffo, The American Statistician 2000).
    """
    differences = [a.accuracy - b.accuracy for a, b in zip(ours, theirs, strict=True)]
    errors = spread_of_seeds(differences)
    for side in (ours, theirs):
        count = side[0].count + 2
        share = (sum(records.accuracy for records in side) / len(side) * side[0].count + 1) / count
        errors += ((share * (1 - share) / count, np.inf),)
    return of_mean(MeanInference(mean=sum(differences) / len(differences), errors=errors), len(differences))


def mean_of(values: Sequence[float]) -> Estimate:
    """The mean of plain numbers, one a seed or part, with Student's interval.

    Raises SpecError for fewer than two, whose error is not known: an interval without a width would be the surest of
    all.
    """
    if len(values) < 2:
        raise SpecError(f"{len(values)} values have a mean without an interval; give two or more")
    inference = MeanInference(mean=sum(values) / len(values), errors=spread_of_seeds(values))
    mean, half = inference.mean, inference.half()
    return Estimate(mean=mean, low=mean - half, high=mean + half, seeds=len(values), points=False, inference=inference)


def difference(first: Estimate, second: Estimate) -> Estimate:
    """First minus second, their errors taken as independent."""
    inference = MeanInference(mean=first.mean - second.mean, errors=(*_errors(first), *_errors(second)))
    return replace(of_mean(inference, min(first.seeds, second.seeds)), pair=first.pair, over=first.over)


def least_of(parts: Sequence[Estimate]) -> Estimate:
    """The least of several figures, for a claim that all of them are above a value: it holds where each is shown to be
    above, and fails where one is shown to be below."""
    least = min(parts, key=lambda part: part.mean)
    inference = LeastInference(tuple((part.mean, part) for part in parts))
    return replace(
        least, low=min(part.low for part in parts), high=min(part.high for part in parts), inference=inference
    )


def _errors(estimate: Estimate) -> tuple[tuple[float, float], ...]:
    """The independent errors of an estimate, or one normal error that its interval tells of."""
    if isinstance(estimate.inference, MeanInference):
        return estimate.inference.errors_at(estimate.mean)
    half = max(estimate.high - estimate.mean, estimate.mean - estimate.low)
    return (((half / 1.96) ** 2, np.inf),)
