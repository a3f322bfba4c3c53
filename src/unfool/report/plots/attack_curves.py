"""Accuracy over the strength of an attack: over its steps, and over the size of its ball."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from unfool.core.errors import SpecError
from unfool.core.threat import ThreatModel
from unfool.evaluation.results.charts import Point
from unfool.evaluation.results.rows import CURVE, CURVE_BOUND, Row
from unfool.report.accuracy_table import Cell, Table, TableRow, describe, pgd_steps
from unfool.report.plots.figures import COLOURS, Key, Panel, Panels
from unfool.report.plots.lines import Series, line_panel
from unfool.report.plots.scale import Scale, data_scale, written

_MOST = 24
"""Systems that one figure can show: beyond it no line can be told from the others."""
_LOOKS = {"transfer": "transfer", "adaptive": "adaptive", "unverified": "dotted", "score-based": "dotted"}


def system_colours(tables: Sequence[Table]) -> dict[str, int]:
    """One colour for each system of a study by its label, the same in all panels."""
    labels = dict.fromkeys(row.label for table in tables for row in table.rows)
    return {label: number % COLOURS for number, label in enumerate(labels)}


def model_colours(tables: Sequence[Table]) -> dict[str, int]:
    """One colour for each model: that of the first of its systems."""
    colours = system_colours(tables)
    rows = [row for table in reversed(tables) for row in reversed(table.rows)]
    return {row.model: colours[row.label] for row in rows}


def step_figure(tables: Sequence[Table]) -> Panels | None:
    """Accuracy against the number of PGD steps, one panel per data set and threat.

    None without two numbers of steps, and for more systems than a figure can show.
    """
    panel_rows = [(table, threat, rows) for table in tables for threat, rows in _by_threat(table)]
    shown = {row.label for _, _, rows in panel_rows for row in rows}
    if not panel_rows or len(shown) > _MOST:
        return None
    colours = {label: colour for label, colour in system_colours(tables).items() if label in shown}
    text = (
        "Step 0 is the clean accuracy; diamonds at one step are FGSM, one step of full size. Bands and bars: 95 % "
        "intervals, or lowest to highest seed where several were trained."
    )
    panels = tuple(_step_panel(table, threat, rows, colours) for table, threat, rows in panel_rows)
    protocols = dict.fromkeys(row.protocol for _, _, rows in panel_rows for row in rows)
    return Panels(panels=panels, keys=_keys(colours, protocols), caption=text)


def _keys(colours: dict[str, int], protocols: Sequence[str] | dict[str, None]) -> tuple[Key, ...]:
    systems = tuple(Key(name=label, colour=colour) for label, colour in colours.items())
    words = {"transfer": "transfer (crafted elsewhere)"}
    looks = [Key(name=words.get(p, f"{p} attack"), colour=None, look=_LOOKS.get(p, "plain")) for p in protocols]
    return (*systems, *looks)


def _by_threat(table: Table) -> Iterator[tuple[str, list[TableRow]]]:
    for threat in dict.fromkeys(row.threat for row in table.rows):
        rows = [row for row in table.rows if row.threat == threat and sum(steps > 0 for steps, _ in _steps(row)) > 1]
        if rows:
            yield threat, rows


def _steps(row: TableRow) -> list[tuple[int, Cell]]:
    counted = [(0 if attack == "none" else pgd_steps(attack), cell) for attack, cell in row.cells.items()]
    return sorted(((n, cell) for n, cell in counted if n is not None), key=lambda pair: pair[0])


def _step_panel(table: Table, threat: str, rows: Sequence[TableRow], colours: dict[str, int]) -> Panel:
    series = []
    for row in rows:
        apart = [_point(1, row.cells["fgsm"])] if "fgsm" in row.cells else []
        points = [_point(steps, cell) for steps, cell in _steps(row)]
        name, look = f"{row.label} ({row.provenance})", _LOOKS.get(row.protocol, "plain")
        series.append(Series(name=name, points=points, colour=colours[row.label], look=look, apart=apart))
    places = [float(point[0]) for each in series for point in (*each.points, *each.apart)]
    across = data_scale([0.0, *places], math.log1p)
    title = f"{table.data}, {threat}" if threat else table.data
    return line_panel(series, title=title, x="PGD steps", y="accuracy", across=across, shares=True)


def _point(place: float, cell: Cell | Row) -> Point:
    return (place, cell.accuracy, cell.low, cell.high)


def eps_figure(rows: Sequence[Row]) -> Panels | None:
    """Accuracy against eps: of each system that one attack was run on in balls of several sizes; None without any.

    These are the rows of a curve over eps, and an attack of at least three sizes.
    """
    groups: dict[tuple[str, ...], dict[float, Row]] = {}
    words: dict[float, str] = {0.0: "0"}
    for row in rows:
        threat = None if row.panel else _threat(row)
        if threat is not None:
            system = (row.data, row.model, row.defense, row.split, str(row.seed), describe(row.system_settings))
            key = (threat.norm_name, *system, row.attack, row.protocol, str(row.settings.get(CURVE, "")))
            groups.setdefault(key, {})[threat.eps] = row
            words[threat.eps] = str(row.threat).partition(":")[2]
    groups = {key: points for key, points in groups.items() if len(points) > (1 if key[-1] == "over eps" else 2)}
    if not groups or len(groups) > _MOST:
        return None
    names = _line_names([next(iter(points.values())) for points in groups.values()])
    panels, keys = [], []
    for norm, data in dict.fromkeys(key[:2] for key in groups):
        series = []
        for (key, points), name in zip(groups.items(), names, strict=True):
            if key[:2] != (norm, data):
                continue
            first = next(iter(points.values()))
            own_clean = _clean_row(first, rows)
            at = {**({0.0: own_clean} if own_clean else {}), **points}
            drawn = [_point(eps, row) for eps, row in at.items()]
            look = _LOOKS.get(first.protocol, "plain")
            series.append(Series(name=name, points=drawn, colour=len(keys) % COLOURS, look=look))
            keys.append(Key(name=name, colour=series[-1].colour, look=look))
        across = _eps_scale([float(point[0]) for each in series for point in each.points], words)
        panels.append(line_panel(series, title=data, x=f"eps ({norm})", y="accuracy", across=across, shares=True))
    how = "; elsewhere ".join(dict.fromkeys(_how(row) for points in groups.values() for row in points.values()))
    text = f"{how[0].upper()}{how[1:]}; eps 0 is the clean accuracy. 95 % intervals."
    return Panels(panels=tuple(panels), keys=tuple(keys), caption=text)


def _clean_row(attacked: Row, rows: Sequence[Row]) -> Row | None:
    """The clean row of the same system: that with the most settings, of those whose settings the attacked row has."""
    settings = attacked.system_settings
    same = [
        row
        for row in rows
        if row.protocol == "clean"
        and all(getattr(row, name) == getattr(attacked, name) for name in ("model", "defense", "data", "split", "seed"))
        and all(name in settings and settings[name] == value for name, value in row.settings.items())
    ]
    return max(same, key=lambda row: len(row.settings), default=None)


def _line_names(firsts: Sequence[Row]) -> list[str]:
    """A name for the line of each row: its system and attack, without the settings that all lines share."""
    every = [row.system_settings for row in firsts]
    shared = {name for name in every[0] if all(name in each and each[name] == every[0][name] for each in every)}
    names = []
    for row, settings in zip(firsts, every, strict=True):
        own = describe({name: value for name, value in settings.items() if name not in shared})
        beside = [other for other in firsts if other.data == row.data]
        split = f"{row.split} split" if any(other.split != row.split for other in beside) else ""
        seed = f"seed {row.seed}" if any(other.seed != row.seed for other in beside) else ""
        defense = "" if row.defense == "none" else row.defense
        names.append(", ".join(filter(None, [row.model, defense, own, split, seed, row.attack])))
    return names


def _how(row: Row) -> str:
    """What a point of a line is: part of one run for all sizes, of a curve, or an attack by itself."""
    if CURVE_BOUND in row.settings:
        return "one run finds the nearest example of each image, so each point is an upper bound"
    if CURVE in row.settings:
        return "each point attacks the images that no smaller ball fooled"
    return "each point is an attack by itself"


def _threat(row: Row) -> ThreatModel | None:
    """The threat model of a row; None for a clean one, and for one that is written otherwise."""
    try:
        return ThreatModel.parse(row.threat) if row.threat else None
    except SpecError:
        return None


def _eps_scale(values: Sequence[float], words: dict[float, str]) -> Scale:
    places = sorted(set(values))
    return written(Scale(low=0.0, high=places[-1]), places, lambda eps: words[eps])
