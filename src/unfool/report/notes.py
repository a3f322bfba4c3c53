"""Summary and notes of a page: paragraphs of a Markdown file, with figures filled in.

A line ``---`` ends the summary; all below it are notes, and a file without that line has no summary.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError

from unfool.core.borders.yaml_text import read_yaml
from unfool.core.errors import DataError

_LINE = re.compile(r"^---[ \t]*$", re.MULTILINE)


def text_beside(kind: type) -> Path | None:
    """The Markdown file beside the one that defines a class; None for a class typed into a notebook."""
    try:
        return Path(inspect.getfile(kind)).with_suffix(".md")
    except (OSError, TypeError):
        return None


def written_notes(path: Path | None, **values: object) -> list[str]:
    """The notes in a file, a paragraph each on one line; none if there is no such file.

    They are a Jinja template over ``values``. A paragraph that comes out empty is left out. Raises DataError for a
    template that cannot be filled.
    """
    return _paragraphs(path, 1, values)


def written_summary(path: Path | None, **values: object) -> str:
    """The summary in a file, one paragraph on one line; empty if there is none. It is filled in as notes are."""
    return " ".join(_paragraphs(path, 0, values))


def written_cuts(path: Path | None, scale: str) -> list[str]:
    """The sentences that ``cuts.yaml`` beside a file lists for a scale; none where there is no such file or list."""
    file = None if path is None else path.with_name("cuts.yaml")
    if file is None or not file.is_file():
        return []
    cuts: Any = read_yaml(file, "mend the file or delete it", malformed=DataError)
    if not isinstance(cuts, Mapping):
        raise DataError(f"{file} lists no cuts by scale; mend the file or delete it")
    sentences = cuts.get(scale, [])
    if not isinstance(sentences, list) or not all(isinstance(each, str) for each in sentences):
        raise DataError(f"{file} has no list of sentences for {scale!r}; write a list of texts")
    return sentences


def _paragraphs(path: Path | None, part: int, values: Mapping[str, object]) -> list[str]:
    """Those of the summary (part 0) or of the notes (part 1)."""
    if path is None or not path.is_file():
        return []
    try:
        parts = _LINE.split(path.read_text(encoding="utf-8"), maxsplit=1)
        source = ["", *parts][-2:][part]
        text = Environment(undefined=StrictUndefined).from_string(source).render(**values)
    except (OSError, UnicodeDecodeError, TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise DataError(f"the text in {path} cannot be filled in: {error}; mend the file or delete it") from error
    return [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]
