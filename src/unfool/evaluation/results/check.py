"""Checks of the contents of a results file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from unfool.core.errors import DataError, SpecError
from unfool.core.spec import unknown
from unfool.evaluation.results.charts import CHART_KINDS
from unfool.evaluation.results.claims import VERDICTS
from unfool.evaluation.results.rows import Row, protocol_between, system_names

SCHEMA_VERSION = 1
"""The newest layout of a results file that this version reads."""

PROTOCOLS = ("clean", "white-box", "adaptive", "transfer", "unverified", "score-based")
"""How an accuracy came about, in the order in which tables list them."""

_TEXT = ("model", "data", "split", "attack", "protocol", "defense")
_SHARES = ("accuracy", "low", "high")


def check_results(study: Any, where: str = "the results") -> None:
    """Refuse the contents of a results file that are malformed or contradict themselves; ``where`` names the file.

    Raises SpecError for a newer ``schema_version``, DataError for anything missing or out of range, for two rows that
    differ in their figures alone, and for a protocol that contradicts the hashes: ``white-box`` needs equal ones in
    ``crafted_on`` and ``judged_on``, ``transfer`` different ones.
    """
    if not isinstance(study, Mapping) or "schema_version" not in study:
        raise DataError(f"{where} holds no results (no schema_version); give a results file (.json)")
    version = study["schema_version"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DataError(f"{where} has schema_version {version!r}; it must be a whole number from 1 to {SCHEMA_VERSION}")
    if version > SCHEMA_VERSION:
        raise SpecError(
            f"{where} has schema_version {version}; this version reads up to {SCHEMA_VERSION}; upgrade unfool"
        )
    rows = _list(study, "rows", where)
    for number, row in enumerate(rows):
        _check_row(row, f"row {number} of {where}")
    _check_head(study, where)
    seen: dict[str, int] = {}
    names = system_names([Row.from_json(row) for row in rows])
    for number, row in enumerate(rows):
        identity = [row.get(name) for name in (*_TEXT, "seed", "threat", "settings")]
        key = json.dumps([*identity, names.get(row.get("crafted_on"))], sort_keys=True, default=str)
        if key in seen:
            raise DataError(
                f"rows {seen[key]} and {number} of {where} agree in all but their figures; tell them apart in settings"
            )
        seen[key] = number
    for number, claim in enumerate(_list(study, "claims", where)):
        if not isinstance(claim, Mapping) or not isinstance(claim.get("text"), str):
            raise DataError(f"claim {number} of {where} has no text; a claim needs text, verdict and evidence")
        if claim.get("verdict") not in VERDICTS:
            raise unknown(f"verdict in claim {number} of {where}", str(claim.get("verdict")), VERDICTS)
        if not all(_is_share(claim.get(key, 0)) for key in ("p_value", "corrected_p_value")):
            raise DataError(f"claim {number} of {where} has a p-value that is no number in [0,1]; evaluate it again")
    doubts = study.get("doubts") or []
    if not isinstance(doubts, list) or not all(isinstance(text, str) for text in doubts):
        raise DataError(f"doubts of {where} are no list of texts; give the JSON that unfool wrote")
    ladders = study.get("ladder") or []
    listed = [ladders] if isinstance(ladders, Mapping) else ladders
    if not isinstance(listed, list) or not all(isinstance(ladder, Mapping) for ladder in listed):
        raise DataError(f"ladder of {where} is no object and no list of objects; give the JSON that unfool wrote")
    for number, chart in enumerate(_list(study, "charts", where)):
        _check_chart(chart, f"chart {number} of {where}")


def _check_head(study: Mapping[str, Any], where: str) -> None:
    """Refuse names, descriptions and times of the wrong type."""
    for key in ("study", "scale", "system", "summary"):
        if not isinstance(study.get(key) or "", str):
            raise DataError(f"{where} has {key} {study[key]!r}; it must be a text")
    for key in ("data", "versions"):
        if not isinstance(study.get(key) or {}, Mapping):
            raise DataError(f"{where} has {key} {study[key]!r}; it must be an object")
    seconds = study.get("seconds")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float))):
        raise DataError(f"{where} has seconds {seconds!r}; it must be a number")


def _check_chart(chart: Any, where: str) -> None:
    """Refuse a chart that could not be drawn, or that shows what is no number."""
    if not isinstance(chart, Mapping) or not all(isinstance(chart.get(key), str) for key in ("title", "x", "y")):
        raise DataError(f"{where} lacks title, x or y; they must be texts")
    if chart.get("kind") not in CHART_KINDS:
        raise unknown(f"kind of {where}", str(chart.get("kind")), CHART_KINDS)
    series = _list(chart, "series", where)
    if not series or not all(isinstance(each, Mapping) and isinstance(each.get("name"), str) for each in series):
        raise DataError(f"{where} has no series, or a series without a name; give at least one, with name and points")
    if len({each["name"] for each in series}) < len(series):
        raise DataError(f"{where} has two series of one name; name each differently")
    for each in series:
        points = _list(each, "points", where)
        if not points or not all(_is_point(point, chart["kind"] == "bars") for point in points):
            raise DataError(f"{where} has a point of {each['name']!r} that is not [x, y] or [x, y, low, high]")


def _is_point(point: Any, named: bool) -> bool:
    """A place and a height, perhaps with an interval; the places of bars are words."""
    if not isinstance(point, (list, tuple)) or len(point) not in (2, 4) or (named and not isinstance(point[0], str)):
        return False
    numbers = point[1:] if named else point
    return all(isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)


def _list(study: Mapping[str, Any], key: str, where: str) -> list[Any]:
    values = study.get(key, [])
    if not isinstance(values, list):
        raise DataError(f"{key} of {where} is a {type(values).__name__}; it must be a list")
    return values


def _check_row(row: Any, where: str) -> None:
    if not isinstance(row, Mapping):
        raise DataError(f"{where} is a {type(row).__name__}; it must be an object")
    for name in _TEXT:
        if not isinstance(row.get(name), str):
            raise DataError(f"{where} has {name} {row.get(name)!r}; it must be a text")
    if row["protocol"] not in PROTOCOLS:
        raise unknown(f"protocol in {where}", row["protocol"], PROTOCOLS)
    for name in _SHARES:
        if not _is_share(row.get(name)):
            raise DataError(f"{where} has {name} {row.get(name)!r}; it must be a share in [0,1]")
    if not row["low"] - 1e-9 <= row["accuracy"] <= row["high"] + 1e-9:  # an interval's end is itself rounded
        raise DataError(
            f"{where} has accuracy {row['accuracy']} outside [{row['low']}, {row['high']}]; evaluate it again"
        )
    if row.get("source_value") is not None and not _is_share(row["source_value"]):
        raise DataError(f"{where} has source_value {row['source_value']!r}; it must be a share in [0,1] or null")
    if not isinstance(row.get("n"), int) or row["n"] < 1:
        raise DataError(f"{where} has n {row.get('n')!r}; it must be the number of images, at least 1")
    if not isinstance(row.get("settings", {}), Mapping):
        raise DataError(f"{where} has settings {row['settings']!r}; they must be an object")
    if not isinstance(row.get("cost") or {}, Mapping):
        raise DataError(f"{where} has cost {row['cost']!r}; it must be an object")
    common = row.get("common")
    if common is not None and not (
        isinstance(common, Mapping) and all(_is_share(common.get(key)) for key in _SHARES) and "n" in common
    ):
        raise DataError(f"{where} has common {common!r}; it must be an object with accuracy, low, high and n")
    if (row["attack"] == "none") != (row["protocol"] == "clean"):
        raise DataError(f"{where} has attack {row['attack']!r} under protocol {row['protocol']!r}; only none is clean")
    crafted, judged = row.get("crafted_on"), row.get("judged_on")
    if row["protocol"] in ("white-box", "transfer", "unverified", "score-based"):
        if not isinstance(crafted, str) or not isinstance(judged, str):
            raise DataError(f"{where} does not say what its images were crafted and evaluated on; evaluate it again")
        if row["protocol"] != protocol_between(crafted, judged):
            proven = "the same system" if crafted == judged else "different systems"
            raise DataError(
                f"{where} is called {row['protocol']}, but crafted_on and judged_on name {proven}; evaluate it again"
            )


def _is_share(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0.0 <= value <= 1.0
