"""The figures that every study's page has: accuracy against attack steps, and training curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, MaxNLocator, NullLocator, PercentFormatter

from unfool.evaluation.results.study_result import StudyResult
from unfool.report.accuracy_table import Table, TableRow, pgd_steps
from unfool.report.curves import Curve, series, shared_axis
from unfool.report.drawing import COLOURS, Picture, drawable, legend, panels, picture, style
from unfool.report.pivot import study_tables

_DASHES = {"white-box": "-", "adaptive": "-.", "transfer": (0, (4, 2)), "unverified": ":", "score-based": ":"}
_MARKERS = {"white-box": "o", "adaptive": "D", "transfer": "s", "unverified": "X", "score-based": "P"}
_MOST = 24
"""Systems that one picture can show: beyond it no line can be told from the others."""


def system_colours(tables: Sequence[Table]) -> dict[str, str]:
    """One colour for each system of a study by its label, the same in all panels."""
    labels = dict.fromkeys(row.label for table in tables for row in table.rows)
    return {label: COLOURS[number % len(COLOURS)] for number, label in enumerate(labels)}


def model_colours(tables: Sequence[Table]) -> dict[str, str]:
    """One colour for each model: that of the first of its systems."""
    colours = system_colours(tables)
    rows = [row for table in reversed(tables) for row in reversed(table.rows)]
    return {row.model: colours[row.label] for row in rows}


def step_picture(result: StudyResult) -> Picture | None:
    """Accuracy against the number of PGD steps, one panel per data set and threat.

    None without two step counts, and for more systems than a picture can show.
    """
    tables = study_tables(result)
    panel_rows = [(table, threat, rows) for table in tables for threat, rows in _by_threat(table)]
    if not panel_rows:
        return None
    colours = system_colours(tables)
    shown = {row.label for _, _, rows in panel_rows for row in rows}
    labels = [label for label in colours if label in shown]
    if len(labels) > _MOST:
        return None
    with style():
        figure, axes = panels(len(panel_rows), across=3 if len(panel_rows) == 3 else 2)
        for number, (axis, (table, threat, rows)) in enumerate(zip(axes, panel_rows, strict=True)):
            _draw_steps(axis, rows, colours)
            axis.set_title(drawable(f"{table.data}, {threat}" if threat else table.data))
            axis.set_xlabel("PGD steps (diamonds at 1: FGSM)" if any("fgsm" in r.cells for r in rows) else "PGD steps")
            if number == 0:
                axis.set_ylabel("accuracy")
        protocols = list(dict.fromkeys(row.protocol for _, _, rows in panel_rows for row in rows))
        handles = [Line2D([], [], color=colours[label], linewidth=3) for label in labels]
        handles += [Line2D([], [], color="#444", linestyle=_DASHES[p], **_marker(p, "#444")) for p in protocols]
        words = [p if p == "transfer" else f"{p} attack" for p in protocols]
        legend(figure, handles, [*labels, *("transfer (crafted elsewhere)" if w == "transfer" else w for w in words)])
    alt = "Accuracy against PGD steps. " + " ".join(
        _in_words(table, row) for table, _, rows in panel_rows for row in rows
    )
    text = (
        "Solid lines with filled dots: white-box, attacks crafted on the evaluated model. Dashed lines with open "
        "squares: transfer, the images of an attack on another model, merely replayed. Step 0 is the natural accuracy; "
        "diamonds at one step are FGSM, one step of full size, open where they are transfer. Bands and bars: 95 % "
        "intervals, or lowest to highest seed where several were trained."
    )
    return picture(figure, alt, text)


def curve_picture(curves: Sequence[Curve], colours: Mapping[str, str] | None = None) -> Picture | None:
    """Training curves: one panel for the loss, one per task's loss where a run has several, one per accuracy.

    A run whose name holds a model's takes that model's colour from ``colours``. None without a single finite point;
    DataError if a file cannot be read.
    """
    runs = [(curve.name, curve.columns()) for curve in curves]
    names = list(dict.fromkeys(name for _, columns in runs for name in columns))
    several = any(sum(name.startswith("loss/") for name in columns) > 1 for _, columns in runs)
    wanted = [name for name in names if name == "loss" or (several and name.startswith("loss/"))]
    wanted += [name for name in names if name.startswith("accuracy/")]
    along = shared_axis([columns for _, columns in runs])
    drawn = {name: [(run, *series(columns, name, along)) for run, columns in runs] for name in wanted}
    drawn = {name: [line for line in lines if line[1]] for name, lines in drawn.items()}
    drawn = {name: lines for name, lines in drawn.items() if lines}
    if not drawn:
        return None
    shown = list(dict.fromkeys(run for lines in drawn.values() for run, _, _ in lines))
    looks = _run_looks(shown, colours or {})
    with style():
        figure, axes = panels(len(drawn), across=3)
        for axis, (name, lines) in zip(axes, drawn.items(), strict=True):
            for run, x, y in lines:
                axis.plot(x, y, marker="o" if len(x) < 12 else None, markersize=4, **looks[run])
            axis.set_title(drawable(_panel_title(name)))
            axis.set_xlabel(along.replace("_", " "))
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=max(x[-1] for _, x, _ in lines) >= 2))
            if along != "epoch":
                axis.xaxis.set_major_formatter(EngFormatter(sep=""))
            if name.startswith("accuracy/"):
                axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        legend(figure, [Line2D([], [], **looks[run]) for run in shown], shown)
    ends = [
        f"{run} ends with {_panel_title(name)} {y[-1]:.3g}." for name, lines in drawn.items() for run, _, y in lines
    ]
    alt = f"Training curves along the {along.replace('_', ' ')}. " + " ".join(ends)
    return picture(figure, alt, "Read from the metrics of each run; long runs are averaged in at most 100 bins.")


def _run_looks(runs: Sequence[str], colours: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Colour by the longest model name that a run's name holds, else a free one; runs of one colour differ in dots."""
    free = [colour for colour in COLOURS if colour not in colours.values()] or list(COLOURS)
    dots = ("-", (0, (1, 1.2)), (0, (6, 1, 1, 1)))  # not the dashes that mean transfer
    looks: dict[str, dict[str, Any]] = {}
    for number, run in enumerate(runs):
        held = max((model for model in colours if model in run), key=len, default=None)
        colour = colours[held] if held else free[number % len(free)]
        before = sum(look["color"] == colour for look in looks.values())
        looks[run] = {"color": colour, "linestyle": dots[before % len(dots)]}
    return looks


