# pyright: reportMissingTypeStubs=false
"""A gate's threshold: an order statistic of the losses of clean images that nothing was trained on.

It is chosen so that the rate of false triggers on fresh clean images exceeds the stated one with a small, known
probability.

Legend: n clean images to calibrate on.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from unfool.core.errors import NonFiniteError, SpecError

CONFIDENCE = 0.95


def fewest_images(rate: float, confidence: float = CONFIDENCE) -> int:
    """How many clean images can show a false-trigger rate at least; SpecError as `calibrate_threshold`."""
    for word, value in (("rate", rate), ("confidence", confidence)):
        if not 0.0 < value < 1.0:
            raise SpecError(f"{word} {value} of a gate is not allowed; give a number between 0 and 1")
    return math.ceil(math.log1p(-confidence) / math.log1p(-rate))


def calibrate_threshold(losses: Tensor, rate: float, confidence: float = CONFIDENCE) -> float:
    """The k-th smallest of n clean losses: above it lie more than ``rate`` of all clean images with a chance of at most
    1 - ``confidence``.

    The share of clean images above the k-th of n order statistics is Beta(n - k + 1, k) for any continuous loss (David
    & Nagaraja, "Order Statistics", 2003, section 2.3), conservatively so for one with ties; k is the smallest that will
    do.

    Args:
        losses: (n,), those of the clean images.
        rate: The rate of false triggers, between 0 and 1.
        confidence: The confidence that the rate is kept, between 0 and 1.

    Raises:
        SpecError: For a rate or a confidence outside (0,1), and for too few losses.
        NonFiniteError: For NaN or infinite losses.
    """
    needed = fewest_images(rate, confidence)
    if not torch.isfinite(losses).all():
        raise NonFiniteError("a gate was given NaN or infinite losses of clean images; check the network's weights")
    count = len(losses)
    if count < needed:
        raise SpecError(
            f"{count} clean images cannot show a false-trigger rate of {rate:g} with confidence {confidence:g}; "
            f"give at least {needed}"
        )
    ranks = np.arange(1, count + 1)
    # P(Beta(n - k + 1, k) > rate) is the chance that at most n - k of n draws lie among the ``rate`` highest.
    from scipy.special import bdtr  # here, because it takes long to import

    exceeded = bdtr(count - ranks, count, rate)
    rank = int(ranks[exceeded <= 1.0 - confidence][0])
    return float(losses.detach().sort().values[rank - 1])
