"""Rows of a study turned into the tables of its source: models downwards, attacks by strength across."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unfool.core.errors import DataError
from unfool.evaluation.results_check import PROTOCOLS
from unfool.evaluation.rows import Row, system_names
from unfool.evaluation.study_result import StudyResult

REPORTING_SPLITS = ("test", "validation", "valid")

_TITLES = {"none": "natural", "fgsm": "FGSM", "fab": "FAB", "square": "Square", "autoattack": "AutoAttack"}
_ENSEMBLE = {"apgd-ce": 0, "apgd": 0, "apgd-dlr": 1, "apgd-t": 2, "fab": 3, "fab-t": 3, "square": 4, "autoattack": 5}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One accuracy: a share in [0,1] with its interval.

    For one training seed the interval is the row's own; for several, ``accuracy`` is their mean and ``low`` and
    ``high`` are the lowest and highest seed. ``images`` counts the images judged for each seed; ``cpu_seconds`` and
    ``model_images`` are what a row cost, averaged over the seeds, None where a row does not say.
    """

    attack: str
    protocol: str
    accuracy: float
    low: float
    high: float
    seeds: int
    images: int
    source_value: float | None
    cpu_seconds: float | None
    model_images: float | None


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One model under one protocol; ``cells`` by attack, the natural accuracy under ``none``.

    ``variant`` tells what sets it apart from the model's other rows in its table, ``label`` names the judged system
    alike in all tables of the study, ``crafted_by`` tells whose images a transfer row saw.
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
    """One attack: its name in the rows, its title, the images behind it, and whether the source has a figure for it."""

    attack: str
    title: str
    images: str
    has_source: bool


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


def strength(attack: str) -> tuple[int, int, str]:
    """Sorts attacks from none to the strongest: FGSM, PGD by steps, the AutoAttack family, then others by name."""
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


def study_tables(result: StudyResult) -> list[Table]:
    """One table per data set, in the order of the rows.

    A row that names a ``panel`` (``ladder``, ``charts``) is shown there, and not here again.
    """
    rows = [row for row in result.rows if not row.panel]
    names = system_names(result.rows)
    everywhere = _shared_settings(rows, [])
    return [
        _table(data, [row for row in rows if row.data == data], names, everywhere)
        for data in _unique(row.data for row in rows)
    ]


def _table(data: str, rows: list[Row], names: Mapping[str | None, str], everywhere: Mapping[str, Any]) -> Table:
    attacked = [row for row in rows if row.protocol != "clean"]
    clean = [row for row in rows if row.protocol == "clean"]
    threats = _unique(row.threat or "" for row in attacked)
    splits = _unique(row.split for row in rows)
    split = next((name for name in REPORTING_SPLITS if name in splits), splits[0])
    shared = _shared_settings(attacked or clean, clean)
    models = _unique(row.model for row in rows)
    identities = [_identity(row) for row in rows]

    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in attacked:
        threat = (row.threat or "") if len(threats) > 1 else ""
        groups.setdefault((*_identity(row), row.protocol, _crafted_by(row, names), threat), []).append(row)
    claimed: set[int] = set()
    for members in groups.values():
        natural = _natural_of(members[0], clean)
        claimed.update(id(row) for row in natural)
        members += natural
    for row in clean:
        if id(row) not in claimed:
            groups.setdefault((*_identity(row), "clean", "", ""), []).append(row)

    built: list[tuple[tuple[Any, ...], TableRow]] = []
    for (model, defense, name, key, protocol, crafted_by, threat), members in groups.items():
        settings, elsewhere = members[0].settings, "" if name == split else f"on the {name} split"
        variant = _variant(settings, shared, defense, elsewhere)
        label = ", ".join(part for part in (model, _variant(settings, everywhere, defense, elsewhere)) if part)
        row = TableRow(
            model=model,
            label=label,
            variant=variant,
            protocol=protocol,
            crafted_by=crafted_by,
            threat=threat,
            cells=_cells(members),
        )
        first = identities.index((model, defense, name, key))
        order = (models.index(model), name != split, defense != "none", first, threat, PROTOCOLS.index(protocol))
        built.append((order, row))
    ordered = tuple(row for _, row in sorted(built, key=lambda pair: pair[0]))
    return Table(
        data=data,
        split=split,
        threat=threats[0] if len(threats) == 1 else "",
        settings=describe(shared),
        columns=_columns(ordered),
        rows=ordered,
        seeds=max(cell.seeds for row in ordered for cell in row.cells.values()),
        source_decimals=_source_decimals(rows),
    )


