"""Charts and pictures of system D: what was learnt, what reversals gain, and images filled, put back and reversed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from unfool.evaluation.estimates.charts import audit_and_gain_chart, fillings_charts, gains_chart, tasks_chart
from unfool.evaluation.pretext.inpainting import inpainted
from unfool.evaluation.pretext.puzzles import solved_puzzles
from unfool.evaluation.results.charts import Chart
from unfool.evaluation.statistics.chart_kinds import histogram
from unfool.report.pictures.pretext_strips import filled_strips, puzzle_strips, reversed_strips
from unfool.report.pictures.strips import Strip
from unfool.report.plots.curves import Curve
from unfool.studies.auxiliary_reversal.scales import IN_SHORT, INPAINTING, JIGSAW
from unfool.studies.auxiliary_reversal.systems import AUDITED, Subject, head_of
from unfool.studies.framework import Results
from unfool.training.recipes import NORMAL
from unfool.training.regimes import CLASSIFIER_FIRST, REGIMES

SHOWN = 3
"""Images in each kind of picture."""
LINES = 10
"""Lines of a training log that its last accuracy is the mean of."""


def all_charts(subjects: Sequence[Subject], results: Results) -> Iterator[Chart]:
    """What reversals gain and what audits say of it, what the tasks learnt, the fillings, and the audits' losses."""
    plain, bare = [each for each in subjects if each.is_plain], [each for each in subjects if not each.task]
    for kind in dict.fromkeys(each.kind for each in plain):
        its = {f"{each.task}, {_regime(each)}": each for each in plain if each.kind == kind}
        audits = {words: results[each.audit] for words, each in its.items()}
        ladders = {words: results[each.ladder]["ladder"] for words, each in its.items()}
        yield gains_chart(f"What reversals gain, {kind}", "task, regime", audits, ladders, AUDITED)
        yield audit_and_gain_chart(f"Does the audit tell when a task suits? {kind}", "task, regime", audits, ladders)
    chart = tasks_chart(
        (f"{_place(each)}, {each.part.data}", results[each.learnt], _last(each, results)) for each in bare
    )
    yield from [] if chart is None else [chart]
    yield from fillings_charts((_place(each), results[each.learnt]) for each in bare)
    for each in plain:
        if each.regime == CLASSIFIER_FIRST:
            title = f"What {each.task} sees, {each.kind}, classifier first"
            yield histogram(title, f"{each.task} loss", results[each.audit])


def _last(subject: Subject, results: Results) -> dict[str, float | None]:
    """The last accuracies of a network's tasks in training."""
    log = Curve("", subject.network.metrics(results.work))
    return {task: log.last(f"accuracy/{task}", LINES) for task in subject.tasks}


def _regime(subject: Subject) -> str:
    return subject.regime.replace("-", " ")


def _place(subject: Subject) -> str:
    base = IN_SHORT[subject.base] if subject.regime in REGIMES else ""
    return ", ".join(word for word in (_regime(subject), base, subject.arm) if word)


def all_strips(subjects: Sequence[Subject], results: Results) -> Iterator[Strip]:
    """Pictures of the normally trained networks: regions filled, tiles put back, attacked images reversed."""
    work = results.work
    for each in subjects:
        if each.base == NORMAL and not each.task:
            run, images = results.run(each.network), each.images.table(work).batch(torch.arange(SHOWN)).images
            for loss in each.losses:
                pictures = inpainted(run.network, run.task(head_of(INPAINTING, loss)), images)
                yield from filled_strips(f"Regions filled, {each.who}, {loss or 'both losses'}", pictures)
            if each.beside == JIGSAW:
                puzzles = solved_puzzles(run.network, run.task(JIGSAW), images)
                yield from puzzle_strips(f"Tiles put back, {each.who}", images, puzzles)
        elif each.base == NORMAL and each.is_plain and each.regime == CLASSIFIER_FIRST:
            examples, table = work.get(each.audit.examples), each.audit.examples.images.table(work)
            network, reversal = (system.module(work) for system in (each.network, each.system))
            yield from reversed_strips(f"Attacked and reversed down {each.task}", examples, table, network, reversal)
