"""The graphs of system C: labels against robustness, tasks, what moves, what is learnt without labels, and the cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unfool.evaluation import Records
from unfool.studies.chart import chart
from unfool.studies.transfer_claims import Found, Probes, mean_accuracy
from unfool.studies.transfer_measures import AS_THEY_ARE, FGSM, NATURAL, PGD, STANDARDISED, STRONG, Measured
from unfool.studies.transfer_networks import WORKFLOW, Plan, moved_words
from unfool.studies.transfer_scales import (
    COMPARED,
    CONTROL,
    LEARNT,
    PERTURBED,
    PRETRAININGS,
    QUARTER,
    SHARES,
    SIMCLR,
    SOURCE,
    SOURCE_TASKS,
    Scale,
)
from unfool.training import TrainedRun

_ATTACKS = (NATURAL, FGSM, PGD, STRONG)


def charts(
    settings: Scale,
    found: Found,
    probes: Probes,
    workflow: tuple[TrainedRun, TrainedRun],
) -> list[dict[str, Any]]:
    """All of them, as a results file carries them."""
    drawn = [_labels(found, learnt) for learnt in LEARNT]
    return [*drawn, _tasks(found), _moved(settings, found), _probes(probes), _costs(found, workflow)]


def _labels(found: Found, learnt: str) -> dict[str, Any]:
    """The source's first table as lines."""
    place = 2 * LEARNT.index(learnt)
    control = found[Plan(model=CONTROL, learnt=learnt, moves="all")]
    series: dict[str, list[list[Any]]] = {}
    for name in PRETRAININGS:
        series[f"{name}, FGSM"] = [
            [100 * share, *_share(found[Plan(model=name, share=share, learnt=learnt)], FGSM)] for share in SHARES
        ]
    series[f"{CONTROL}, 100 %, FGSM"] = [[100 * share, *_share(control, FGSM)] for share in SHARES]
    series["source: simclr, FGSM"] = [[100 * share, SOURCE[SIMCLR, share][place + 1] / 100] for share in SHARES]
    return chart(
        f"Labels against robustness, fine-tuned on {learnt}",
        "share of the labels in %",
        "accuracy under FGSM",
        "line",
        series,
        "The added layer alone is fine-tuned; without pretraining all layers are, for as many steps, on all labels. "
        "Bands: 95 % interval, or lowest to highest seed.",
    )


def _tasks(found: Found) -> dict[str, Any]:
    """The source's second table, and what it left out."""
    control = found[Plan(model=CONTROL, moves="all")]
    networks = {name: found[Plan(model=name, share=COMPARED)] for name in PRETRAININGS}
    networks |= {CONTROL: control, QUARTER: found[Plan(model=QUARTER, moves="all")]}
    series = {
        control[0].records[attack].attack: [[name, *_share(members, attack)] for name, members in networks.items()]
        for attack in (FGSM, PGD, STRONG)
    }
    series["source, FGSM"] = [[name, value / 100] for name, value in SOURCE_TASKS.items()]
    return chart(
        f"Pretraining tasks, fine-tuned on {PERTURBED}",
        "pretraining",
        "accuracy under attack",
        "bars",
        series,
        f"{COMPARED:.0%} of the labels and the added layer alone; the two without pretraining have all labels and move "
        "all layers. Whiskers: 95 % interval, or lowest to highest seed.",
    )


def _moved(settings: Scale, found: Found) -> dict[str, Any]:
    series: dict[str, list[list[Any]]] = {}
    for attack in _ATTACKS:
        for moves in ("heads", *settings.policies):
            members = found[Plan(model=SIMCLR, share=COMPARED, moves=moves)]
            word = "clean" if attack == NATURAL else members[0].records[attack].attack
            series.setdefault(word, []).append([moved_words(moves), *_share(members, attack)])
    return chart(
        f"What moves in fine-tuning on {PERTURBED}",
        "what moves",
        "accuracy",
        "bars",
        series,
        f"SimCLR, {COMPARED:.0%} of the labels.",
    )


def _probes(probes: Probes) -> dict[str, Any]:
    series = {
        how: [[name, *_spread(records)] for (name, told), records in probes.items() if told == how]
        for how in (AS_THEY_ARE, STANDARDISED)
    }
    text = "A linear layer on the last stage of each frozen trunk, trained on all labels. Whiskers: lowest to highest."
    return chart("What was learnt without labels", "pretraining", "accuracy", "bars", series, text)


def _costs(found: Found, workflow: tuple[TrainedRun, TrainedRun]) -> dict[str, Any]:
    pretraining, _ = workflow
    tuned, control = found[WORKFLOW][0], found[Plan(model=CONTROL, moves="all")][0]
    quarter = found[Plan(model=QUARTER, moves="all")][0]
    parts = {
        "simclr: pretraining": pretraining.model_images,
        "simclr: fine-tuning": tuned.model_images,
        f"{CONTROL}, as many steps": control.model_images,
        QUARTER: quarter.model_images,
    }
    return chart(
        "Cost",
        "run",
        "million images",
        "bars",
        {"training": [[name, count / 1e6] for name, count in parts.items()]},
        "Counted exactly: images that went forward through the network in training, views and crafting included.",
    )


def _share(members: Sequence[Measured], attack: str) -> list[float]:
    return _spread([one.records[attack] for one in members if attack in one.records])


def _spread(records: Sequence[Records]) -> list[float]:
    """The mean, with the interval of a single one or the ends of several."""
    values = [one.accuracy for one in records]
    low, high = records[0].interval() if len(records) == 1 else (min(values), max(values))
    return [round(value, 6) for value in (mean_accuracy(records), low, high)]
