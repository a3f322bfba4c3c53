"""What a ladder says: its sentences, with their figures, and the section that a page shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unfool.evaluation.adaptive.rung import all_rungs
from unfool.evaluation.records import Records
from unfool.evaluation.rows import Share
from unfool.evaluation.statistics.intervals import paired_bootstrap

if TYPE_CHECKING:
    from unfool.evaluation.adaptive.ladder_result import LadderResult

HELPS, FAILS, UNDECIDED = "helps", "fails", "undecided"
WORST = "worst"
"""What a section calls the worst case in place of a rung's key."""
_VERDICTS = {
    HELPS: "the defense helps",
    FAILS: "the defense makes the system easier to fool",
    UNDECIDED: "no difference is shown, so the defense is not known to help",
}


def ladder_sentences(ladder: LadderResult) -> list[str]:
    """What (b) says, what the worst case says, and the cost; one sentence each, with their figures."""
    static, replayed, comparison = ladder.static, ladder.replayed, ladder.comparison
    gain = _points(*paired_bootstrap(replayed.correct, static.correct))
    sentences = [
        f"Judged by replayed examples alone (b), the defense keeps {_percent(replayed)} where the network keeps "
        f"{_percent(static)}, {gain}: this says nothing about an attacker who knows the defense.",
    ]
    if comparison is None:
        sentences.append("No adaptive rung was run, so nothing is known about an attacker who knows the defense.")
    else:
        yardstick, *others = ladder.rungs
        sentences.append(
            f"Against the worst of {_keys(others)} on each image, it keeps {_percent(ladder.worst)} where the network "
            f"under ({yardstick}) keeps {_percent(ladder.common[yardstick])}, "
            f"{_points(comparison.difference, comparison.low, comparison.high)} "
            f"(McNemar p = {comparison.p_value:.2g}): {_VERDICTS[ladder.verdict]}."
        )
    bare, defended = (records.cpu_seconds for records in ladder.clean)
    count = ladder.images_per_prediction
    if count == 1:
        sentences.append("One prediction sends 1 image through a network, as without the defense.")
    else:
        times = f", and took {defended / bare:.0f} times the CPU time" if bare > 0 else ""
        sentences.append(f"One prediction sends {count} images through a network, {count} times as many{times}.")
    return sentences


def ladder_section(ladder: LadderResult) -> dict[str, Any]:
    """What a page shows of a ladder beside the rows: verdict, rungs, their costs, and which are missing."""
    common = ladder.common
    rungs = [
        _line(key, one.rung.title, one.protocol, one.records, common[key]) | {"fooled_by": dict(one.records.fooled_by)}
        for key, one in ladder.rungs.items()
    ]
    last = max({rung.key for rung in all_rungs()} | set(ladder.rungs))
    title = f"worst of (b) to ({last}) on each image"
    rungs.append(_line(WORST, title, ladder.worst_protocol, ladder.worst, ladder.worst) | {"fooled_by": {}})
    comparison = ladder.comparison
    figures = ("difference", "low", "high", "p_value")
    return {
        "model": ladder.model,
        "defense": ladder.defense,
        "threat": ladder.worst.threat,
        "verdict": ladder.verdict,
        "sentences": ladder.sentences(),
        "difference": None if comparison is None else {name: round(getattr(comparison, name), 6) for name in figures},
        "images_per_prediction": ladder.images_per_prediction,
        "rungs": rungs,
        "absent": dict(ladder.absent),
        "notes": list(ladder.notes),
        "examples": ladder.examples,
    }


def _line(key: str, title: str, protocol: str, records: Records, common: Records) -> dict[str, Any]:
    return {
        "rung": key,
        "title": title,
        "attack": records.attack,
        "protocol": protocol,
        **share(records).to_json(),
        "common": share(common).to_json(),
        "cpu_seconds": round(records.cpu_seconds, 2),
        "model_images": records.model_images,
        "flat": records.zero_gradient,
    }


def share(records: Records) -> Share:
    """The accuracy of some records with its interval, rounded as results files are."""
    low, high = records.interval()
    return Share(accuracy=round(records.accuracy, 6), low=round(low, 6), high=round(high, 6), n=records.count)


def _percent(records: Records) -> str:
    low, high = records.interval()
    return f"{100 * records.accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {records.count} images"


def _points(difference: float, low: float, high: float) -> str:
    return f"{100 * difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def _keys(keys: Sequence[str]) -> str:
    return ", ".join(f"({key})" for key in keys)
