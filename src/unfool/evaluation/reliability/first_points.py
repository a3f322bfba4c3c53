"""Whether a decision-based attack had a point of another class to begin with: without one it attacks nothing.

Legend: B images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from unfool.attacks import Attack
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.identity import identity
from unfool.evaluation.reliability.flags import marked
from unfool.evaluation.results.reliability import Flag


def no_first_point(
    model: nn.Module, ids: Tensor, correct: Tensor, attacks: Sequence[Attack], sets: Iterable[AdversarialSet]
) -> Flag | None:
    """Flag images (B,), ``correct`` without an attack, that a decision-based attack on the model left as they were."""
    names = {
        (attack.name, str(attack.threat))
        for attack in attacks
        if attack.threat.eps and "decisions" in attack.learns_from
    }
    ids = ids.cpu()[correct.cpu()]
    if not names or not len(ids):
        return None
    own = identity(model)
    for examples in sets:
        if examples.crafted_on != own or (examples.attack, examples.threat) not in names:
            continue
        # An image with a first point is moved towards it, if only to the edge of the ball.
        unmoved = examples.ids[(examples.fooled_by_part < 0) & (examples.distances == 0)]
        mask = torch.isin(ids, unmoved)
        if mask.any():
            text = (
                f"{examples.attack} had nothing to begin with for {{count}} of {{total}} images: all points that it "
                "tried got their class, so that they stand without having been attacked; give it more steps, and "
                "images of all classes"
            )
            return marked("no-first-point", mask, ids, text)
    return None
