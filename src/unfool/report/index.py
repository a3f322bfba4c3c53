"""An index over a folder of results: one line for each, with its first sentence, its accuracies and its verdicts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from unfool.core.borders.json_text import read_json
from unfool.core.borders.shapes import of_known_form
from unfool.core.errors import DataError, UnfoolError
from unfool.core.files import write_text
from unfool.evaluation.records import OWN
from unfool.evaluation.results.claims import VERDICTS, tally
from unfool.evaluation.results.study_result import StudyResult
from unfool.report.headline import headline
from unfool.report.page import Page, write_page
from unfool.report.rendering import rendered
from unfool.report.tables import study_tables

_LARGEST = 64 * 1024 * 1024
"""Bytes of a file that is looked at."""

MOST_ENTRIES = 10_000
"""Files and folders that are looked at: a folder of results holds fewer, and a whole disk is asked for by mistake."""


@dataclass(frozen=True, kw_only=True)
class IndexLine:
    """One result: its page relative to the index, its names, first sentence, accuracies (shares) and verdicts."""

    link: str
    title: str
    detail: str
    sentence: str
    clean: float | None
    worst: float | None
    tally: list[tuple[str, int]]
    date: str


def results_files(folder: Path) -> Iterator[Path]:
    """The results files below a folder, in the order of their names.

    A run's or a study's folder is looked at in its ``results`` alone, and hidden folders are not. Raises DataError for
    a folder that holds more than `MOST_ENTRIES`.
    """
    entries = 0
    for here, folders, names in os.walk(folder):
        path = Path(here)
        entries += len(folders) + len(names)
        if entries > MOST_ENTRIES:
            raise DataError(
                f"{folder} holds more than {MOST_ENTRIES:,} files and folders; give the folder of the results"
            )
        folders[:] = [name for name in folders if not name.startswith(".")]
        if {"study.json", "config.yaml"} & set(names):
            folders[:] = [name for name in folders if name == "results"]
            continue
        folders.sort()
        yield from (path / name for name in sorted(names) if name.endswith(".json") and _is_results(path / name))


def write_index(folder: Path, page_of: Callable[[StudyResult], Page], out: Path | None = None) -> Path:
    """Write the page of every result below a folder beside its file, and an index of them; return the index' path.

    The page of a study's folder is its ``report.html`` where there is one. A file that cannot be read becomes a line
    at the end of the index. Nothing is written before all are known. Raises DataError for a folder without results or
    with too much beside them, OutputError.
    """
    target = out or folder / "index.html"
    lines: list[IndexLine] = []
    unread: list[str] = []
    for file in list(results_files(folder)):
        try:
            with of_known_form(file, "give the JSON file that unfool wrote"):
                page = page_of(StudyResult.load(file))
                written = _own_report(file) or write_page(file.with_suffix(".html"), page)
                lines.append(_line(os.path.relpath(written, target.parent), os.path.relpath(file, folder), page))
        except UnfoolError as error:
            unread.append(f"Not shown: {error}")
    if not lines:
        more = f" ({unread[0]})" if unread else ""
        raise DataError(f"{folder} holds no results{more}; give a folder of results files (.json)")
    values = {"lines": lines, "unread": unread, "folder": folder.name or str(folder), "verdicts": VERDICTS}
    text = rendered("index.html", f"Results in {folder.name or folder}", values)
    write_text(target, text.encode("utf-8", "replace").decode("utf-8"))
    return target


def _is_results(path: Path) -> bool:
    """Whether a file looks like results, so that it is worth a word where it is not."""
    try:
        if path.stat().st_size > _LARGEST:
            return False
        values: Any = read_json(path, "give the JSON file that unfool wrote")
    except (UnfoolError, OSError, json.JSONDecodeError):
        return False
    return isinstance(values, dict) and "schema_version" in values and "rows" in values


def _own_report(file: Path) -> Path | None:
    """The page of the study's folder that a results file lies in."""
    above = file.parents[2] if len(file.parents) > 2 else file.parent
    report = above / "report.html"
    return report if (above / "study.json").is_file() and report.is_file() else None


def _line(link: str, file: str, page: Page) -> IndexLine:
    result = page.result
    rows = [row for row in result.rows if not row.panel and row.accuracy is not None]
    clean = [row.accuracy for row in rows if row.protocol == "clean"]
    own = [row.accuracy for row in rows if row.protocol in (*OWN, "adaptive")]
    detail = [result.scale, page.subtitle if not result.study else "", file]
    return IndexLine(
        # A file name need not be text.
        link=quote(os.fsencode(link)),
        title=page.title,
        detail=" · ".join(filter(None, detail)),
        sentence=headline(result, study_tables(result)).text,
        clean=max(clean, default=None),
        worst=_robust(own, result),
        tally=tally(result.claims),
        date=result.run.date[:10] if result.run is not None else "",
    )


def _robust(own: Sequence[float], result: StudyResult) -> float | None:
    """The lowest accuracy of a single system under attack; of a study with several, the highest of these."""
    if not result.study:
        return min(own, default=None)
    worst: dict[tuple[str, ...], float] = {}
    for row in result.rows:
        if row.protocol in (*OWN, "adaptive") and not row.panel:
            key = (row.model, row.defense, row.data, str(row.system_settings))
            worst[key] = min(row.accuracy, worst.get(key, 1.0))
    return max(worst.values(), default=None)
