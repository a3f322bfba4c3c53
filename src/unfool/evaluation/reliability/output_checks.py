"""Checks of what a model gives for clean images: are these logits, and are they those of the labels?

Legend: B images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unfool.evaluation.reliability.model_checks import CERTAIN, FEWEST_IMAGES
from unfool.evaluation.results.reliability import Flag

PROBABLE = 1e-3
"""How far a row of probabilities may be from a sum of 1: half precision's rounding over many classes."""
MOST_REORDERED = 1000
"""Classes up to which another order of them is looked for."""


def probabilities(logits: Tensor) -> Flag | None:
    """Flag outputs (B, K) that all lie in [0,1] and sum to 1, or of one logit, beside which there is 0."""
    inside = ((logits >= 0) & (logits <= 1)).all()
    if inside and logits.shape[1] == 2 and not logits[:, 0].any():
        text = (
            "the model gives one number between 0 and 1 instead of a logit: above 0, all images get class 1; leave out "
            "its sigmoid"
        )
        return Flag(name="probabilities", text=text)
    if not (inside and ((logits.sum(1) - 1).abs() <= PROBABLE).all()):
        return None
    text = (
        "the model gives probabilities instead of logits: their cross-entropy saturates, and gradients vanish; "
        "leave out its softmax"
    )
    return Flag(name="probabilities", text=text)


def chance(logits: Tensor, labels: Tensor, correct: Tensor, others: Mapping[str, Tensor]) -> Flag | None:
    """Flag an accuracy on clean images that guessing reaches, with the cause, or with what is usually wrong then.

    ``others`` are the other label columns of the same images, which the outputs may belong to.
    """
    right, used = int(correct.sum()), int(labels.unique().numel())
    guess = logits.argmax(1)
    column = next((name for name, other in others.items() if _beats_chance(guess, other)), None)
    if column is not None:
        cause = f"its outputs agree with column {column!r} instead; give --column {column}"
    elif _another_order(guess, labels):
        cause = "its outputs fit the classes in another order; name them in order with --classes FILE"
    else:
        cause = ""
    text = chance_text(right, len(correct), used, logits.shape[1], cause)
    return None if text is None else Flag(name="chance", text=text, share=right / len(correct))


def chance_text(right: int, count: int, used: int, outputs: int = 0, cause: str = "") -> str | None:
    """What is wrong with an accuracy that guessing reaches: its ``cause`` where it is known; None for any other."""
    from scipy.stats import binomtest  # here, because it takes long to import

    # At chance as far as these images can tell: guessing gets at least as many right in 5 % of all draws.
    if count < FEWEST_IMAGES or used < 2 or binomtest(right, count, 1 / used, "greater").pvalue < 0.05:
        return None
    more = f"the labels use {used} of the model's {outputs:,} outputs: map them to its classes; or "
    causes = cause or (
        f"{more if outputs > 2 * used else ''}check the input scale (--mean, --std, --scale), the order of the "
        "classes, the label column, and that the model was trained"
    )
    return f"{right} of {count} clean images are right, which is chance for {used} classes: {causes}"


def _beats_chance(guess: Tensor, labels: Tensor) -> bool:
    """Whether guesses (B,) agree with labels (B,) much more often than by chance."""
    from scipy.stats import binomtest  # here, because it takes long to import

    used, right = int(labels.unique().numel()), int((guess == labels).sum())
    return used > 1 and bool(binomtest(right, len(labels), 1 / used, "greater").pvalue < CERTAIN)


def _another_order(guess: Tensor, labels: Tensor) -> bool:
    """Whether renumbered guesses are right: the numbering of one half of the images is tried on the other half."""
    from scipy.optimize import linear_sum_assignment  # here, because it takes long to import

    classes = int(max(guess.max(), labels.max())) + 1
    if classes > MOST_REORDERED:
        return False
    half = torch.arange(len(labels), device=labels.device) % 2 == 0
    pairs = torch.bincount(guess[half] * classes + labels[half], minlength=classes * classes)
    order = torch.as_tensor(linear_sum_assignment(pairs.view(classes, classes).cpu().numpy(), maximize=True)[1])
    return _beats_chance(order.to(guess)[guess[~half]], labels[~half])
