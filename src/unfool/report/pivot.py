"""Rows of a study turned into the tables of its source: models downwards, attacks by strength across."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from unfool.core.errors import DataError, SpecError
from unfool.core.threat import ThreatModel
from unfool.evaluation.results.check import PROTOCOLS
from unfool.evaluation.results.rows import Row, system_names
from unfool.evaluation.results.study_result import StudyResult
from unfool.report.accuracy_table import Cell, Column, Table, TableRow, attack_order, attack_title, describe

Frame: TypeAlias = Any
"""A pandas table or one of its columns; pandas' annotations leave open what indexing one gives."""

REPORTING_SPLITS = ("test", "validation", "valid")


def study_tables(result: StudyResult) -> list[Table]:
    """One table per data set, in the order of the rows.

    A row that names a ``panel`` (``ladder``, ``charts``) is shown there, and not here again.
    """
    rows = [row for row in result.rows if not row.panel]
    if not rows:
        return []
    frame = _frame(rows, system_names(result.rows))
    everywhere = _shared_settings(frame["settings"], [])
    return [_table(str(data), part, everywhere) for data, part in frame.groupby("data", sort=False)]


_SYSTEM = ["model", "defense", "split", "key"]
"""Columns that tell the systems of one data set apart."""


def _frame(rows: Sequence[Row], names: Mapping[str | None, str]) -> Frame:
    """The rows as a pandas table; ``key`` is their settings as text, ``crafted_by`` the system whose examples they saw,
    ``place`` numbers the systems in the order of their first rows."""
    from pandas import DataFrame  # here, because it takes long to import

    frame: Frame = DataFrame(
        [
            {
                **{name: _spelled(getattr(row, name)) for name in _FIELDS},
                "threat": row.threat or "",
                "key": json.dumps(dict(row.settings), sort_keys=True, default=str),
                "crafted_by": _crafted_by(row, names),
                "cpu_seconds": row.cost.cpu_seconds,
                "model_images": row.cost.model_images,
            }
            for row in rows
        ]
    )
    numbers = ("loss", "source_value", "source_loss", "cpu_seconds", "model_images")
    return frame.assign(
        **{name: frame[name].astype(float) for name in numbers}, place=frame.groupby(_SYSTEM, sort=False).ngroup()
    )


def _spelled(value: Any) -> Any:
    """A text without half characters, as file names that are no text have them: pandas keeps UTF-8 alone."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


_FIELDS = (
    *("model", "data", "split", "attack", "protocol", "defense", "settings"),
    *("accuracy", "low", "high", "n", "loss", "source_value", "source_loss"),
)


def _table(data: str, frame: Frame, everywhere: Mapping[str, Any]) -> Table:
    clean, attacked = frame[frame["protocol"] == "clean"], frame[frame["protocol"] != "clean"]
    threats = list(attacked["threat"].unique())
    splits = list(frame["split"].unique())
    split = next((name for name in REPORTING_SPLITS if name in splits), splits[0])
    shared = _shared_settings((attacked if len(attacked) else clean)["settings"], clean["settings"])
    models = list(frame["model"].unique())
    built = []
    for members in _groups(clean, attacked, several=len(threats) > 1):
        first = members.iloc[0]
        elsewhere = "" if first["split"] == split else f"on the {first['split']} split"
        settings, defense = first["settings"], first["defense"]
        label = [first["model"], _variant(settings, everywhere, defense, elsewhere)]
        row = TableRow(
            model=first["model"],
            label=", ".join(filter(None, label)),
            variant=_variant(settings, shared, defense, elsewhere),
            protocol=first["protocol"],
            crafted_by=first["crafted_by"],
            threat=first["threat"] if len(threats) > 1 and first["protocol"] != "clean" else "",
            cells=_cells(members),
        )
        order = (
            models.index(row.model),
            first["split"] != split,
            defense != "none",
            first["place"],
            _by_size(row.threat),
        )
        built.append(((*order, PROTOCOLS.index(row.protocol)), row))
    ordered = tuple(row for _, row in sorted(built, key=lambda pair: pair[0]))
    return Table(
        data=data,
        split=split,
        threat=threats[0] if len(threats) == 1 else "",
        settings=describe(shared),
        columns=_columns(ordered),
        rows=ordered,
        seeds=max(cell.seeds for row in ordered for cell in row.cells.values()),
        source_decimals=_source_decimals(frame["source_value"].dropna()),
    )


def _by_size(threat: str) -> tuple[str, float]:
    """Where a threat model stands in a table: by its norm, then by its eps; what is none by its text."""
    try:
        parsed = ThreatModel.parse(threat)
    except SpecError:
        return threat, 0.0
    return parsed.norm_name, parsed.eps


def _groups(clean: Frame, attacked: Frame, several: bool) -> Iterator[Frame]:
    """The rows of one line of the table each: attacked ones with the clean rows of their system, then clean ones of
    systems that nobody attacked. With ``several`` threat models, each has its own lines."""
    from pandas import concat  # here, because it takes long to import

    shown: set[Any] = set()
    columns = [*_SYSTEM, "protocol", "crafted_by", *(["threat"] if several else [])]
    for _, members in attacked.groupby(columns, sort=False):
        own_clean = _clean_of(members.iloc[0], clean)
        shown.update(own_clean.index)
        yield concat([members, own_clean])
    for _, members in clean[~clean.index.isin(shown)].groupby(_SYSTEM, sort=False):
        yield members


def _variant(settings: Mapping[str, Any], shared: Mapping[str, Any], defense: str, elsewhere: str) -> str:
    own = describe({name: value for name, value in settings.items() if name not in shared})
    return ", ".join(filter(None, ["" if defense == "none" else f"with {defense}", own, elsewhere]))


def _shared_settings(settings: Iterable[Mapping[str, Any]], clean: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that all attacked rows share and no clean row contradicts (a clean row may lack an attack's)."""
    first, *others = list(settings) or [{}]
    alike = {k: v for k, v in first.items() if all(k in other and other[k] == v for other in others)}
    return {k: v for k, v in alike.items() if all(other.get(k, v) == v for other in clean)}