def _by_threat(table: Table) -> Iterator[tuple[str, list[TableRow]]]:
    for threat in dict.fromkeys(row.threat for row in table.rows):
        rows = [row for row in table.rows if row.threat == threat and len(_steps(row)) > 1]
        rows = [row for row in rows if any(steps for steps, _ in _steps(row))]
        if rows:
            yield threat, rows


def _steps(row: TableRow) -> list[tuple[int, str]]:
    counted = [(0 if attack == "none" else pgd_steps(attack), attack) for attack in row.cells]
    return sorted((steps, attack) for steps, attack in counted if steps is not None)


def _draw_steps(axis: Axes, rows: Sequence[TableRow], colours: dict[str, str]) -> None:
    ticks = {0}
    for row in rows:
        steps, attacks = zip(*_steps(row), strict=True)
        cells = [row.cells[attack] for attack in attacks]
        colour = colours[row.label]
        heights = [cell.accuracy for cell in cells]
        first = 1 if steps[0] == 0 else 0
        lows, highs = [cell.low for cell in cells], [cell.high for cell in cells]
        axis.fill_between(steps[first:], lows[first:], highs[first:], color=colour, alpha=0.15, linewidth=0)
        alone = steps if len(steps[first:]) == 1 else steps[:first]
        axis.vlines(alone, lows[: len(alone)], highs[: len(alone)], color=colour, linewidth=1)
        if first:
            # the natural accuracy is no attack's: joined faintly, and never with the marker of a transfer
            axis.plot(steps[:2], heights[:2], color=colour, linestyle=_DASHES[row.protocol], linewidth=0.9, alpha=0.6)
            axis.plot(steps[:1], heights[:1], **_marker("white-box", colour))
        style = _marker(row.protocol, colour)
        axis.plot(steps[first:], heights[first:], color=colour, linestyle=_DASHES[row.protocol], **style)
        ticks.update(steps)
        if "fgsm" in row.cells:
            single = row.cells["fgsm"]
            axis.vlines([1], [single.low], [single.high], color=colour, linewidth=1)
            axis.plot([1], [single.accuracy], linestyle="none", **{**_marker(row.protocol, colour), "marker": "D"})
            ticks.add(1)
    axis.set_xscale("symlog", linthresh=1.0, linscale=0.5)
    axis.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    axis.set_xlim(-0.1, max(ticks) * 1.15)
    axis.set_ylim(-0.02, 1.0)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _marker(protocol: str, colour: str) -> dict[str, Any]:
    face = "white" if protocol == "transfer" else colour
    return {"marker": _MARKERS[protocol], "markersize": 5, "markerfacecolor": face, "markeredgecolor": colour}


def _in_words(table: Table, row: TableRow) -> str:
    steps, attacks = zip(*_steps(row), strict=True)
    points = [f"{100 * row.cells[a].accuracy:.1f} % at {s} steps" for s, a in zip(steps, attacks, strict=True)]
    return f"{table.data}, {row.label} ({row.provenance}): {', '.join(points)}."


def _panel_title(name: str) -> str:
    kind, _, part = name.partition("/")
    return f"{kind}, {part}" if part else "loss"
