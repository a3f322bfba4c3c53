"""Notebooks in the percent format as pages, when the site is built.

``<!-- unfool:notebook NAME -->`` becomes the cells of ``docs/notebooks/NAME.py``: prose as it stands, code in blocks.
"""

from __future__ import annotations

import re
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parent / "notebooks"
MARKER = re.compile(r"^<!-- unfool:notebook (\w+) -->$", re.MULTILINE)
_CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)


def cells(text: str) -> list[tuple[str, str]]:
    """The cells of a notebook in order: ``markdown`` or ``python``, and the text of the cell."""
    _, *parts = _CELL.split(text)
    kinds = ["markdown" if "[markdown]" in part else "python" for part in parts[::2]]
    return [
        (kind, re.sub(r"^# ?", "", part, flags=re.MULTILINE).strip() if kind == "markdown" else part.strip())
        for kind, part in zip(kinds, parts[1::2], strict=True)
    ]


def filled(page: str, notebooks: Path = NOTEBOOKS) -> str:
    """The page with its notebook in place of the marker."""
    return MARKER.sub(lambda match: _page(match[1], (notebooks / f"{match[1]}.py").read_text(encoding="utf-8")), page)


def _page(name: str, text: str) -> str:
    shown = [part if kind == "markdown" else f"```python\n{part}\n```" for kind, part in cells(text)]
    return "\n\n".join([*shown, f"[The notebook](index.md) itself: {{download}}`{name}.py`."])
