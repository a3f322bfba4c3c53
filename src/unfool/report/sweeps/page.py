"""The page of a sweep."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from unfool.core.files import write_text
from unfool.report.downloads import Download, download, safe
from unfool.report.plots.figures import Key, Panels
from unfool.report.plots.lines import Series, line_panel
from unfool.report.plots.scale import nice_scale
from unfool.report.rendering import rendered
from unfool.report.sweeps.words import (
    figure_text,
    lead_sentence,
    next_evaluation,
    sweep_headline,
    sweep_lines,
    sweep_notes,
    varied,
)
from unfool.training.sweeping.result import SweepResult
from unfool.training.sweeping.runs import DIVERGED, FINISHED, STOPPED, SweepRun

_LINES = 8
"""Settings whose curves are drawn: the palette has no more colours."""
PAGE = "report.html"


def write_sweep_page(result: SweepResult, folder: str | Path, path: str | Path | None = None) -> Path:
    """Write the page of a sweep, whole or not at all, by default as ``report.html`` of its folder; return its path."""
    target = Path(folder) / PAGE if path is None else Path(path)
    write_text(target, render_sweep(result, Path(folder)).encode("utf-8", "replace").decode("utf-8"))
    return target


def render_sweep(result: SweepResult, folder: Path) -> str:
    """The page as HTML; ``folder`` is that of the sweep, as commands name it."""
    facts = [
        ("command", [result.command] if result.command else []),
        ("data", [result.data] if result.data else []),
        ("runs", [_counts(result)]),
        ("cost", [_cost(result)]),
        ("date", [result.date] if result.date else []),
        (
            "versions",
            [" · ".join(f"{name} {text}" for name, text in result.versions.items())] if result.versions else [],
        ),
    ]
    values = {
        "headline": sweep_headline(result),
        "below": lead_sentence(result),
        "subtitle": result.measured_by,
        "names": varied(result),
        "figure": f"{result.metric} accuracy" if result.higher else "loss",
        "lines": sweep_lines(result),
        "curves": _curves(result),
        "notes": sweep_notes(result),
        "facts": [(name, texts) for name, texts in facts if texts],
        "next": shlex.join(next_evaluation(result, folder)),
        "downloads": _downloads(result),
        "text_of": lambda run: figure_text(result, run.score),
    }
    return rendered("sweep.html", "Which settings are best?", values)


def _curves(result: SweepResult) -> Panels | None:
    """The figure by step of the best settings, means over the seeds that have it; no band, since seeds are few."""
    series: list[Series] = []
    for setting in result.settings:
        points = _mean_curve(setting.runs)
        if points and len(series) < _LINES:
            look = "plain" if setting.state == FINISHED else "dotted"
            series.append(Series(name=setting.words, points=points, colour=len(series), look=look))
    if not series:
        return None
    across = nice_scale([place for each in series for place, *_ in each.points])
    y = f"{result.metric} accuracy" if result.higher else "training loss"
    panel = line_panel(series, title="", x="step", y=y, across=across, shares=result.higher)
    keys = tuple(Key(name=each.name, colour=each.colour, look=each.look) for each in series)
    left = len(result.settings) - len(series)
    more = f" {left} more settings are in the table." if left else ""
    caption = (
        f"Means over the seeds. Dotted: stopped early.{more}" if result.stop_early else f"Means over the seeds.{more}"
    )
    return Panels(panels=(panel,), keys=keys, caption=caption)


def _mean_curve(runs: Sequence[SweepRun]) -> list[tuple[float, float]]:
    by_step: dict[int, list[float]] = {}
    for run in runs:
        for step, value in run.curve:
            by_step.setdefault(step, []).append(value)
    return [
        (float(step), sum(values) / len(values)) for step, values in sorted(by_step.items()) if len(values) == len(runs)
    ]


def _counts(result: SweepResult) -> str:
    states = [run.state for run in result.runs]
    parts = [f"{states.count(state)} {state}" for state in (FINISHED, STOPPED, DIVERGED) if state in states]
    return f"{len(states)} runs of {len(result.settings)} settings: {', '.join(parts)}"


def _cost(result: SweepResult) -> str:
    seconds, images = (sum(getattr(run, name) for run in result.runs) for name in ("cpu_seconds", "model_images"))
    steps, length = sum(run.steps for run in result.runs), sum(run.length for run in result.runs)
    saved = f"; {1 - steps / length:.0%} of all steps saved by stopping early" if result.stop_early and length else ""
    return f"{seconds:,.0f} s of CPU, {images:,} model images{saved}"


def _downloads(result: SweepResult) -> list[Download]:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names, columns = (
        varied(result),
        ("seed", "state", "score", "steps", "length", "cpu_seconds", "model_images", "folder"),
    )
    writer.writerow([*names, *columns])
    for run in result.runs:
        own = [safe(run.values.get(name)) for name in names]
        writer.writerow([*own, *(safe(getattr(run, name)) for name in columns)])
    texts = json.dumps(result.to_json(), ensure_ascii=False, separators=(",", ":"))
    return [
        download("sweep.csv", "text/csv", file.getvalue().encode("utf-8", "replace")),
        download("sweep.json", "application/json", texts.encode("utf-8", "replace")),
    ]
