# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""YAML from files: plain values alone, bounded in length, nesting, repetition by aliases and digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from unfool.core.borders.reading import read_text
from unfool.core.errors import DataError, SpecError, UnfoolError

MOST_BYTES = 1 << 18
"""The longest YAML that is read: 256 KiB."""
MOST_NODES = 20_000
"""Values in one file, each alias counted as all that it repeats."""
DEEPEST = 32
MOST_DIGITS = {"int": 19, "float": 40}
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map", "merge", "value")


class _Bounded(yaml.SafeLoader):
    """Refuses as it reads; a date is a text, since nothing here takes dates."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own form
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str):
        super().__init__(text)
        self._depth = 0
        self._nodes = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            # An anchor that is not whole yet has no size: the alias would repeat itself without end.
            if id(node) not in self._sizes:
                raise yaml.YAMLError(f"the alias *{event.anchor[:40]} stands inside what it repeats")
            self._nodes += self._sizes[id(node)]
            self._check()
            return node
        before = self._nodes
        self._nodes, self._depth = before + 1, self._depth + 1
        self._check()
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[id(node)] = self._nodes - before
        word = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if word not in _PLAIN:
            raise yaml.YAMLError(f"the tag {word[:40]} is not read; write plain values")
        if len(node.value) > (most := MOST_DIGITS.get(word, MOST_BYTES)):
            raise yaml.YAMLError(f"a number of {len(node.value):,} digits, more than the {most} allowed")
        return node

    def _check(self) -> None:
        if self._depth > DEEPEST:
            raise yaml.YAMLError(f"nested deeper than the {DEEPEST} levels allowed")
        if self._nodes > MOST_NODES:
            raise yaml.YAMLError(f"more than the {MOST_NODES:,} values allowed, counting what aliases repeat")


def parse_yaml(text: str) -> Any:
    """The value of a YAML text; ValueError in one line, which names the bound, for what is malformed or too much."""
    try:
        loader = _Bounded(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except LookupError as fault:  # PyYAML looks no further than the tag, as of `!!bool maybe`
        raise ValueError(f"a value does not fit its tag ({fault})") from fault
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        raise ValueError(" ".join(str(fault).split())) from fault


def read_yaml(path: str | Path, advice: str, *, malformed: type[UnfoolError] = SpecError) -> Any:
    """The value of a YAML file (``-``: the standard input); DataError if it cannot be read, ``malformed`` if it is
    none."""
    text = read_text(path, advice, most=MOST_BYTES, error=DataError, malformed=malformed)
    try:
        return parse_yaml(text)
    except ValueError as fault:
        raise malformed(f"{path} is not YAML: {fault}; {advice}") from fault
