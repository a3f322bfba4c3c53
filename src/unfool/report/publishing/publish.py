"""Publish a study's results in a repository, from where its documentation makes the page of the study."""

from __future__ import annotations

import re
from pathlib import Path

from unfool.core.borders.reading import read_text
from unfool.core.errors import DataError
from unfool.core.files import write_text
from unfool.evaluation.results.study_result import StudyResult

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def publish(results: Path, directory: Path) -> Path:
    """Copy a study's file to ``directory``/STUDY/SCALE.json and return the copy.

    The file is read and checked before anything is written. Raises DataError for a file without study and scale,
    OutputError, and what `StudyResult.load` raises.
    """
    name, scale = _names(StudyResult.load(results), results)
    copy = directory / name / f"{scale}.json"
    write_text(copy, read_text(results, "give a study's results file"))
    return copy


def _names(study: StudyResult, results: Path) -> tuple[str, str]:
    """Study and scale, which become part of a path and must be plain words."""
    for key, value in (("study", study.study), ("scale", study.scale)):
        if not _NAME.fullmatch(value):
            named = f"has {key} {value!r}" if value else f"names no {key}"
            raise DataError(f"{results} {named}, so it cannot be published; give a study's results file")
    return study.study, study.scale
