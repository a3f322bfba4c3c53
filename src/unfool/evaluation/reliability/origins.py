"""Whether adversarial examples were made from the images of a table: ids and names alone may be those of others.

Legend: N examples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import BATCH_SIZE

ROUNDING = 1e-6
"""By how much a pixel value may differ that another device decoded."""
ROUNDED = 1e-4
"""By how much a stored distance may differ from the distance, relative to it."""


def rows_of(table: Table, ids: Tensor) -> Tensor:
    """The rows (N,) of a table that hold the images of some ids (N,); -1 for those that it lacks."""
    places = {number: place for place, number in enumerate(table.ids.tolist())}
    return torch.tensor([places.get(number, -1) for number in ids.tolist()], dtype=torch.int64)


def misfit(examples: AdversarialSet, table: Table, rows: Tensor, labels: Tensor) -> str | None:
    """Why examples were not made from the images in rows (N,) of a table, whose labels are those of all its images.

    Labels must be equal, and every example as far from its image, in the norm of the threat model, as the set says.
    None where all of it fits; examples whose row is -1 are passed over.
    """
    if tuple(examples.images.shape[1:]) != tuple(table.shape):
        shapes = ("×".join(map(str, shape)) for shape in (examples.images.shape[1:], table.shape))
        return "the set has images of {}, the table of {}".format(*shapes)
    kept = (rows >= 0).nonzero().squeeze(1)
    for some in kept.split(BATCH_SIZE):
        numbers, own, theirs = examples.ids[some], examples.labels[some].cpu(), labels[rows[some]].cpu()
        if (own != theirs).any():
            place = int((own != theirs).nonzero()[0])
            return (
                f"image {int(numbers[place])} has label {int(own[place])} in the set, {int(theirs[place])} in the table"
            )
        delta = (examples.read(some).cpu() - table.batch(rows[some]).images.cpu()).double().abs()
        nearest, farthest = _lengths(delta, ThreatModel.parse(examples.threat))
        stored = examples.distances[some].cpu().double()
        far = (nearest > stored * (1 + ROUNDED)) | (farthest < stored * (1 - ROUNDED))
        if far.any():
            place = int(far.nonzero()[0])
            return (
                f"example {int(numbers[place])} lies {float(nearest[place]):.3g} from that image of the table, and the "
                f"set says {float(stored[place]):.3g}"
            )
    return None


def _lengths(delta: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
    """The least and greatest lengths (B,) of changes (B, C, H, W) that rounding leaves open."""
    return threat.norm((delta - ROUNDING).clamp(min=0)), threat.norm(delta + ROUNDING * (delta != 0))
