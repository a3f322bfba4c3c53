"""``--track name:key=value,..`` as trackers."""

from __future__ import annotations

from collections.abc import Iterable

from unfool.core.config import build, parse_settings
from unfool.core.errors import SpecError
from unfool.training.trackers.tracker import Tracker, check_trackers


def read_trackers(texts: Iterable[str]) -> list[Tracker]:
    """The trackers; SpecError for one that is not known, is named twice, or whose package is missing."""
    trackers: list[Tracker] = []
    for text in texts:
        name, values = parse_settings(text)
        if "name" in values:
            raise SpecError(f"tracker {text!r} sets its name; write {name}:run=NAME to name the run")
        trackers.append(build(Tracker, {"name": name, **values}, f"tracker {text!r}"))
    check_trackers(trackers)
    return trackers
