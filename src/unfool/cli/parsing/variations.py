"""What a sweep varies, as the command line writes it: ``learning_rate=0.05,0.1``, ``seed=0..4``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from unfool.core.errors import SpecError
from unfool.core.spec import parse_whole
from unfool.training.sweeping.variation import MOST_RUNS

_RANGE = re.compile(r"(\d+)\.\.(\d+)", re.ASCII)


def read_variations(texts: Sequence[str]) -> dict[str, list[object]]:
    """The values by field, in the order in which they were given; a field that is named twice has all of them.

    Values stand between commas, or between semicolons where a value holds commas itself; 0..4 is the five numbers, none
    is no value. Raises SpecError for anything else.
    """
    values: dict[str, list[object]] = {}
    for text in texts:
        name, equals, written = text.partition("=")
        if not equals or not name.strip():
            raise SpecError(
                f"--vary {text!r} is not understood; write FIELD=VALUE,VALUE, such as learning_rate=0.05,0.1"
            )
        parts = [part.strip() for part in written.split(";" if ";" in written else ",")]
        if parts and not parts[-1]:
            parts.pop()  # a semicolon after a single value
        if not parts or not all(parts):
            raise SpecError(f"--vary {text!r} has an empty value; write FIELD=VALUE,VALUE, or none for no value")
        for part in parts:
            values.setdefault(name.strip(), []).extend(_values(part, text))
    return values


def _values(part: str, text: str) -> list[object]:
    match = _RANGE.fullmatch(part)
    if match is None:
        return [None if part.lower() == "none" else part]
    first, last = (parse_whole(number, f"--vary {text}: the end of {part}") for number in match.groups())
    if last < first:
        raise SpecError(f"--vary {text!r} counts down; write the smaller number first: {last}..{first}")
    if last - first >= MOST_RUNS:
        raise SpecError(
            f"--vary {text!r} stands for {last - first + 1:,} values; at most {MOST_RUNS:,} runs are allowed"
        )
    return list(range(first, last + 1))
