"""Several records at once: the worst case over attacks, two models compared, accuracy by class."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unfool.core.errors import DataError
from unfool.evaluation.intervals import wilson
from unfool.evaluation.records import CLEAN, OWN, REMARK, TRANSFER, Records, shared_kind
from unfool.evaluation.results.details import ClassAccuracy
from unfool.evaluation.statistics.paired import PairedCounts, p_value, score_interval

WORST_CASE = "worst-case"
PER_IMAGE = ("ids", "correct", "losses", "distances", "labels")
"""What records hold one of per image."""
_SIGNIFICANT = 0.05


def _agree(records: Sequence[Records], names: Iterable[str], advice: str) -> None:
    """Refuse records that differ in one of the named fields; raises DataError that says in which, and how."""
    for name in names:
        values = [getattr(each, name) for each in records]
        # A record that was read from a file has lists where others have tuples.
        plain = [json.dumps(value, sort_keys=True, default=dict) for value in values]
        other = next((place for place in range(len(plain)) if plain[place] != plain[0]), None)
        if other is None:
            continue
        difference = f"{values[0]!r} and {values[other]!r}"
        if name in PER_IMAGE:
            difference = f"{len(values[0])} and {len(values[other])} images, not the same in the same order"
        raise DataError(f"records differ in {name} ({difference}); {advice}")


def _labels(records: Sequence[Records]) -> list[int]:
    """The labels that the records share; records written before there were any have none."""
    known = [each for each in records if each.labels]
    _agree(known, ["labels"], "evaluate all on the same label column")
    return known[0].labels if known else []


def concatenate(records: Sequence[Records]) -> Records:
    """The records of one system under one attack, on images in several parts, as one; costs are summed.

    Raises DataError for no records, for parts that differ in anything but their images, or that share an image.
    """
    if not records:
        raise DataError("there are no records to concatenate; give at least one")
    same = ("attack", "threat", "data", "split", "seed", "crafted_on", "judged_on", "settings")
    _agree(records, same, "concatenate parts of one evaluation only")
    joined = {name: [value for each in records for value in getattr(each, name)] for name in PER_IMAGE}
    if len(set(joined["ids"])) < len(joined["ids"]):
        raise DataError("records to concatenate share images; give every image once")
    return dataclasses.replace(
        _plain(records[0]),
        **joined,
        cpu_seconds=sum(each.cpu_seconds for each in records),
        model_images=sum(each.model_images for each in records),
        zero_gradient=sum(each.zero_gradient for each in records),
        fooled_by=total([each.fooled_by for each in records]),
    )


def _plain(records: Records) -> Records:
    """Records whose accuracy is that of ``correct``: of a random model the images that are right in every draw."""
    return Records(**{each.name: getattr(records, each.name) for each in dataclasses.fields(Records)})


def total(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Counts by name, added up."""
    names = dict.fromkeys(name for each in counts for name in each)
    return {name: sum(each.get(name, 0) for each in counts) for name in names}


