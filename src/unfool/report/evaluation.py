"""What the results of one evaluation say beside their rows: whether to believe them, corruptions, single classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unfool.core.errors import DataError
from unfool.evaluation.results.study_result import StudyResult

_HOW = "give the JSON file that unfool evaluate wrote"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A plain table of shares in [0,1]; None where there is none."""

    caption: str
    columns: list[str]
    rows: dict[str, list[float | None]]


@dataclass(frozen=True, kw_only=True)
class Trust:
    """``doubts`` are the reasons not to believe the figures, ``checks`` what was done to find some; one text each."""

    doubts: list[str]
    checks: list[str]


def trust(result: StudyResult) -> Trust | None:
    """Whether an evaluation says that it is to be believed; None if nobody looked. DataError for what is malformed."""
    study = result.details
    doubts = study.get("doubts", [])
    if not isinstance(doubts, list) or not all(isinstance(text, str) for text in doubts):
        raise DataError(f"doubts of the results are no list of texts; {_HOW}")
    checks = [_text(one, "strength") for one in _mapping(study, "strength").values()]
    report = _mapping(study, "reliability")
    if report:
        checked, images = report.get("checked"), report.get("images")
        if not isinstance(checked, list) or not isinstance(images, int):
            raise DataError(f"reliability of the results does not say what was checked; {_HOW}")
        checks.append(f"{len(checked)} checks on {images} images: {', '.join(map(str, checked))}.")
    return Trust(doubts=doubts, checks=checks) if doubts or checks else None


def grids(result: StudyResult) -> list[Grid]:
    """The accuracies under corruptions and by class, as far as they are there; DataError for what is malformed."""
    study = result.details
    return [*_corruptions(_mapping(study, "corruptions")), *_classes(_mapping(study, "classes"))]


def _corruptions(found: Mapping[str, Any]) -> list[Grid]:
    if not found:
        return []
    under = found.get("under")
    if not isinstance(under, list) or not all(isinstance(one, Mapping) for one in under):
        raise DataError(f"corruptions of the results list nothing; {_HOW}")
    shares = {(str(one.get("corruption")), str(one.get("severity"))): _share(one, "corruptions") for one in under}
    severities = list(dict.fromkeys(severity for _, severity in shares))
    rows = {name: [shares.get((name, severity)) for severity in severities] for name, _ in shares}
    mean, low, high = (f"{100 * _share(found, 'corruptions', key):.1f}" for key in ("accuracy", "low", "high"))
    caption = f"Accuracy in % under common corruptions, by severity. Mean corruption accuracy {mean} % [{low}, {high}]"
    return [Grid(caption=f"{caption} on {found.get('n')} images.", columns=severities, rows=rows)]


def _classes(found: Mapping[str, Any]) -> list[Grid]:
    if not found:
        return []
    shares: dict[str, dict[str, float]] = {}
    for attack, classes in found.items():
        if not isinstance(classes, list) or not all(isinstance(one, Mapping) for one in classes):
            raise DataError(f"classes of the results are no lists; {_HOW}")
        for one in classes:
            shares.setdefault(str(one.get("name")), {})[attack] = _share(one, "classes")
    columns = list(found)
    rows = {name: [own.get(attack) for attack in columns] for name, own in shares.items()}
    return [Grid(caption="Accuracy in % by class.", columns=columns, rows=rows)]


def _mapping(study: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = study.get(key) or {}
    if not isinstance(found, Mapping):
        raise DataError(f"{key} of the results is a {type(found).__name__}; {_HOW}")
    return found


def _text(one: Any, what: str) -> str:
    text = one.get("text") if isinstance(one, Mapping) else None
    if not isinstance(text, str):
        raise DataError(f"{what} of the results says nothing; {_HOW}")
    return text


def _share(one: Mapping[str, Any], what: str, key: str = "accuracy") -> float:
    share = one.get(key)
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise DataError(f"{key} in {what} of the results is {share!r}; it must be a share in [0,1]")
    return float(share)
