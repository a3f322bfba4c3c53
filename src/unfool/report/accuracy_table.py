"""A table of accuracies, models downwards and attacks across, and how attacks and settings are written in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TITLES = {"none": "clean", "fgsm": "FGSM", "fab": "FAB", "square": "Square", "autoattack": "AutoAttack"}
_ENSEMBLE = {"apgd-ce": 0, "apgd": 0, "apgd-dlr": 1, "apgd-t": 2, "fab": 3, "fab-t": 3, "square": 4, "autoattack": 5}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One accuracy: a share in [0,1] with its interval.

    For one training seed the interval is the row's own; for several, ``accuracy`` is their mean and ``low`` and
    ``high`` are the lowest and highest seed. ``images`` counts the images of each seed; ``loss``, ``cpu_seconds`` and
    ``model_images`` are averaged over the seeds, None where no row says. ``source_value`` and ``source_loss`` are what
    the source states, None where it does not.
    """

    attack: str
    protocol: str
    accuracy: float
    low: float
    high: float
    seeds: int
    images: int
    source_value: float | None
    loss: float | None
    source_loss: float | None
    cpu_seconds: float | None
    model_images: float | None


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One model under one protocol; ``cells`` by attack, the clean accuracy under ``none``.

    ``variant`` says what sets it apart from the model's other rows in its table, ``label`` names the evaluated system
    in all tables of the study, ``crafted_by`` names the system whose adversarial examples a transfer row is about.
    """

    model: str
    label: str
    variant: str
    protocol: str
    crafted_by: str
    threat: str
    cells: dict[str, Cell]

    @property
    def group(self) -> tuple[str, str]:
        """What rows of one system share: its model and variant."""
        return self.model, self.variant

    @property
    def provenance(self) -> str:
        """The protocol in words, never without the word transfer where the images came from another system."""
        words = f"transfer from {self.crafted_by}" if self.protocol == "transfer" else self.protocol
        return f"{words}, {self.threat}" if self.threat else words


@dataclass(frozen=True, kw_only=True)
class Column:
    """One attack: its name in the rows, its title, the images behind it, and whether the source has an accuracy for it,
    and a loss: then a column of losses stands beside that of accuracies."""

    attack: str
    title: str
    images: str
    has_source: bool
    has_loss: bool


@dataclass(frozen=True, kw_only=True)
class Table:
    """The table of one data set; ``threat`` and ``settings`` are what all its rows share."""

    data: str
    split: str
    threat: str
    settings: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    seeds: int
    source_decimals: int


def attack_title(attack: str) -> str:
    """The name of an attack as papers print it."""
    return _TITLES.get(attack, attack.upper() if re.match(r"a?pgd|fab", attack) else attack)


def attack_order(attack: str) -> tuple[int, int, str]:
    """Sort key of attacks: none, FGSM, PGD by steps, the AutoAttack family, then others by name."""
    steps = pgd_steps(attack)
    if attack in ("none", "fgsm"):
        return (0 if attack == "none" else 1, 0, "")
    if steps is not None:
        return (2, steps, "")
    return (3, _ENSEMBLE[attack], attack) if attack in _ENSEMBLE else (4, 0, attack)


def pgd_steps(attack: str) -> int | None:
    """The number of steps of ``pgd-K``; None for any other attack."""
    match = re.fullmatch(r"pgd-(\d+)", attack)
    return int(match[1]) if match else None


def describe(settings: Mapping[str, Any]) -> str:
    """Settings in words, ``stem imagenet, width 64``; true flags by name alone."""
    parts = []
    for name, value in settings.items():
        word = str(name).replace("_", " ")
        parts.append(word if value is True else f"no {word}" if value is False else f"{word} {_value(value)}")
    return ", ".join(parts)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
