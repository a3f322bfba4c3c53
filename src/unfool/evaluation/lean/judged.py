"""A set of examples with which of its images fell: by the attack's word, or of a random model over draws of its own.

Legend: n images of the set.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import Tensor, nn

from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.reliability.over_draws import OverDraws, over_draws


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgedSet:
    """The examples of one step.

    Args:
        examples: The examples.
        draws: How often a random model is right on each; None for a model that is not random.
        cpu_seconds: What crafting and judging took.
        model_images: Images that went through the model for it.
    """

    examples: AdversarialSet
    draws: OverDraws | None
    cpu_seconds: float
    model_images: int

    @property
    def fell(self) -> Tensor:
        """The mask (n,) of the images that fell; of a random model those that are wrong in every draw."""
        return self.examples.fooled_by_part >= 0 if self.draws is None else self.draws.right == 0


def judged(model: nn.Module, examples: AdversarialSet, *, random: bool) -> JudgedSet:
    """The examples, which the model classifies in ten draws if it is random."""
    started = time.process_time()
    draws = over_draws(model, examples) if random else None
    return JudgedSet(
        examples=examples,
        draws=draws,
        cpu_seconds=examples.cpu_seconds + time.process_time() - started,
        model_images=examples.model_images + (0 if draws is None else draws.draws * len(examples)),
    )
