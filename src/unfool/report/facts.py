"""What a page says of how its results came about: command, data, threat models, machine, versions, time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unfool.evaluation.results.run_details import RunDetails
from unfool.evaluation.results.study_result import StudyResult


def facts(result: StudyResult) -> list[tuple[str, list[str]]]:
    """Names with one or more short texts each, in the order of the page."""
    seeds = sorted({str(row.seed) for row in result.rows if row.seed is not None})
    run = result.run or RunDetails()
    command = run.command
    if not command and result.study and result.scale:
        command = f"unfool study {result.study} --scale {result.scale}"
    listed = [
        ("command", [command] if command else []),
        ("threat models", list(dict.fromkeys(row.threat for row in result.rows if row.threat))),
        ("data", _words(result.data) or _images(result)),
        ("training seeds" if result.study else "seed", [", ".join(seeds)] if seeds else []),
        ("date", _words(run.date)),
        ("device", _words(run.device)),
        ("time", [_duration(result.seconds)] if result.seconds is not None else []),
        ("versions", [" · ".join(_words(result.versions))] if result.versions else []),
    ]
    return [(name, texts) for name, texts in listed if texts]


def _images(result: StudyResult) -> list[str]:
    """The images of an evaluation, whose results name no data by themselves."""
    return list(dict.fromkeys(f"{row.data} {row.split}, {row.n:,} images" for row in result.rows))[:4]


def _words(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, Mapping):
        return [f"{name}{':' if isinstance(item, Mapping) else ''} {_inline(item)}" for name, item in value.items()]
    return [_inline(item) for item in value] if isinstance(value, list) else [_inline(value)]


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{str(name).replace('_', ' ')} {_inline(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_inline(item) for item in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{seconds:.1f} s"
