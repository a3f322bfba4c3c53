"""Files that name the outputs of a network in order: a line each, numbered lines or CSV, JSON, YAML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unfool.core.borders.json_text import parse_json
from unfool.core.borders.reading import read_text
from unfool.core.borders.yaml_text import parse_yaml
from unfool.core.errors import DataError

_LONGEST_FILE = 16 << 20
_NUMBER_FIRST = re.compile(r"(?P<number>\d{1,9})(?:\s*[:,;\t]\s*|\s+)(?P<name>.+)")
_NUMBER_LAST = re.compile(r"(?P<name>.+?)\s*[,;\t]\s*(?P<number>\d{1,9})")
_KEYS = ("id2label", "names")
"""Where transformers' configurations and detection's YAML files keep the names."""


def read_class_names(path: str | Path) -> list[str]:
    """The names of a network's outputs from a file: a line each, or numbered lines, CSV, JSON or YAML.

    JSON and YAML hold a list, names by number (transformers' ``id2label``, the index of Keras, ``{"0": ["n01440764",
    "tench"]}``), or numbers by name. Raises DataError for a file that is missing, too large or of another form.
    """
    file = Path(path)
    text = read_text(file, "give a text or JSON file of class names", most=_LONGEST_FILE).removeprefix("\ufeff")
    if text.lstrip()[:1] in ("[", "{") or file.suffix.lower() in (".yaml", ".yml"):
        names = _of_values(file, _parsed(file, text))
    else:
        names = _of_lines(text.splitlines())
    names = [name.strip() for name in names]
    while names and not names[-1]:
        names.pop()
    if not all(names) or not names:
        empty = names.index("") if names else 0
        raise DataError(f"{file} leaves output {empty} without a name; give a name for each, in order")
    return names


def _parsed(file: Path, text: str) -> Any:
    yaml = file.suffix.lower() in (".yaml", ".yml")
    try:
        return parse_yaml(text) if yaml else parse_json(text)
    except ValueError as error:
        kind = "YAML" if yaml else "JSON"
        raise DataError(f"{file} is no {kind} ({error}); give class names, a line each, or as JSON") from error


def _of_values(file: Path, names: Any) -> list[str]:
    wrong = DataError(f"{file} is no list of class names; give a JSON list, or an object of names by output number")
    if isinstance(names, dict):
        numbered: dict[Any, Any] = names
        numbered = next((numbered[key] for key in _KEYS if isinstance(numbered.get(key), (dict, list))), numbered)
        names = _in_order(numbered) if isinstance(numbered, dict) else numbered
    if not isinstance(names, list):
        raise wrong
    values: list[Any] = names
    entries = [", ".join(map(str, entry)) if isinstance(entry, list) else entry for entry in values]
    if not all(isinstance(entry, str) for entry in entries):
        raise wrong
    return entries


def _in_order(numbered: dict[Any, Any]) -> list[Any] | None:
    """Names by number, or numbers by name, as a list; None where the numbers are not those from 0."""
    every = list(range(len(numbered)))
    values = list(numbered.values())
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values) and sorted(values) == every:
        return sorted(numbered, key=lambda name: numbered[name])
    by_text = {str(number): name for number, name in numbered.items()}
    return [by_text[str(number)] for number in every] if sorted(by_text) == sorted(map(str, every)) else None


def _of_lines(lines: Sequence[str]) -> list[str]:
    """Lines as they are, or by their numbers, where all but a header have one and they are those from 0."""
    filled = [line.strip() for line in lines if line.strip()]
    for rows in (filled, filled[1:]):
        for form in (_NUMBER_FIRST, _NUMBER_LAST):
            matches = [match for line in rows if (match := form.fullmatch(line)) is not None]
            names = {int(match["number"]): match["name"].strip('"') for match in matches}
            if rows and len(matches) == len(rows) and sorted(names) == list(range(len(rows))):
                return [names[number] for number in range(len(rows))]
    return list(lines)
