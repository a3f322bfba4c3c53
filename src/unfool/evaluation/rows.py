"""Rows of a results file: one accuracy with its interval, and everything that says what it is the accuracy of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a row cost: CPU seconds, and how many images went forward through a network."""

    cpu_seconds: float
    model_images: int

    def to_json(self) -> dict[str, Any]:
        """The cost as a results file holds it."""
        return {"cpu_seconds": self.cpu_seconds, "model_images": self.model_images}


_OPTIONAL = {"zero_gradient": "flat", "fooled_by": "fooled_by", "rung": "rung", "common": "common", "panel": "panel"}
"""Fields that only some rows have, and their keys in a results file."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One accuracy: of ``model`` behind ``defense``, on ``n`` images of ``split``, under ``attack`` inside ``threat``.

    Accuracy, interval (``low``, ``high``) and ``source_value`` are shares in [0,1]; ``loss`` is the mean cross-entropy.
    ``protocol`` is clean, white-box, transfer or adaptive; ``crafted_on`` and ``judged_on`` are the identities behind
    it. ``settings`` hold what else tells rows apart. ``panel`` names where a page shows the row in place of its table;
    ``rung`` and ``common`` belong to rows of a ladder, ``zero_gradient`` counts images that stood without any gradient,
    and ``fooled_by`` images by the part of an ensemble that fooled them.
    """

    model: str
    seed: int
    data: str
    split: str
    attack: str
    threat: str
    protocol: str
    defense: str = "none"
    settings: Mapping[str, Any] = field(default_factory=dict)
    accuracy: float
    low: float
    high: float
    loss: float
    n: int
    crafted_on: str | None
    judged_on: str | None
    source_value: float | None = None
    cost: Cost
    zero_gradient: int | None = None
    fooled_by: Mapping[str, int] | None = None
    rung: str | None = None
    common: Mapping[str, Any] | None = None
    panel: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The row as a results file holds it; fields that it does not have are left out."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        optional = {key: values.pop(name) for name, key in _OPTIONAL.items()}
        present = {key: value for key, value in optional.items() if value is not None}
        return {**values, "settings": dict(self.settings), "cost": self.cost.to_json(), **present}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Row:
        """The row that `to_json` wrote; unknown keys raise TypeError."""
        names = {key: name for name, key in _OPTIONAL.items()}
        given = {names.get(key, key): value for key, value in values.items()}
        return cls(**{**given, "cost": Cost(**given["cost"])})
