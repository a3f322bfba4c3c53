"""Robust accuracy over the size of the ball and over the attack's steps.

An example that fools within a ball lies within every larger ball of the same norm, and an attack of many steps may stop
after few. So each point attacks only the images that no point before it fooled, and keeps the outcomes of the others: a
curve never rises, and it costs little more than its hardest images. The cost of a point is what that point added. Where
it matters which images are attacked together, each point attacks all of them, and those that fell before stay fallen.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import nn

from unfool.attacks import Attack, Lean, MinimumNormAttack, ProxySettings, make_attack
from unfool.core.config import configured, parse_settings
from unfool.core.errors import SpecError
from unfool.core.progress import Progress, silent
from unfool.core.spec import parse_whole, write_number
from unfool.core.threat import ThreatModel
from unfool.data.as_table import TableLike, as_table
from unfool.data.table import Table
from unfool.evaluation.classify import classify
from unfool.evaluation.crafting.batches import BATCH_SIZE, own_batch_size
from unfool.evaluation.crafting.chosen_attacks import AttackLike, choose_attack, within
from unfool.evaluation.crafting.craft import craft
from unfool.evaluation.minimum_norms import BOUND, minimum_norms
from unfool.evaluation.records import Records
from unfool.evaluation.results.rows import CURVE, CURVE_BOUND
from unfool.evaluation.statistics.comparison import PER_IMAGE, total


@configured
class CurvePoints:
    """Where a curve is evaluated: in balls of several sizes, or after several numbers of steps.

    Raises:
        SpecError: Both or neither, threat models of several norms, or points that do not ascend.

    Example:
        >>> from unfool import CurvePoints
        >>> CurvePoints(steps=(1, 10, 100)).over
        'steps'
        >>> [str(threat) for threat in CurvePoints.parse("eps=2/255,8/255", "linf").threats]
        ['linf:2/255', 'linf:8/255']
    """

    threats: tuple[ThreatModel, ...] = Field(default=(), description="Threat models of one norm, eps ascending.")
    steps: tuple[int, ...] = Field(default=(), description="Numbers of steps, ascending.")

    def __post_init__(self) -> None:
        if bool(self.threats) == bool(self.steps):
            raise SpecError("a curve is over eps or over steps; give threats or steps, and not both")
        if len({threat.norm_name for threat in self.threats}) > 1:
            raise SpecError(f"a curve over eps is of one norm; these are {', '.join(map(str, self.threats))}")
        _check_ascending(self.over, [threat.eps for threat in self.threats] or self.steps)

    def __str__(self) -> str:
        return f"{self.over}={','.join(map(str, [write_number(threat.eps) for threat in self.threats] or self.steps))}"

    @property
    def over(self) -> str:
        """What the curve runs over: eps or steps."""
        return "eps" if self.threats else "steps"

    @classmethod
    def parse(cls, text: str, norm: str = "linf") -> CurvePoints:
        """Read ``eps=2/255,4/255``, in a norm, or ``steps=1,10,100``; raises SpecError."""
        over, equals, values = text.partition("=")
        if over not in ("eps", "steps") or not equals:
            raise SpecError(f"curve {text!r} is not understood; write eps=2/255,4/255,8/255 or steps=1,10,100")
        points = [value.strip() for value in values.split(",")]
        if over == "steps":
            return cls(steps=tuple(parse_whole(point, "a point of the curve steps=1,10,100,") for point in points))
        return cls(threats=tuple(ThreatModel.parse(f"{norm}:{point}") for point in points))


def curve(
    model: nn.Module,
    data: TableLike,
    attack: AttackLike,
    points: CurvePoints,
    *,
    threat: ThreatModel | str | None = None,
    column: str | None = None,
    seed: int = 0,
    proxy: ProxySettings | None = None,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> list[Records]:
    """Records of one attack, such as ``pgd-20``, at each of ``points``.

    A fooled image keeps the loss and the distance at which it was first fooled. Over steps, every point attacks the
    other images from the beginning, from a random start of its own if the attack has one: the point is the worst case
    of the attacks up to it. A minimum-norm attack such as ``fmn`` runs once for all eps (`minimum_norms`). The other
    arguments and errors are those of `craft`; SpecError for an attack without steps.
    """
    if points.threats:
        free = _minimum_norm(attack, points.threats[0])
        if free is not None:
            distances = minimum_norms(
                model, data, free, column=column, seed=seed, proxy=proxy, batch_size=batch_size, progress=progress
            )
            first, *others = (distances.records(threat) for threat in points.threats)
            # The one run is paid once.
            return [first, *(dataclasses.replace(each, cpu_seconds=0.0, model_images=0) for each in others)]
        attacks = [within(attack, point) for point in points.threats]
    else:
        attacks = [_of_steps(attack, count, threat) for count in points.steps]
    table = as_table(data)
    records: list[Records] = []
    for each in attacks:
        records.append(
            _point(model, table, each, records[-1:], column=column, seed=seed, proxy=proxy, batch_size=batch_size)
        )
        progress(f"curve over {points.over}", len(records), len(attacks))
    return records


def row_settings(attack: Attack, points: CurvePoints) -> dict[str, str]:
    """What the rows of a curve say of themselves."""
    one_run = bool(points.threats) and isinstance(attack, MinimumNormAttack)
    return {CURVE: f"over {points.over}", **({CURVE_BOUND: BOUND} if one_run else {})}


def _minimum_norm(attack: AttackLike, threat: ThreatModel) -> MinimumNormAttack | None:
    """The attack in the norm of a curve, if it looks for the nearest examples."""
    chosen = choose_attack(attack).attack if not isinstance(attack, str) else make_attack(attack, threat)
    if not isinstance(chosen, MinimumNormAttack):
        return None
    return dataclasses.replace(chosen, threat=threat)


def _of_steps(attack: AttackLike, steps: int, threat: ThreatModel | str | None) -> Attack:
    """An attack with another number of steps; its other settings stay."""
    if isinstance(attack, str) and "steps" in parse_settings(attack)[1]:
        raise SpecError(f"attack {attack!r} sets its steps, and so does the curve; leave them out of the attack")
    usual = choose_attack(attack, threat).attack
    if "steps" not in usual.setting_names():
        raise SpecError(f"attack {usual.name} has no steps; give one that has, such as pgd, to a curve over steps")
    family = re.sub(r"-\d+$", "", usual.name)
    return dataclasses.replace(usual, steps=steps, label=f"{family}-{steps}")


def _check_ascending(what: str, values: Sequence[float]) -> None:
    if any(later <= earlier for earlier, later in itertools.pairwise(values)):
        raise SpecError(f"{what} {list(values)} do not ascend; give at least one, smallest first, each once")


def _point(
    model: nn.Module,
    table: Table,
    attack: Attack,
    before: Sequence[Records],
    *,
    column: str | None,
    seed: int,
    proxy: ProxySettings | None,
    batch_size: int | None,
) -> Records:
    """Records of an attack on the images that were not fooled at the point ``before``, with the others as they were."""
    standing = torch.tensor(before[0].correct) if before else torch.ones(len(table), dtype=torch.bool)
    if not before or standing.any():
        # Lean bounds what it left out as a share of what it was given, and some models look at batch-mates.
        together = isinstance(attack, Lean) or own_batch_size(model) is not None
        attacked = table if together else table.subset(standing)
        examples = craft(
            model, attacked, attack, column=column, seed=seed, proxy=proxy, batch_size=batch_size, others=table
        )
        if together:
            # An image counts where it fell first.
            by_part, flat = examples.fooled_by_part, examples.zero_gradient
            examples = dataclasses.replace(
                examples, fooled_by_part=by_part.where(standing, -1), zero_gradient=flat & standing
            )
        records = classify(model, examples, batch_size=batch_size or BATCH_SIZE)
        return _carried(before[0], records, standing.numpy()) if before else records
    return dataclasses.replace(
        before[0],
        attack=attack.name,
        threat=str(attack.threat),
        settings=dict(attack.settings),
        cpu_seconds=0.0,
        model_images=0,
        zero_gradient=0,
    )


def _carried(before: Records, records: Records, standing: np.ndarray) -> Records:
    """Records of all images: of those ``standing`` (N,) the new ones, which may hold the others too."""
    whole: dict[str, list[Any]] = {}
    for name in PER_IMAGE:
        values = np.array(getattr(before, name))
        if len(values):
            new = np.array(getattr(records, name))
            values[standing] = new[standing] if len(new) == len(values) else new
        whole[name] = values.tolist()
    return dataclasses.replace(records, **whole, fooled_by=total([before.fooled_by, records.fooled_by]))
