"""Publish results in a repository: the results file, and its table in a README."""

from __future__ import annotations

import re
from pathlib import Path

from unfool.core.borders.reading import read_text
from unfool.core.borders.shapes import of_known_form
from unfool.core.errors import DataError
from unfool.core.files import write_text
from unfool.evaluation.results.study_result import StudyResult
from unfool.report.tables import markdown

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def publish(results: Path, directory: Path | None, readme: Path | None) -> list[Path]:
    """Copy a study's file to ``directory``/STUDY/SCALE.json and its table into ``readme``; return the files written.

    Either may be None. Everything is read and checked before anything is written. Raises DataError for a file without
    study and scale or a README without their markers, OutputError, and what `StudyResult.load` raises.
    """
    study = StudyResult.load(results)
    files: dict[Path, str] = {}
    if directory is not None:
        name, scale = _names(study, results)
        files[directory / name / f"{scale}.json"] = read_text(results, "give a study's results file")
    if readme is not None:
        with of_known_form(results, "give the JSON file that unfool wrote"):
            files[readme] = _replaced(_read(readme), study, results, readme)
    for path, text in files.items():
        write_text(path, text)
    return list(files)


def _names(study: StudyResult, results: Path) -> tuple[str, str]:
    """Study and scale, which become part of a path and must be plain words."""
    for key, value in (("study", study.study), ("scale", study.scale)):
        if not _NAME.fullmatch(value):
            named = f"has {key} {value!r}" if value else f"names no {key}"
            raise DataError(f"{results} {named}, so it cannot be published; give a study's results file")
    return study.study, study.scale


def _read(readme: Path) -> str:
    return read_text(readme, "give a Markdown file with the markers of the study")


def _replaced(text: str, study: StudyResult, results: Path, readme: Path) -> str:
    """The README with the block of this study and scale made anew."""
    name, scale = _names(study, results)
    begin, end = f"<!-- unfool:results {name}/{scale} -->", "<!-- /unfool:results -->"
    before, opened, rest = text.partition(begin)
    block, closed, after = rest.partition(end)
    if not opened or not closed or begin in rest or "<!-- unfool:results " in block:
        raise DataError(f"{readme} needs one block from {begin} to {end}; write both where the table shall stand")
    return f"{before}{begin}\n\n{markdown(study)}\n{end}{after}"
