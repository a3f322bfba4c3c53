"""Intervals for accuracies."""

from __future__ import annotations

import math
from statistics import NormalDist

from unfool.core.errors import SpecError


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (Wilson 1927) for a share of ``correct`` among ``total`` images; shares in [0,1]."""
    if not 0 <= correct <= total or total < 1:
        raise SpecError(f"{correct} correct of {total} images is no share; give 0 ≤ correct ≤ total and total ≥ 1")
    if not 0 < confidence < 1:
        raise SpecError(f"confidence {confidence} is not allowed; give a number between 0 and 1, such as 0.95")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / total
    centre = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    low, high = (centre - half) / scale, (centre + half) / scale
    # Rounding must not leave an end point a hair inside what was observed.
    return (0.0 if correct == 0 else max(0.0, low)), (1.0 if correct == total else min(1.0, high))