def _crafted_by(row: Row, names: Mapping[str | None, str]) -> str:
    if row.protocol != "transfer":
        return ""
    return names.get(row.crafted_on, f"another system ({(row.crafted_on or '')[:8]})")


_ABSENT = object()


def _clean_of(attacked: Frame, clean: Frame) -> Frame:
    """The clean rows of the same system: equal settings, else the closest whose settings the attacked row repeats."""
    settings = attacked["settings"]
    fitting = clean
    for name in ("model", "defense", "split"):
        fitting = fitting[fitting[name] == attacked[name]]
    repeated = [all(settings.get(key, _ABSENT) == value for key, value in own.items()) for own in fitting["settings"]]
    fitting = fitting[repeated]
    if fitting.empty:
        return fitting
    closest = max(fitting["key"].unique(), key=lambda key: len(json.loads(key)))
    return fitting[fitting["key"] == closest]


def _cells(members: Frame) -> dict[str, Cell]:
    """One cell for each attack, over the training seeds."""
    cells = {}
    for attack in sorted(members["attack"].unique(), key=attack_order):
        seeds = members[members["attack"] == attack]
        first = seeds.iloc[0]
        shares = seeds["accuracy"]
        alone = len(seeds) == 1
        cells[attack] = Cell(
            attack=attack,
            protocol=first["protocol"],
            accuracy=float(shares.mean()),
            low=float(first["low"] if alone else shares.min()),
            high=float(first["high"] if alone else shares.max()),
            seeds=len(seeds),
            images=int(first["n"]),
            source_value=_cited(seeds, "source_value", "values"),
            loss=_mean(seeds["loss"]),
            source_loss=_cited(seeds, "source_loss", "losses"),
            cpu_seconds=_mean(seeds["cpu_seconds"]),
            model_images=_mean(seeds["model_images"]),
        )
    return cells


def _cited(seeds: Frame, name: str, words: str) -> float | None:
    """The source's figure that the seeds of a cell cite in a column; None if they cite none."""
    sources = seeds[name].dropna().unique()
    if len(sources) > 1:
        first = seeds.iloc[0]
        what = f"{first['model']} under {first['attack']} on {first['data']}"
        raise DataError(f"the seeds of {what} cite different source {words} {sorted(sources.tolist())}; cite one")
    return float(sources[0]) if len(sources) else None


def _mean(values: Frame) -> float | None:
    """The mean of the known values; None if there are none."""
    return float(values.mean()) if values.notna().any() else None


def _columns(rows: Sequence[TableRow]) -> tuple[Column, ...]:
    columns = []
    for attack in sorted({attack for row in rows for attack in row.cells}, key=attack_order):
        cells = [row.cells[attack] for row in rows if attack in row.cells]
        counts = sorted({cell.images for cell in cells})
        images = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}"
        columns.append(
            Column(
                attack=attack,
                title=attack_title(attack),
                images=images,
                has_source=any(cell.source_value is not None for cell in cells),
                has_loss=any(cell.source_loss is not None for cell in cells),
            )
        )
    return tuple(columns)


def _source_decimals(values: Iterable[float]) -> int:
    """Decimals that print every source value in percent as the source did, two at the most."""
    percent = [100.0 * value for value in values]
    return next((places for places in (0, 1) if all(abs(v - round(v, places)) < 1e-6 for v in percent)), 2)
