"""An adversarial-training method: the mean of the losses on clean and on perturbed views, and logits held together."""

import torch.nn.functional as F

from unfool.training.adversarial.methods import ADVERSARIAL_METHODS, AdversarialMethod


def logit_pairing(clean, perturbed, labels, beta):
    """Adversarial logit pairing (Kannan et al. 2018): cross-entropy of both, and the distance of their logits."""
    both = F.cross_entropy(clean, labels, reduction="none") + F.cross_entropy(perturbed, labels, reduction="none")
    return both / 2 + beta * (clean - perturbed).square().mean(1)


ADVERSARIAL_METHODS.add("logit-pairing")(
    AdversarialMethod(
        description="cross-entropy of clean and perturbed views, and their logits' distance", learns=logit_pairing
    )
)
ADVERSARIAL_METHODS.add("half-clean")(
    AdversarialMethod(
        description="half of the loss from clean views", combines=lambda clean, perturbed, _: (clean + perturbed) / 2
    )
)
