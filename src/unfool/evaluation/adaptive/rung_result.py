"""The results of one rung of a ladder, and its records as results files and sentences show them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from unfool.core.errors import DataError
from unfool.evaluation.adaptive.rung import Rung
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.records import WHITE_BOX, Records
from unfool.evaluation.results.ladder import LadderRung
from unfool.evaluation.results.rows import Share
from unfool.evaluation.statistics.comparison import PER_IMAGE

ADAPTIVE = "adaptive"


@dataclass(frozen=True, kw_only=True)
class RungResult:
    """The results of one rung: its records, and the examples that it crafted (None if it crafts none)."""

    rung: Rung
    records: Records
    examples: AdversarialSet | None = None

    @property
    def protocol(self) -> str:
        """``adaptive`` if the attacker knew the defense and crafted on it, else the protocol of the records."""
        return adaptive_protocol(self.records) if self.rung.adaptive else self.records.protocol


def adaptive_protocol(records: Records) -> str:
    """Adaptive, unless the examples were crafted on another system."""
    return ADAPTIVE if records.protocol == WHITE_BOX else records.protocol


def restricted(records: Records, ids: Sequence[int]) -> Records:
    """The records of some of their images, in the order of ``ids``; what they cost is the cost of all of them.

    Raises DataError for an id that they do not have.
    """
    if list(ids) == records.ids:
        return records
    places = {number: place for place, number in enumerate(records.ids)}
    missing = [number for number in ids if number not in places]
    if missing:
        raise DataError(f"records under {records.attack} lack image {missing[0]}; evaluate the same images")
    kept = {name: [getattr(records, name)[places[i]] for i in ids] for name in PER_IMAGE if getattr(records, name)}
    return dataclasses.replace(records, **kept, zero_gradient=min(records.zero_gradient, sum(kept["correct"])))


def share(records: Records) -> Share:
    """The accuracy with its interval, rounded as results files are."""
    low, high = records.interval()
    return Share(accuracy=round(records.accuracy, 6), low=round(low, 6), high=round(high, 6), n=records.count)


def percent(records: Records) -> str:
    """The accuracy with its interval in words, in percent."""
    low, high = records.interval()
    return f"{100 * records.accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {records.count} images"


def points(difference: float, low: float, high: float) -> str:
    """A difference of two shares with its interval in words, in percentage points."""
    return f"{100 * difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def section_line(key: str, title: str, protocol: str, records: Records, common: Records) -> LadderRung:
    """A rung as a page shows it; ``common`` are its records on the images of all rungs."""
    return LadderRung(
        key=key,
        title=title,
        attack=records.attack,
        protocol=protocol,
        own=share(records),
        common=share(common),
        cpu_seconds=round(records.cpu_seconds, 2),
        model_images=records.model_images,
        fooled_by=dict(records.fooled_by),
        zero_gradient=records.zero_gradient,
    )
