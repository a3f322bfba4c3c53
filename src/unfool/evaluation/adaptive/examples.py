"""A few images of a ladder to look at: clean, attacked and purified, with what the systems make of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from unfool.data.table import Table
from unfool.evaluation.adaptive.purification import likeliest, png, purification
from unfool.evaluation.crafting.adversarial_set import AdversarialSet

SHOWN = 3
"""Images of each kind."""
CLASSES = 3
"""Classes whose probabilities are told, the likeliest first."""


def pictured(
    defense: nn.Module, table: Table, sets: Mapping[str, AdversarialSet], column: str | None = None
) -> list[dict[str, Any]]:
    """Some of the examples of (a), as (b) replays them, and of the last adaptive rung, as JSON takes them.

    ``sets`` are by letter; images that the attack moved and fooled come first. Each picture is clean, attacked (both
    as the network inside sees them) or purified (as the defense sees the attacked one), with the likeliest classes;
    ``path`` is the pretext loss along the reversal, where the defense tells it.
    """
    names = table.classes.get(column or table.label_column or "", [])
    found: list[dict[str, Any]] = []
    for letter in dict.fromkeys(("a", list(sets)[-1])):
        told = {"rung": "b" if letter == "a" else letter, "attack": sets[letter].attack}
        found += [told | one for one in _triples(defense, table, sets[letter], names)]
    return found


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
