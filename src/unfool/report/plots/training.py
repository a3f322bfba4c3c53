"""Training curves: one panel for the loss, one for each task's loss where a run has several, one for each accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unfool.report.plots.curves import Curve, series, shared_axis
from unfool.report.plots.figures import COLOURS, Key, Panels
from unfool.report.plots.lines import Series, line_panel
from unfool.report.plots.scale import nice_scale

_LOOKS = ("plain", "dotted", "dashdot")
"""Runs of one colour differ in these: not in the dashes that mean transfer."""


def training_figure(curves: Sequence[Curve], colours: Mapping[str, int] | None = None) -> Panels | None:
    """Training curves, a run whose name holds a model's in that model's colour.

    None without a single finite point; DataError if a file cannot be read.
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
    looks = run_looks(shown, colours or {})
    panels = []
    for name, lines in drawn.items():
        listed = [
            Series(name=run, points=list(zip(x, y, strict=True)), colour=looks[run][0], look=looks[run][1])
            for run, x, y in lines
        ]
        across = nice_scale([place for _, x, _ in lines for place in x])
        shares = name.startswith("accuracy/")
        title, axis = _panel_title(name), along.replace("_", " ")
        panels.append(line_panel(listed, title=title, x=axis, y=title, across=across, shares=shares))
    keys = tuple(Key(name=run, colour=looks[run][0], look=looks[run][1]) for run in shown)
    text = "Read from the metrics of each run; long runs are averaged in at most 100 bins."
    return Panels(panels=tuple(panels), keys=keys, caption=text)


def run_looks(runs: Sequence[str], colours: Mapping[str, int]) -> dict[str, tuple[int, str]]:
    """Colour by the longest model name that a run's name holds, else a free one; runs of one colour differ in dots."""
    free = [number for number in range(COLOURS) if number not in colours.values()] or list(range(COLOURS))
    looks: dict[str, tuple[int, str]] = {}
    for number, run in enumerate(runs):
        held = max((model for model in colours if model in run), key=len, default=None)
        colour = colours[held] if held else free[number % len(free)]
        before = sum(look[0] == colour for look in looks.values())
        looks[run] = (colour, _LOOKS[before % len(_LOOKS)])
    return looks


def _panel_title(name: str) -> str:
    kind, _, part = name.partition("/")
    return f"{kind}, {part}" if part else "loss"