def worst_case(records: Sequence[Records], *, attack: str = WORST_CASE, right: Sequence[bool] | None = None) -> Records:
    """The worst of several attacks on one system, image by image: correct only if correct under all of them.

    The loss is the highest. The distance is the smallest at which an attack succeeded, or that of the highest loss if
    none did. Costs are summed. An image counts as fooled by the first attack that fooled it; ``right`` says of each
    image whether it is correct without an attack, and of those that are not none counts (without it all are taken to
    be). An attacker who sees the system may also use examples from elsewhere, so the worst case is white-box if one of
    the attacks is; if none is, all examples must come from the same system. The result calls itself ``attack``. Raises
    DataError for clean records, which name no system, and for records that differ in system, threat model or images.
    """
    if not records:
        raise DataError("a worst case needs records; give those of at least one attack")
    if any(each.protocol == CLEAN for each in records):
        raise DataError("clean records name no system; give records under attacks to a worst case")
    _agree(records, ("judged_on", "threat", "data", "split", "ids"), "a worst case is of one system on the same images")
    white_box = any(each.protocol in OWN for each in records)
    if not white_box:
        _agree(records, ["crafted_on"], "a worst case of transfer has one source; give sets of one source")
    correct = np.array([each.correct for each in records])
    losses = np.array([each.losses for each in records])
    distances = np.array([each.distances for each in records])
    stands = correct.all(0)
    nearest = np.where(correct, np.inf, distances).min(0)
    fell = ~stands if right is None else ~stands & np.array(right)
    first = np.bincount((~correct).argmax(0)[fell], minlength=len(records)).tolist()
    of_highest = np.take_along_axis(distances, losses.argmax(0)[None], 0)[0]
    return dataclasses.replace(
        _plain(records[0]),
        attack=attack,
        correct=stands.tolist(),
        losses=losses.max(0).tolist(),
        distances=np.where(stands, of_highest, nearest).tolist(),
        labels=_labels(records),
        crafted_on=records[0].judged_on if white_box else records[0].crafted_on,
        cpu_seconds=sum(each.cpu_seconds for each in records),
        model_images=sum(each.model_images for each in records),
        settings={
            "attacks": [
                {"attack": each.attack, "protocol": each.protocol, "seed": each.seed, "settings": dict(each.settings)}
                for each in records
            ]
        },
        # Which images had a zero gradient is not recorded; no more can have than still stand.
        zero_gradient=min(max(each.zero_gradient for each in records), int(stands.sum())),
        fooled_by=total([{each.attack: count} for each, count in zip(records, first, strict=True)]),
        # Examples from elsewhere say nothing about this system's gradients.
        follows_gradients=shared_kind(each.follows_gradients if each.protocol in OWN else None for each in records),
    )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of two models on the same ``n`` images.

    Their accuracies differ by ``difference``, first minus second, with a 95 % interval from ``low`` to ``high``.
    ``only_first`` and ``only_second`` count the images that one model alone classifies correctly; ``p_value`` is
    McNemar's; ``verdict`` says it in one sentence.
    """

    difference: float
    low: float
    high: float
    p_value: float
    only_first: int
    only_second: int
    n: int
    verdict: str

    def __repr__(self) -> str:
        return f"Comparison({self.verdict})"


def compare_records(first: Records, second: Records) -> Comparison:
    """Is one of two models more accurate than the other, on the same images under the same attack?

    A difference counts as shown if McNemar's p-value is below 0.05 and Tango's 95 % score interval leaves out 0.
    Raises DataError for records of different images, attacks, settings or threat models, for white-box records beside
    transfer records, and for transfer records from different systems: their difference says nothing. What an attack
    remarks on its run is no setting.
    """
    names = ("data", "split", "ids", "attack", "settings", "threat")
    plain = [dataclasses.replace(each, settings=_without_remarks(each.settings)) for each in (first, second)]
    _agree(plain, names, "compare two models on the same images under the same attack")
    _labels((first, second))
    if (first.protocol == TRANSFER) != (second.protocol == TRANSFER):
        raise DataError(
            f"records differ in protocol ({first.protocol} and {second.protocol}); attack each model itself, or "
            "evaluate both on examples crafted elsewhere"
        )
    if first.protocol == TRANSFER:
        _agree((first, second), ["crafted_on"], "evaluate both on examples that were crafted on the same system")
    counts = PairedCounts.of(first.correct, second.correct)
    low, high = score_interval(counts)
    chance = p_value(counts)
    figures = (
        f"{100 * counts.difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}] on {first.count} images, "
        f"McNemar p = {chance:.2g}"
    )
    if chance < _SIGNIFICANT and low > 0:
        verdict = f"the first model is more accurate: {figures}"
    elif chance < _SIGNIFICANT and high < 0:
        verdict = f"the second model is more accurate: {figures}"
    else:
        verdict = f"no difference is shown: {figures}"
    return Comparison(
        difference=counts.difference,
        low=low,
        high=high,
        p_value=chance,
        only_first=counts.only_first,
        only_second=counts.only_second,
        n=first.count,
        verdict=verdict,
    )


def _without_remarks(settings: Any) -> Any:
    """Settings of an attack, or of several in a worst case, without what an attack remarks on its run."""
    if isinstance(settings, Mapping):
        return {key: _without_remarks(value) for key, value in settings.items() if key != REMARK}
    return [_without_remarks(each) for each in settings] if isinstance(settings, (list, tuple)) else settings


def by_class(records: Records, names: Sequence[str]) -> list[ClassAccuracy]:
    """Accuracy class by class, in the order of ``names``; classes without an image are left out.

    Raises DataError for records without labels or with labels beyond the names.
    """
    if not records.labels:
        raise DataError("the records hold no labels, so no classes; evaluate again with this version")
    labels = np.array(records.labels)
    if labels.min() < 0 or labels.max() >= len(names):
        raise DataError(f"labels {labels.min()} to {labels.max()} do not fit {len(names)} class names; give one each")
    total = np.bincount(labels, minlength=len(names))
    correct = np.bincount(labels, weights=records.correct, minlength=len(names)).astype(int)
    accuracies: list[ClassAccuracy] = []
    for name, right, count in zip(names, correct.tolist(), total.tolist(), strict=True):
        if count:
            low, high = wilson(right, count)
            accuracies.append(ClassAccuracy(name=name, accuracy=right / count, low=low, high=high, n=count))
    return accuracies