def _variant(settings: Mapping[str, Any], shared: Mapping[str, Any], defense: str, elsewhere: str) -> str:
    own = describe({name: value for name, value in settings.items() if name not in shared})
    return ", ".join(part for part in ("" if defense == "none" else f"with {defense}", own, elsewhere) if part)


def _shared_settings(rows: Sequence[Row], clean: Sequence[Row]) -> dict[str, Any]:
    """What all attacked rows set alike and no clean row sets otherwise (a clean row may know nothing of an attack)."""
    settings = [row.settings for row in rows] or [{}]
    alike = {k: v for k, v in settings[0].items() if all(k in other and other[k] == v for other in settings)}
    return {k: v for k, v in alike.items() if all(row.settings.get(k, v) == v for row in clean)}


def _crafted_by(row: Row, names: Mapping[str | None, str]) -> str:
    if row.protocol != "transfer":
        return ""
    return names.get(row.crafted_on, f"another system ({(row.crafted_on or '')[:8]})")


def _identity(row: Row) -> tuple[str, str, str, str]:
    return row.model, row.defense, row.split, json.dumps(dict(row.settings), sort_keys=True, default=str)


def _natural_of(attacked: Row, clean: Sequence[Row]) -> list[Row]:
    """The clean rows of the same system: equal settings, else the closest whose settings the attacked row repeats."""
    settings = attacked.settings
    found: dict[str, list[Row]] = {}
    for row in clean:
        own = row.settings
        same = all(getattr(row, name) == getattr(attacked, name) for name in ("model", "defense", "split"))
        if same and all(key in settings and settings[key] == value for key, value in own.items()):
            found.setdefault(_identity(row)[3], []).append(row)
    return max(found.values(), key=lambda rows: len(rows[0].settings), default=[])


def _cells(rows: Sequence[Row]) -> dict[str, Cell]:
    cells = {}
    for attack in sorted({row.attack for row in rows}, key=strength):
        members = [row for row in rows if row.attack == attack]
        sources = {row.source_value for row in members if row.source_value is not None}
        if len(sources) > 1:
            what = f"{members[0].model} under {attack} on {members[0].data}"
            raise DataError(f"the seeds of {what} cite different source values {sorted(sources)}; cite one")
        shares = [row.accuracy for row in members]
        alone = len(members) == 1
        cells[attack] = Cell(
            attack=attack,
            protocol=members[0].protocol,
            accuracy=shares[0] if alone else sum(shares) / len(shares),
            low=members[0].low if alone else min(shares),
            high=members[0].high if alone else max(shares),
            seeds=len(members),
            images=members[0].n,
            source_value=next(iter(sources), None),
            cpu_seconds=_mean_cost(members, "cpu_seconds"),
            model_images=_mean_cost(members, "model_images"),
        )
    return cells


def _mean_cost(rows: Sequence[Row], name: str) -> float | None:
    costs = [getattr(row.cost, name) for row in rows]
    known = [float(cost) for cost in costs if cost is not None]
    return sum(known) / len(known) if known else None


def _columns(rows: Sequence[TableRow]) -> tuple[Column, ...]:
    columns = []
    for attack in sorted({attack for row in rows for attack in row.cells}, key=strength):
        cells = [row.cells[attack] for row in rows if attack in row.cells]
        counts = sorted({cell.images for cell in cells})
        images = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}"
        has_source = any(cell.source_value is not None for cell in cells)
        columns.append(Column(attack=attack, title=attack_title(attack), images=images, has_source=has_source))
    return tuple(columns)


def _source_decimals(rows: Iterable[Row]) -> int:
    """Decimals that print every source value in percent as the source did, two at the most."""
    values = [100.0 * row.source_value for row in rows if row.source_value is not None]
    return next((places for places in (0, 1) if all(abs(v - round(v, places)) < 1e-6 for v in values)), 2)


def _unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
