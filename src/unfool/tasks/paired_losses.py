"""What a classifier learns from images and their adversarial examples together: TRADES and MART.

Legend: n images, K classes; ``clean`` and ``perturbed`` are the logits (n, K) of the images and of their adversarial
examples, ``targets`` (n,) the labels. Gradients flow through both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from unfool.core.batch import Views

PairedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits of the images, of their examples, and targets → losses (n,)."""


@runtime_checkable
class Classifies(Protocol):
    """A task that predicts classes, and so can be trained on pairs."""

    def paired_losses(self, loss: PairedLoss, clean: Tensor, perturbed: Tensor, views: Views) -> Tensor:
        """Losses (B,) from the features (V·B, ...) of the views as they were and perturbed."""
        ...


def divergence(clean: Tensor, perturbed: Tensor) -> Tensor:
    """The Kullback-Leibler divergences (n,) KL(p(clean) ‖ p(perturbed)) in nats."""
    return F.kl_div(perturbed.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True).sum(1)


def trades(clean: Tensor, perturbed: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Cross-entropy of the image plus ``beta`` times the divergence to its example, (n,).

    TRADES (Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML 2019, equation 3;
    ``beta`` is its 1/λ) with the surrogates of the authors' experiments.
    """
    return F.cross_entropy(clean, targets, reduction="none") + beta * divergence(clean, perturbed)


def mart(clean: Tensor, perturbed: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Boosted cross-entropy of the example plus ``beta`` times the divergence, weighted by 1 - p_y(image), (n,).

    MART (Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified Examples", ICLR 2020,
    equation 12; ``beta`` is its λ). The boost is -log(1 - max over wrong classes of p_k(example)), computed as a
    logarithm of the other classes' sum, where the authors add constants to keep it finite.
    """
    log_perturbed = perturbed.log_softmax(1)
    wrong = log_perturbed.detach().scatter(1, targets[:, None], -torch.inf).argmax(1, keepdim=True)
    boost = -log_perturbed.scatter(1, wrong, -torch.inf).logsumexp(1)
    doubt = -torch.expm1(clean.log_softmax(1).gather(1, targets[:, None]).squeeze(1))
    return F.nll_loss(log_perturbed, targets, reduction="none") + boost + beta * divergence(clean, perturbed) * doubt
