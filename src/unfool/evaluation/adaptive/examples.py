"""A few images of a ladder to look at: clean, attacked and purified, with what the systems make of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from unfool.data.table import Table
from unfool.evaluation.adaptive.ladder_result import RungResult
from unfool.evaluation.adaptive.purification import likeliest, png, purification
from unfool.evaluation.adaptive.static_attack import ReplayedExamples, StaticAttack
from unfool.evaluation.crafting.adversarial_set import AdversarialSet

SHOWN = 3
"""Images of each kind."""
CLASSES = 3
"""Classes whose probabilities are shown, the likeliest first."""


def pictured(
    defense: nn.Module, table: Table, rungs: Mapping[str, RungResult], column: str | None = None
) -> list[dict[str, Any]]:
    """Some of the static examples, as they are replayed, and some of the last adaptive rung, as JSON takes them.

    Images that the attack moved and fooled come first. Each picture is clean, attacked (both as the network inside
    sees them) or purified (as the defense sees the attacked one), with the likeliest classes; ``path`` is the pretext
    loss along the reversal, where the defense keeps it.
    """
    names = table.classes.get(column or table.label_column or "", [])
    static = rungs[StaticAttack.key].examples
    sets = {} if static is None else {ReplayedExamples.key: static}
    adaptive = [(key, one.examples) for key, one in rungs.items() if one.rung.adaptive and one.examples is not None]
    sets |= dict(adaptive[-1:])
    return [
        {"rung": key, "attack": examples.attack, **picture}
        for key, examples in sets.items()
        for picture in _triples(defense, table, examples, names)
    ]


def _triples(defense: nn.Module, table: Table, examples: AdversarialSet, names: Sequence[str]) -> list[dict[str, Any]]:
    # Those that the attack had to move to fool first, in the order of the set.
    moved = (examples.fooled_by_part >= 0) & (examples.distances > 0)
    order = torch.argsort((~moved).to(torch.int8), stable=True)[:SHOWN]
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
    return [
        {
            "id": int(examples.ids[row]),
            "label": names[int(examples.labels[row])] if names else str(int(examples.labels[row])),
            "path": [] if both.path is None else [round(value, 4) for value in both.path[:, count + place].tolist()],
            "pictures": [
                {
                    "kind": kind,
                    "png": base64.b64encode(png(images[place])).decode("ascii"),
                    "classes": likeliest(shares[place], names, CLASSES),
                }
                for kind, (images, shares) in shown.items()
            ],
        }
        for place, row in enumerate(order.tolist())
    ]
