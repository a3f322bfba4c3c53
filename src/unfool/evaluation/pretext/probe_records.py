"""Results of probes in the common form: records, rows, and their curves as charts."""

from __future__ import annotations

from dataclasses import replace

from unfool.core.spec import unknown
from unfool.core.threat import ThreatModel
from unfool.evaluation.intervals import wilson
from unfool.evaluation.records import NO_ATTACK, Records
from unfool.evaluation.results.charts import Chart
from unfool.evaluation.results.rows import Row
from unfool.evaluation.results.study_result import StudyResult
from unfool.training.probing.result import ProbeResult

_SHOWN = {"train": "on an epoch's batches, each judged before its step", "test": "after each epoch"}


def probe_records(
    result: ProbeResult, stage: str, seed: int | None = None, *, split: str = "test", threat: str = "linf:8/255"
) -> Records:
    """Records of one linear probe on a split of the result ("train", "test" or "held_out"), as clean ones.

    Their cost is that of all probes together, which share one pass. ``threat`` only names the threat model. Raises
    SpecError for a stage, seed or split that was not probed.
    """
    probe = result.of(stage, seed)
    if split not in probe.scores:
        raise unknown("split of the probe", split, probe.scores)
    table, scores = result.tables[split], probe.scores[split]
    return Records(
        attack=NO_ATTACK,
        threat=str(ThreatModel.parse(threat)),
        data=table.name,
        split=table.split if split == "test" else split,
        seed=probe.seed,
        ids=table.ids.tolist(),
        correct=scores.correct.tolist(),
        losses=[round(value, 6) for value in scores.losses.tolist()],
        distances=[0.0] * len(table),
        crafted_on=None,
        judged_on=None,
        cpu_seconds=result.cpu_seconds,
        model_images=result.model_images,
        labels=table.labels(result.column).tolist(),
    )


def probe_results(result: ProbeResult, name: str) -> StudyResult:
    """The results of probes, which `unfool report` shows as a page; ``name`` is the probed network's."""
    rows = []
    for stage in result.stages:
        for seed in result.seeds:
            for split in result.of(stage, seed).scores:
                records = probe_records(result, stage, seed, split=split)
                rows.append(records.row(name, settings={"stage": stage, "probe": "linear"}))
        if stage in result.neighbours:
            rows.append(_by_neighbours(result, stage, probe_records(result, stage).row(name)))
    return StudyResult(system=name, rows=rows, charts=[_curves(result, split) for split in _SHOWN])


def _by_neighbours(result: ProbeResult, stage: str, row: Row) -> Row:
    """The row of a linear probe as that of the nearest-neighbour probe, which has no loss and no seed."""
    right = result.neighbours[stage]
    low, high = wilson(int(right.sum()), len(right))
    return replace(
        row,
        seed=0,
        settings={"stage": stage, "probe": f"{result.settings.neighbours} nearest neighbours"},
        accuracy=round(float(right.double().mean()), 6),
        low=round(low, 6),
        high=round(high, 6),
        loss=None,
    )


def _curves(result: ProbeResult, split: str) -> Chart:
    """Accuracy over the epochs by stage, of the first seed."""
    series: dict[str, list[tuple[int, float]]] = {}
    for stage in result.stages:
        curve: list[float] = getattr(result.of(stage), f"{split}_curve")
        series[stage] = [(epoch, round(share, 6)) for epoch, share in enumerate(curve, 1)]
    return Chart(
        title=f"Linear probes, {split} accuracy",
        x="epoch",
        y="accuracy",
        kind="line",
        series=series,
        caption=f"Accuracy {_SHOWN[split]}, seed {result.seeds[0]}.",
    )
