"""Checks of what a model gives for clean images: are these logits, and are they those of the labels?

Legend: B images, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from unfool.evaluation.reliability.model_checks import CERTAIN, FEWEST_IMAGES
from unfool.evaluation.results.reliability import Flag

PROBABLE = 1e-3
"""How far a row of probabilities may be from a sum of 1: half precision's rounding over many classes."""
GUESSED = 0.05
"""Error rate of the tests that an accuracy is above that of guesses."""
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
    """Flag an accuracy that guesses reach which ignore the image, with the cause, or with what is usually wrong then.

    ``others`` are the other label columns of the same images, which the outputs may belong to.
    """
    guess = logits.argmax(1)
    column = next((name for name, other in others.items() if _beats_guessing(guess == other, other, CERTAIN)), None)
    if column is not None:
        cause = f"its outputs agree with column {column!r} instead; give --column {column}"
    elif _another_order(guess, labels):
        cause = "its outputs fit the classes in another order; name them in order with --classes FILE"
    else:
        cause = ""
    text = chance_text(correct, labels, logits.shape[1], cause)
    return None if text is None else Flag(name="chance", text=text, share=int(correct.sum()) / len(correct))


def chance_text(correct: Tensor, labels: Tensor, outputs: int = 0, cause: str = "") -> str | None:
    """What is wrong if images are as ``correct`` (B,) as guesses get that ignore the image; None for any other model.

    The ``cause`` is named where it is known. Guesses take any class at random, or the commonest one every time.
    """
    used, right, count = int(labels.unique().numel()), int(correct.sum()), len(correct)
    if count < FEWEST_IMAGES or len(labels) != count or used < 2 or _beats_guessing(correct, labels, GUESSED):
        return None
    commonest = int(labels.unique(return_counts=True)[1].max())
    guessed = f"which is chance for {used} classes"
    if _chance_of(right, count, 1 / used) < GUESSED:
        guessed = f"and {commonest} are where the commonest of {used} classes is always guessed"
    more = f"the labels use {used} of the model's {outputs:,} outputs: map them to its classes; or "
    causes = cause or (
        f"{more if outputs > 2 * used else ''}check the input scale (--mean, --std, --scale), the order of the "
        "classes, the label column, and that the model was trained"
    )
    return f"{right} of {count} clean images are right, {guessed}: {causes}"


def _beats_guessing(correct: Tensor, labels: Tensor, error: float) -> bool:
    """Whether more images are ``correct`` (B,) than guesses get that ignore the image, by exact tests of an error rate.

    A guess at random gets one in as many as there are classes, and the commonest class its own share: of these very
    images a known number. Where that share is clearly above the others, the model must be shown to be above it, or to
    tell the classes apart, even if guessing the commonest one every time would be right more often: to leave that class
    more often on images of others than on its own, or to be right more often than at random if all classes were equally
    common.
    """
    from scipy.stats import fisher_exact  # here, because it takes long to import

    classes, places, counts = labels.unique(return_inverse=True, return_counts=True)
    right, count, used = int(correct.sum()), len(correct), len(classes)
    if used < 2:
        return False
    commonest = int(counts.max())
    if _chance_of(commonest, count, 1 / used) >= error / used:
        return right > commonest and _chance_of(right, count, 1 / used) < error
    if _chance_of(right, count, commonest / count) < error:
        return True
    own = labels == classes[counts.argmax()]
    left, kept = int((correct & ~own).sum()), int((correct & own).sum())
    table = [[left, count - commonest - left], [commonest - kept, kept]]
    # Its types do not name the p-value.
    if cast("Any", fisher_exact(table, alternative="greater")).pvalue < error:
        return True
    # As many images of each class as the rarest has, and of these the share that is right of the whole class.
    rarest = int(counts.min())
    shares = torch.bincount(places, weights=correct.double(), minlength=used) / counts
    return _chance_of(math.floor(rarest * float(shares.sum()) + 1e-9), rarest * used, 1 / used) < error


def _chance_of(right: int, count: int, share: float) -> float:
    """How likely guesses that are right with a probability of ``share`` get at least so many right."""
    from scipy.stats import binomtest  # here, because it takes long to import

    return float(binomtest(right, count, share, "greater").pvalue)


def _another_order(guess: Tensor, labels: Tensor) -> bool:
    """Whether renumbered guesses are right: the numbering of one half of the images is tried on the other half."""
    from scipy.optimize import linear_sum_assignment  # here, because it takes long to import

    classes = int(max(guess.max(), labels.max())) + 1
    if classes > MOST_REORDERED:
        return False
    half = torch.arange(len(labels), device=labels.device) % 2 == 0
    pairs = torch.bincount(guess[half] * classes + labels[half], minlength=classes * classes)
    order = torch.as_tensor(linear_sum_assignment(pairs.view(classes, classes).cpu().numpy(), maximize=True)[1])
    return _beats_guessing(order.to(guess)[guess[~half]] == labels[~half], labels[~half], CERTAIN)
