"""The results of one rung of a ladder, and its records as results files and sentences show them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from unfool.core.errors import DataError
from unfool.evaluation.adaptive.rung import Rung
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.records import WHITE_BOX, Records
from unfool.evaluation.reliability.over_draws import RecordsOverDraws, least_over_draws
from unfool.evaluation.results.ladder import LadderRung
from unfool.evaluation.results.rows import Share
from unfool.evaluation.statistics.comparison import PER_IMAGE, WORST_CASE, Comparison, compare_records, worst_case
from unfool.evaluation.statistics.paired import PairedCounts, score_interval

ADAPTIVE = "adaptive"


@dataclass(frozen=True, kw_only=True)
class RungResult:
    """The results of one rung: its records, of a random system `RecordsOverDraws`, and the examples that it crafted
    (None if it crafts none)."""

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
    names = (*PER_IMAGE, "right") if isinstance(records, RecordsOverDraws) else PER_IMAGE
    kept = {name: [getattr(records, name)[places[i]] for i in ids] for name in names if getattr(records, name)}
    return dataclasses.replace(records, **kept, zero_gradient=min(records.zero_gradient, sum(kept["correct"])))


def share(records: Records) -> Share:
    """The accuracy with its interval, rounded as results files are."""
    low, high = records.interval()
    return Share(accuracy=round(records.accuracy, 6), low=round(low, 6), high=round(high, 6), n=records.count)


def percent(records: Records) -> str:
    """The accuracy with its interval in words, in percent."""
    low, high = records.interval()
    words = f"{100 * records.accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {records.count} images"
    return f"{words} ({over_draws_words(records)})" if isinstance(records, RecordsOverDraws) else words


def over_draws_words(records: RecordsOverDraws) -> str:
    """What the accuracy of a random system is the mean of, and its share of images that are right in every draw."""
    return f"on average over {records.draws} draws; in every draw {records.over_draws.every_draw.words}"


def worst_of(records: Sequence[Records]) -> Records:
    """The worst case of several rungs on one system; of a random one, of each image the fewest draws that are right."""
    worst, judged = worst_case(records), [each for each in records if isinstance(each, RecordsOverDraws)]
    if len(judged) < len(records):
        return worst
    return RecordsOverDraws.of(worst, least_over_draws([each.over_draws for each in judged]))


def accuracy_difference(first: Records, second: Records) -> tuple[float, float, float]:
    """The accuracy of the first less that of the second on the same images, with Tango's 95 % score interval.

    Where one of them is random, it is that of the means, and the interval is wide enough for every draw: it begins
    where the first counts what is right in every draw and the second what is right in any, and ends with the reverse.
    """
    least = PairedCounts.of(first.correct, _right_in_any(second).correct)
    most = PairedCounts.of(_right_in_any(first).correct, second.correct)
    of_means = least.difference if least == most else first.accuracy - second.accuracy
    return of_means, score_interval(least)[0], score_interval(most)[1]


def compared(worst: Records, static: Records) -> Comparison:
    """The worst case against the network by itself on the same images.

    Where one of them is random, difference and interval are those of `accuracy_difference`, and the p-value is the
    larger of its two ends, or 1 where these point in different directions.
    """
    first, second = (dataclasses.replace(each, attack=WORST_CASE, settings={}) for each in (worst, static))
    least = compare_records(first, _right_in_any(second))
    most = compare_records(_right_in_any(first), second)
    if least == most:
        return least
    of_means, low, high = accuracy_difference(worst, static)
    agree = least.difference > 0 or most.difference < 0
    return Comparison(
        difference=of_means,
        low=low,
        high=high,
        p_value=max(least.p_value, most.p_value) if agree else 1.0,
        only_first=least.only_first,
        only_second=most.only_second,
        n=worst.count,
        verdict=f"on average over draws {points(of_means, low, high)} on {worst.count} images",
    )


def _right_in_any(records: Records) -> Records:
    """The records with the images as correct that are right in at least one draw."""
    if not isinstance(records, RecordsOverDraws):
        return records
    return dataclasses.replace(records, correct=[count > 0 for count in records.right])


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
        every_draw=records.over_draws.every_draw if isinstance(records, RecordsOverDraws) else None,
    )
