# pyright: reportUnnecessaryIsInstance=false
"""Heads: what a task puts on the trunk's pooled features, each rebuilt from its own description."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import torch
from torch import nn

from unfool.core.errors import SpecError
from unfool.core.registry import Registry
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.models.initial import initialise

MAX_UNITS = 1 << 20
MAX_LETTERS = 80


HeadSetting: TypeAlias = int | float | str
"""Value of a head's description."""

HeadDescription: TypeAlias = dict[str, HeadSetting]
"""All that rebuilds a head but its weights: its kind, sizes and names, as JSON takes it."""


class Head(nn.Sequential):
    """Base of all heads, layers in a row.

    ``keys`` are the sizes that its constructor takes, by keyword, and ``texts`` the names; ``words`` what may be given
    beside, and its values; ``shares`` numbers from 0 to below 1 that may be, too.
    """

    keys: ClassVar[tuple[str, ...]] = ()
    texts: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    shares: ClassVar[tuple[str, ...]] = ()

    def __init__(self, description: HeadDescription, *layers: nn.Module):
        super().__init__(*layers)
        self.description = description


HEADS: Registry[type[Head]] = Registry("head", "unfool.models.heads", "unfool.heads", subclass_of=Head)


@HEADS.add("linear")
class LinearHead(Head):
    """One linear layer, (B, inputs) → (B, outputs)."""

    keys = ("inputs", "outputs")

    def __init__(self, *, inputs: int, outputs: int):
        super().__init__({"kind": "linear", "inputs": inputs, "outputs": outputs}, nn.Linear(inputs, outputs))


@HEADS.add("mlp")
class MlpHead(Head):
    """The projection head of SimCLR (Chen et al. 2020, section 2.1): linear, ReLU, linear; to (B, outputs).

    ``norm="batch"`` puts a batch norm before the ReLU, as the reverse attack's head has it (Mao et al. 2021): in train
    mode its outputs depend on batch-mates, in eval mode they do not.
    """

    keys = ("inputs", "hidden", "outputs")
    words: ClassVar[Mapping[str, tuple[str, ...]]] = {"norm": ("batch",)}

    def __init__(self, *, inputs: int, hidden: int, outputs: int, norm: str | None = None):
        description: HeadDescription = {"kind": "mlp", "inputs": inputs, "hidden": hidden, "outputs": outputs}
        # Written only where it is used: files of heads without it stay what they were.
        norms = [] if norm is None else [nn.BatchNorm1d(hidden)]
        description |= {} if norm is None else {"norm": norm}
        super().__init__(description, nn.Linear(inputs, hidden), *norms, nn.ReLU(), nn.Linear(hidden, outputs))


def empty_head(description: Mapping[str, Any]) -> Head:
    """The head of a description on the meta device, without weights; SpecError names a key that is wrong."""
    if not isinstance(description, Mapping):
        raise SpecError(f"a head is described by a mapping, not by a {type(description).__name__}; give kind and sizes")
    kind = str(description.get("kind"))[:80]
    head = HEADS[kind]
    settings = {key: value for key, value in description.items() if key != "kind"}
    for key, value in settings.items():
        if key not in (known := [*head.keys, *head.texts, *head.words, *head.shares]):
            raise unknown(f"setting of head {kind!r}", str(key)[:80], known)
        if key in head.words and value not in head.words[key]:
            raise unknown(f"{key} of head {kind!r}", str(value)[:80], head.words[key])
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if key in head.shares and not (number and 0 <= value < 1):
            raise SpecError(f"{key} of head {kind!r} is {reprlib.repr(value)}; give a number from 0 to below 1")
    for key in head.keys:
        size = settings.get(key)
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_UNITS:
            raise SpecError(
                f"{key} of head {kind!r} is {reprlib.repr(size)}; give a whole number from 1 to {MAX_UNITS}"
            )
    for key in head.texts:
        text = settings.get(key)
        if not isinstance(text, str) or not 1 <= len(text) <= MAX_LETTERS:
            raise SpecError(f"{key} of head {kind!r} is {reprlib.repr(text)}; give a name")
    with torch.device("meta"):
        return head(**settings)


def build_head(description: Mapping[str, Any], streams: Streams | None = None) -> Head:
    """A head with fresh weights from ``streams`` (default: seed 0); SpecError for an unknown kind, key or size.

    ``{"kind": "linear", "inputs": 512, "outputs": 10}`` or ``{"kind": "mlp", "inputs", "hidden", "outputs"}``, the
    latter also with ``"norm": "batch"``. Give each head its own streams (``streams.named("labels")``), or two of equal
    shape start equal.
    """
    return initialise(empty_head(description), (streams or Streams(0)).named("head"))
