"""Rows of a results file: one accuracy with its interval, and everything that says what it is the accuracy of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from unfool.core.files import JsonObject

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a row cost: CPU seconds, and how many images went forward through a network; None where it is not known."""

    cpu_seconds: float | None = None
    model_images: int | None = None

    def to_json(self) -> JsonObject:
        """The cost as a results file holds it."""
        return {"cpu_seconds": self.cpu_seconds, "model_images": self.model_images}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Cost:
        """The cost that `to_json` gave; what is no number is not known."""
        return cls(cpu_seconds=_number(values, "cpu_seconds"), model_images=_number(values, "model_images"))


@dataclass(frozen=True, kw_only=True)
class Share:
    """An accuracy (a share in [0,1]) with its 95 % interval on ``n`` images."""

    accuracy: float
    low: float
    high: float
    n: int

    @property
    def words(self) -> str:
        """The accuracy with its interval in percent: ``53.1 % [42.3, 63.6]``."""
        return f"{100 * self.accuracy:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def to_json(self) -> JsonObject:
        """The share as a results file holds it."""
        return dict(vars(self))


UNVERIFIED_MARK = "?"
"""Ends the identity of a system that holds something nobody can read: equal ones prove nothing."""


SCORES_MARK = "~"
"""Ends the identity of a black box, which gives scores and no gradient."""


def is_unverified(identity: str) -> bool:
    """Whether an identity cannot tell its system from another, so that what is kept of one may be another's."""
    return identity.endswith(UNVERIFIED_MARK)


def own_protocol(identity: str) -> str:
    """The protocol of an attack on the very system that an identity names."""
    marked = {UNVERIFIED_MARK: "unverified", SCORES_MARK: "score-based"}
    return marked.get(identity[-1:], "white-box")


def protocol_between(crafted_on: str, judged_on: str) -> str:
    """The protocol of examples of one system on another: transfer, or that of an attack on the very system.

    Unverified where the identities differ only in that one of them cannot tell.
    """
    if crafted_on == judged_on:
        return own_protocol(crafted_on)
    same = crafted_on.rstrip(UNVERIFIED_MARK) == judged_on.rstrip(UNVERIFIED_MARK)
    return "unverified" if same else "transfer"


CURVE, CURVE_BOUND = "curve", "bound"
"""The settings that rows of a curve have: all of them what it is over, those of one run for all sizes a bound."""
_SAME_KEY = ("source_loss", "fooled_by", "remark", "rung", "common", "panel", "every_draw")
_OPTIONAL = {"zero_gradient": "flat", **{name: name for name in _SAME_KEY}}
"""Fields that only some rows have, and their keys in a results file."""
_SHARES = ("common", "every_draw")
"""Those that are shares."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Row:
    """One accuracy: of ``model`` behind ``defense``, on ``n`` images of ``split``, under ``attack`` inside ``threat``.

    Accuracy, interval (``low``, ``high``) and ``source_value`` are shares in [0,1]; ``loss`` is the mean
    cross-entropy, None where there is none. ``protocol`` is clean, white-box, transfer, adaptive, unverified or
    score-based; ``crafted_on`` and ``judged_on`` are the identities behind it. ``settings`` hold what else tells
    rows apart. ``panel`` names where a page shows the row in place of its table; ``rung`` and ``common`` (the
    accuracy on the images of all rungs) belong to rows of a ladder, ``source_loss`` is the source's mean loss,
    ``zero_gradient`` counts images that stood without any gradient, and ``fooled_by`` images by the part of an
    ensemble that fooled them; ``remark`` is a sentence on what an attack left out or added. A random system judged
    over several draws has the mean over them as its accuracy; ``every_draw`` is the share of images right in all of
    them. `dataclasses.replace` makes a row with other values.
    """

    model: str
    seed: int | None = None
    data: str
    split: str
    attack: str
    threat: str | None = None
    protocol: str
    defense: str = "none"
    settings: Mapping[str, Any] = field(default_factory=dict)
    accuracy: float
    low: float
    high: float
    loss: float | None = None
    n: int
    crafted_on: str | None = None
    judged_on: str | None = None
    source_value: float | None = None
    source_loss: float | None = None
    cost: Cost = Cost()
    zero_gradient: int | None = None
    fooled_by: Mapping[str, int] | None = None
    remark: str | None = None
    rung: str | None = None
    common: Share | None = None
    panel: str | None = None
    every_draw: Share | None = None

    @property
    def system_settings(self) -> dict[str, Any]:
        """The settings that say which system the row is about, not that it is a point of a curve."""
        return {name: value for name, value in self.settings.items() if name not in (CURVE, CURVE_BOUND)}

    def __repr__(self) -> str:
        system = self.model if self.defense == "none" else f"{self.model} with {self.defense}"
        attack = "clean" if self.attack == "none" else f"{self.attack} at {self.threat}"
        share = f"{100 * self.accuracy:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        return f"Row({system}, {attack} on {self.data} {self.split}: {share} of {self.n} images, {self.protocol})"

    def to_json(self) -> JsonObject:
        """The row as a results file holds it; optional fields that it does not have are left out."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        optional = {key: values.pop(name) for name, key in _OPTIONAL.items()}
        present = {key: value for key, value in optional.items() if value is not None}
        present |= {name: share.to_json() for name in _SHARES if (share := getattr(self, name)) is not None}
        return {**values, "settings": dict(self.settings), "cost": self.cost.to_json(), **present}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Row:
        """The row that `to_json` wrote; keys that this version does not know are left out."""
        names = {each.name: _OPTIONAL.get(each.name, each.name) for each in fields(cls)}
        known = {name: values[key] for name, key in names.items() if key in values}
        known["cost"] = Cost.from_json(known.get("cost") or {})
        for name in _SHARES:
            if (share := known.get(name)) is not None:
                known[name] = Share(**{key: share[key] for key in ("accuracy", "low", "high")}, n=share.get("n", 0))
        return cls(**known)


def rows_frame(rows: Sequence[Row]) -> DataFrame:
    """Rows as a pandas table, one line each; accuracies are shares, costs have columns of their own."""
    from pandas import DataFrame

    columns = ["model", "seed", "data", "split", "attack", "threat", "protocol", "defense", "settings"]
    columns += ["accuracy", "low", "high", "loss", "n", "source_value"]
    return DataFrame(
        [{**{name: getattr(row, name) for name in columns}, **row.cost.to_json()} for row in rows],
        columns=[*columns, "cpu_seconds", "model_images"],
    )


def rows_html(rows: Sequence[Row]) -> str:
    """Rows as an HTML table for a notebook, with accuracies in percent."""
    frame = rows_frame(rows)
    shown = frame[["model", "defense", "attack", "threat", "protocol", "n"]].copy()
    shown.insert(
        5,
        "accuracy %",
        [f"{100 * row.accuracy:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]" for row in rows],
    )
    return shown.to_html(index=False, border=0)


def system_names(rows: Sequence[Row]) -> dict[str | None, str]:
    """Which system each hash belongs to: every ``judged_on`` with the model and defense that its row names."""
    names: dict[str | None, str] = {}
    for row in rows:
        if row.judged_on:
            names.setdefault(row.judged_on, row.model + ("" if row.defense == "none" else f" with {row.defense}"))
    return names


def _number(values: Mapping[str, Any], key: str) -> Any:
    value = values.get(key)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
