"""What the results of one evaluation say beside their rows: whether to believe them, corruptions, single classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unfool.evaluation.results.details import ClassAccuracy, CorruptionSummary
from unfool.evaluation.results.reliability import NEEDLESS
from unfool.evaluation.results.study_result import StudyResult


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A plain table of shares in [0,1]; None where there is none. ``name`` is what its lines are."""

    caption: str
    name: str
    columns: list[str]
    rows: dict[str, list[float | None]]


@dataclass(frozen=True, kw_only=True)
class Trust:
    """``doubts`` are the reasons not to believe the figures, ``checks`` what was done to find some; one text each."""

    doubts: list[str]
    checks: list[str]


def trust(result: StudyResult) -> Trust | None:
    """Whether an evaluation can be believed; None if nothing was checked."""
    doubts = list(result.doubts or [])
    checks = [f"{row.attack}: {row.remark}." for row in result.rows if row.remark is not None]
    checks += [test.text for test in result.binarization_tests.values()]
    if result.reliability is not None:
        checked = result.reliability.checked
        checks.append(f"{len(checked)} checks on {result.reliability.images} images: {', '.join(checked)}.")
        if result.reliability.needless:
            checks.append(f"{NEEDLESS[0].upper()}{NEEDLESS[1:]}.")
    return Trust(doubts=doubts, checks=checks) if doubts or checks else None


def grids(result: StudyResult) -> list[Grid]:
    """The accuracies under corruptions and by class, as far as there are any."""
    corruptions = [_corruptions(result.corruptions)] if result.corruptions is not None else []
    return [*corruptions, *([_classes(result.classes)] if result.classes else [])]


def _corruptions(summary: CorruptionSummary) -> Grid:
    shares = {(each.corruption, str(each.severity)): each.accuracy for each in summary.under}
    severities = list(dict.fromkeys(severity for _, severity in shares))
    rows = {name: [shares.get((name, severity)) for severity in severities] for name, _ in shares}
    mean, low, high = (f"{100 * share:.1f}" for share in (summary.accuracy, summary.low, summary.high))
    caption = f"Accuracy in % under common corruptions, by severity. Mean corruption accuracy {mean} % [{low}, {high}]"
    return Grid(name="corruption", caption=f"{caption} on {summary.n} images.", columns=severities, rows=rows)


def _classes(classes: Mapping[str, Sequence[ClassAccuracy]]) -> Grid:
    shares: dict[str, dict[str, float]] = {}
    for attack, accuracies in classes.items():
        for each in accuracies:
            shares.setdefault(each.name, {})[attack] = each.accuracy
    columns = list(classes)
    rows = {name: [own.get(attack) for attack in columns] for name, own in shares.items()}
    return Grid(name="class", caption="Accuracy in % by class.", columns=columns, rows=rows)
