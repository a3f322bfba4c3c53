"""What the results of one evaluation say beside their rows: accuracies by class and under corruptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unfool.core.errors import DataError
from unfool.core.files import JsonObject

HOW = "give the JSON file that unfool evaluate wrote"
"""What to do about a malformed file, the end of every message."""


@dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """The accuracy on the ``n`` images of one class, with its 95 % Wilson interval."""

    name: str
    accuracy: float
    low: float
    high: float
    n: int

    def to_json(self) -> JsonObject:
        """The same as JSON takes it, shares to six decimals as in all results."""
        shares = {key: round(getattr(self, key), 6) for key in ("accuracy", "low", "high")}
        return {"name": self.name, **shares, "n": self.n}


@dataclass(frozen=True, kw_only=True)
class CorruptionAccuracy:
    """The accuracy under one corruption at one severity."""

    corruption: str
    severity: int
    accuracy: float

    def to_json(self) -> JsonObject:
        """The same as JSON takes it."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class CorruptionSummary:
    """The mean corruption accuracy on ``n`` images with its 95 % interval, and the accuracies ``under`` each."""

    accuracy: float
    low: float
    high: float
    n: int
    under: Sequence[CorruptionAccuracy]

    def to_json(self) -> JsonObject:
        """The same as JSON takes it, shares to six decimals."""
        shares = {key: round(getattr(self, key), 6) for key in ("accuracy", "low", "high")}
        return {**shares, "n": self.n, "under": [each.to_json() for each in self.under]}


def read_classes(values: Mapping[str, Any]) -> dict[str, list[ClassAccuracy]]:
    """Accuracies by class, by attack, as a results file holds them; DataError for what is malformed."""
    classes: dict[str, list[ClassAccuracy]] = {}
    for attack, listed in values.items():
        if not isinstance(listed, list) or not all(isinstance(each, Mapping) for each in listed):
            raise DataError(f"classes of the results are no lists; {HOW}")
        classes[attack] = [
            ClassAccuracy(
                name=str(each.get("name")),
                accuracy=read_share(each, "classes"),
                low=each.get("low", 0.0),
                high=each.get("high", 1.0),
                n=each.get("n", 0),
            )
            for each in listed
        ]
    return classes


def read_corruptions(values: Mapping[str, Any]) -> CorruptionSummary | None:
    """The accuracies under corruptions of a results file, None if it has none; DataError for what is malformed."""
    if not values:
        return None
    under = values.get("under")
    if not isinstance(under, list) or not all(isinstance(each, Mapping) for each in under):
        raise DataError(f"corruptions of the results list nothing; {HOW}")
    return CorruptionSummary(
        **{key: read_share(values, "corruptions", key) for key in ("accuracy", "low", "high")},
        n=values.get("n", 0),
        under=[
            CorruptionAccuracy(
                corruption=str(each.get("corruption")),
                severity=each.get("severity", 0),
                accuracy=read_share(each, "corruptions"),
            )
            for each in under
        ],
    )


def read_share(values: Mapping[str, Any], what: str, key: str = "accuracy") -> float:
    """A share in [0,1]; DataError for anything else."""
    share = values.get(key)
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise DataError(f"{key} in {what} of the results is {share!r}; it must be a share in [0,1]")
    return float(share)


def read_mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object of a results file, empty where there is none; DataError for anything else."""
    inner = values.get(key) or {}
    if not isinstance(inner, Mapping):
        raise DataError(f"{key} of the results is a {type(inner).__name__}; {HOW}")
    return inner
