"""Notes of a page: paragraphs of a Markdown file, with figures filled in."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, StrictUndefined, TemplateError

from unfool.core.errors import DataError


def written_notes(path: Path, **values: object) -> list[str]:
    """The paragraphs of a file, each on one line; none if there is no such file.

    The file is a Jinja template over ``values``. A paragraph that comes out empty is left out. Raises DataError for a
    template that cannot be filled.
    """
    if not path.is_file():
        return []
    try:
        template = Environment(undefined=StrictUndefined).from_string(path.read_text(encoding="utf-8"))
        text = template.render(**values)
    except (OSError, UnicodeDecodeError, TemplateError) as error:
        raise DataError(f"the notes in {path} cannot be filled in: {error}; mend the file or delete it") from error
    return [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]
