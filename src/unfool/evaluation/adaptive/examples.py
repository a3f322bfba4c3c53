# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A few images of a ladder to look at: clean, attacked and purified, with what the systems make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from unfool.data.table import Table
from unfool.evaluation.adaptive.purification import purification, top_classes
from unfool.evaluation.adaptive.rung_result import RungResult
from unfool.evaluation.adaptive.static_attack import ReplayedExamples, StaticAttack
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.pictures import png
from unfool.evaluation.results.ladder import Picture, PicturedExample

SHOWN = 3
"""Images of each kind."""
CLASSES = 3
"""Classes whose probabilities are shown, the likeliest first."""


def picture_examples(
    defense: nn.Module, table: Table, rungs: Mapping[str, RungResult], column: str | None = None
) -> list[PicturedExample]:
    """Some of the static examples, as they are replayed, and some of the last adaptive rung.

    Images that the attack perturbed and fooled come first.
    """
    names = table.classes.get(column or table.label_column or "", [])
    sets: dict[str, AdversarialSet] = {}
    for key, result in rungs.items():
        if result.examples is None:
            continue
        if key == StaticAttack.key:
            sets[ReplayedExamples.key] = result.examples
        elif result.rung.adaptive:
            sets = {name: sets[name] for name in sets if name == ReplayedExamples.key} | {key: result.examples}
    return [picture for key, examples in sets.items() for picture in _pictures(defense, table, key, examples, names)]


def _pictures(
    defense: nn.Module, table: Table, rung: str, examples: AdversarialSet, names: Sequence[str]
) -> list[PicturedExample]:
    # Those that the attack had to perturb to fool first, in the order of the set.
    perturbed = (examples.fooled_by_part >= 0) & (examples.distances > 0)
    order = torch.argsort((~perturbed).to(torch.int8), stable=True)[:SHOWN]
    places = (table.ids == examples.ids[order][:, None]).to(torch.int8).argmax(1)
    clean, attacked = table.batch(places).images, examples.images[order]
    # One reversal for both: no prediction depends on batch-mates.
    both = purification(defense, torch.cat([clean, attacked]))
    count = len(order)
    shown = {
        "clean": (clean, both.before[:count]),
        "attacked": (attacked, both.before[count:]),
        "purified": (both.images[count:], both.after[count:]),
    }
    labels = [int(examples.labels[row]) for row in order]
    return [
        PicturedExample(
            rung=rung,
            attack=examples.attack,
            id=int(examples.ids[row]),
            label=names[labels[place]] if names else str(labels[place]),
            path=[] if both.path is None else [round(value, 4) for value in both.path[:, count + place].tolist()],
            pictures=[
                Picture(kind=kind, png=png(images[place]), classes=top_classes(shares[place], names, CLASSES))
                for kind, (images, shares) in shown.items()
            ],
        )
        for place, row in enumerate(order.tolist())
    ]
