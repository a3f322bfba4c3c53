"""Robust accuracy over the size of the ball and over the attack's steps.

What fools inside a ball lies inside every larger one of the same norm, and who may take many steps may stop after few.
So each point attacks only the images that still stood at the last, and the others are carried: a curve never rises, and
it costs little more than its hardest images. The cost of a point is what that point added.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from unfool.attacks import Attack, ProxySettings, make_attack
from unfool.core.config import parse_settings
from unfool.core.errors import SpecError
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.evaluation.crafting.batches import Report
from unfool.evaluation.crafting.craft import craft
from unfool.evaluation.judge import judge
from unfool.evaluation.records import Records
from unfool.evaluation.statistics.comparison import PER_IMAGE, total


def curve_over_eps(
    model: nn.Module,
    table: Table,
    attack: str,
    norm: str,
    epsilons: Sequence[str],
    *,
    column: str | None = None,
    seed: int = 0,
    proxy: ProxySettings | None = None,
    report: Report | None = None,
) -> list[Records]:
    """Records of one attack, such as ``pgd-20``, at each of ``epsilons``, such as ``["2/255", "4/255"]``, ascending.

    A carried image keeps the loss and the distance at which it was first fooled. ``report`` is told points done and
    points in all. Raises SpecError for epsilons that do not ascend, and what ``make_attack``, ``craft`` and ``judge``
    raise.
    """
    threats = [ThreatModel.parse(f"{norm}:{eps}") for eps in epsilons]
    _check_ascending("epsilons", [threat.eps for threat in threats])
    attacks = [make_attack(attack, threat) for threat in threats]
    return _curve(model, table, attacks, report, column=column, seed=seed, proxy=proxy)


def curve_over_steps(
    model: nn.Module,
    table: Table,
    family: str,
    steps: Sequence[int],
    threat: ThreatModel | str,
    *,
    column: str | None = None,
    seed: int = 0,
    proxy: ProxySettings | None = None,
    report: Report | None = None,
) -> list[Records]:
    """Records of one family of attacks, such as ``pgd`` or ``pgd:restarts=2``, for each number of ``steps``, ascending.

    Every point starts anew on the images that stood, from a random start of its own where the family has one: it is the
    worst case over the attacks up to it. ``report`` and errors are as for ``curve_over_eps``.
    """
    name, settings = parse_settings(family)
    _check_ascending("steps", steps)
    attacks = [make_attack(f"{name}-{count}", threat, settings) for count in steps]
    return _curve(model, table, attacks, report, column=column, seed=seed, proxy=proxy)


def _check_ascending(what: str, values: Sequence[float]) -> None:
    if not len(values) or any(later <= earlier for earlier, later in itertools.pairwise(values)):
        raise SpecError(f"{what} {list(values)} do not ascend; give at least one, smallest first, each once")


def _curve(
    model: nn.Module,
    table: Table,
    attacks: Sequence[Attack],
    report: Report | None,
    **how: Any,
) -> list[Records]:
    """Each attack in turn on the images that stood under those before it."""
    points: list[Records] = []
    for attack in attacks:
        standing = torch.tensor(points[-1].correct).nonzero().flatten() if points else torch.arange(len(table))
        if points and not len(standing):
            point = dataclasses.replace(
                points[-1],
                attack=attack.name,
                threat=str(attack.threat),
                settings=dict(attack.settings),
                cpu_seconds=0.0,
                model_images=0,
                flat=0,
            )
        else:
            examples = craft(model, table.subset(standing), attack, **how)
            point = judge(model, examples)
            if points:
                point = _carried(points[-1], point, standing.numpy())
        points.append(point)
        if report is not None:
            report(len(points), len(attacks))
    return points


def _carried(before: Records, found: Records, rows: np.ndarray) -> Records:
    """``found`` on all images: those beside ``rows`` are as they were before."""
    whole: dict[str, list[Any]] = {}
    for name in PER_IMAGE:
        values = np.array(getattr(before, name))
        if len(values):
            values[rows] = getattr(found, name)
        whole[name] = values.tolist()
    return dataclasses.replace(found, **whole, fooled_by=total([before.fooled_by, found.fooled_by]))
