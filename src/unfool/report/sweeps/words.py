"""What is said of a sweep: which setting is best, how sure that is, and what each setting came to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from unfool.training.sweeping.result import SweepResult
from unfool.training.sweeping.runs import DIVERGED, FINISHED, STOPPED, SweepRun, SweepSetting
from unfool.training.sweeping.variation import SEED, value_text

_OF_METRIC = {
    True: "Runs of equal seeds hold out the same images.",
    False: "A loss compares settings that leave the loss itself as it is, such as learning rates.",
}


@dataclass(frozen=True, kw_only=True)
class SweepLine:
    """A line of the table: the ``values`` of what was varied, and what came of it."""

    values: tuple[str, ...]
    figure: float | None
    text: str
    interval: str
    seeds: str
    state: str
    steps: str
    runs: tuple[SweepRun, ...]


def figure_text(result: SweepResult, value: float | None, sign: str = "") -> str:
    """A figure of a sweep as it is written: accuracies in percent, losses as numbers."""
    if value is None:
        return "–"
    return f"{100 * value:{sign}.1f} %" if result.higher else f"{value:{sign}.4g}"


def interval_text(result: SweepResult, low: float | None, high: float | None, *, share: bool = True) -> str:
    """An interval as it is written; an accuracy's within 0 and 100 %."""
    if low is None or high is None:
        return "one seed: no interval"
    if not result.higher:
        return f"[{low:.4g}, {high:.4g}]"
    if share:
        return f"[{100 * max(low, 0.0):.1f}, {100 * min(high, 1.0):.1f}] %"
    return f"[{100 * max(low, -1.0):+.1f}, {100 * min(high, 1.0):+.1f}]"


def sweep_headline(result: SweepResult) -> str:
    """Which setting is best."""
    best = result.best
    if best is None:
        return "Every run diverged." if result.diverged else "No setting has a finished run."
    seeds = f" over {len(best.runs)} seeds" if len(best.runs) > 1 else " with one seed"
    interval = f" {interval_text(result, best.low, best.high)}" if best.low is not None else ""
    metric = "" if not result.higher else f" {result.metric}"
    what = f"{figure_text(result, best.mean)}{metric}{interval}{seeds}"
    finished = [setting for setting in result.settings if setting.state == FINISHED]
    if len(result.settings) == 1:
        return f"{best.words}: {what}."
    if len(finished) == 1:
        return f"{best.words} is the one of {len(result.settings)} settings that was trained to the end: {what}."
    return f"{best.words} is the best of {len(finished)} finished settings: {what}."


def lead_sentence(result: SweepResult) -> str:
    """How sure it is that the best setting is better than the second; empty for a single setting."""
    if result.best is None or len(result.settings) == 1:
        return ""
    lead = result.lead
    if lead is None:
        why = (
            "the others were stopped early" if any(s.state == STOPPED for s in result.settings) else "no other finished"
        )
        return f"By how much it is better at the end is not known: {why}."
    points = " points" if result.higher else ""
    size = f"{100 * lead.difference:.1f}" if result.higher else f"{lead.difference:.4g}"
    ahead = f"It is {size}{points} ahead of the second, {lead.second.words}"
    if lead.low is None or lead.high is None:
        return f"{ahead}, with one seed: another seed may turn that round. Give several, such as --vary seed=0..4."
    words = f"{ahead}, {interval_text(result, lead.low, lead.high, share=False)} over {lead.seeds} pairs of equal seeds"
    if lead.low > 0:
        return f"{words}: better beyond the spread of the seeds."
    return f"{words}: the seeds do not tell the two apart."


def sweep_notes(result: SweepResult) -> list[str]:
    """What a reader must know of the figures."""
    notes = [
        f"Judged by {result.measured_by}." if result.measured_by else "",
        f"Each interval is Student's, of 95 %, over the training seeds. {_OF_METRIC[result.higher]}",
        "The best of several is chosen by these figures, which flatter it a little: evaluate it on the test images.",
    ]
    if result.stop_early:
        notes.append(
            f"Of the settings that reached a rung, the best one in {result.stop_early} went on, by the mean over its "
            "seeds. The others were stopped early: their figures are of the steps that they had, and are compared with "
            "no finished one."
        )
    if any(run.state == DIVERGED for run in result.runs):
        notes.append("A run diverges when its loss is not finite; its setting ranks last, whatever its other seeds do.")
    return [note for note in notes if note]


def sweep_lines(result: SweepResult) -> list[SweepLine]:
    """The table's lines, the best setting first."""
    return [_line(result, setting) for setting in result.settings]


def _line(result: SweepResult, setting: SweepSetting) -> SweepLine:
    scores = [run.score for run in setting.runs if run.score is not None]
    mean = setting.mean if setting.mean is not None else (sum(scores) / len(scores) if scores else None)
    finished = setting.state == FINISHED
    steps, length = min(run.steps for run in setting.runs), setting.runs[0].length
    return SweepLine(
        values=tuple(value_text(setting.values.get(name)) for name in varied(result)),
        figure=mean if finished else None,
        text=figure_text(result, mean),
        interval=interval_text(result, setting.low, setting.high) if finished else "",
        seeds=str(len(setting.runs)),
        state=setting.state if finished else f"{setting.state} at step {steps:,} of {length:,}",
        steps=f"{steps:,}",
        runs=tuple(setting.runs),
    )


def varied(result: SweepResult) -> list[str]:
    """The names of what was varied besides the seed."""
    return [name for name in result.vary if name != SEED]


def next_evaluation(result: SweepResult, folder: Path) -> list[str]:
    """The words of the command that evaluates the best setting's first run on the test images; none without one."""
    if result.best is None:
        return []
    stages = result.config.get("stages") or [{}]
    threat = str(stages[-1].get("threat") or "linf:8/255") if isinstance(stages[-1], dict) else "linf:8/255"
    where = os.path.join(str(folder), result.best.runs[0].folder)
    return ["unfool", "evaluate", where, "--attack", "pgd-20", "--threat", threat]
