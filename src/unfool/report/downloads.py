"""The figures of a page as files that the page itself holds: its rows as CSV, its results as JSON."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass

from unfool.evaluation.results.study_result import StudyResult

_COLUMNS = ("model", "seed", "data", "split", "attack", "threat", "protocol", "defense")
_FIGURES = ("accuracy", "low", "high", "loss", "n", "source_value")
_PICTURES = ("gallery", "examples")


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file inside the page: its name, a ``data:`` URI, and its size in words."""

    name: str
    uri: str
    size: str


def downloads(result: StudyResult) -> list[Download]:
    """The rows as CSV where there are any, and the results as JSON without their pictures."""
    stem = "-".join(filter(None, (result.study, result.scale))) or "results"
    values = json.dumps(_without_pictures(result.to_json()), ensure_ascii=False, separators=(",", ":"))
    files = [(f"{stem}.csv", "text/csv", rows_csv(result))] if result.rows else []
    files.append((f"{stem}.json", "application/json", values))
    return [download(name, kind, text.encode("utf-8", "replace")) for name, kind, text in files]


def rows_csv(result: StudyResult) -> str:
    """The rows as CSV, a line each; accuracies are shares, settings are JSON."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*_COLUMNS, "settings", *_FIGURES, "cpu_seconds", "model_images"])
    for row in result.rows:
        names = [getattr(row, name) for name in _COLUMNS]
        settings = json.dumps(dict(row.settings), ensure_ascii=False, default=str)
        figures = [getattr(row, name) for name in _FIGURES]
        writer.writerow([*map(safe, names), safe(settings), *figures, row.cost.cpu_seconds, row.cost.model_images])
    return file.getvalue()


def safe(value: object) -> object:
    """A text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _without_pictures(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_pictures(each) for key, each in value.items() if key not in _PICTURES}
    return [_without_pictures(each) for each in value] if isinstance(value, list) else value


def download(name: str, kind: str, content: bytes) -> Download:
    """A file of some kind, such as text/csv, inside a page."""
    uri = f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
    size = f"{len(content) / 1024:.0f} kB" if len(content) >= 1024 else f"{len(content)} bytes"
    return Download(name=name, uri=uri, size=size)
