"""Successive halving: which settings of a sweep go on, decided as soon as it is certain.

Settings are trained to rungs, each a longer part of the whole training. Of the n settings on a rung the best n / factor
go on to the next, at least one (Jamieson & Talwalkar, AISTATS 2016; Li et al., "A System for Massively Parallel
Hyperparameter Tuning", MLSys 2020, Algorithm 1). No setting waits for a whole rung: it goes on once so few of the
others can still be better that it is among the best whatever they score. So nothing waits for stragglers that cannot
matter, as in the paper's asynchronous form (Algorithm 2, ASHA). Unlike there, where the best of those that came first
go on, the outcome depends on no order: one process, eight and several machines train the same runs to the same step.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Setting = TypeVar("Setting", bound=Hashable)


def places_on(rungs: int, settings: int, factor: int) -> list[int]:
    """How many settings are trained to each rung, and at last to the end."""
    places = [settings]
    for _ in range(rungs):
        places.append(max(1, places[-1] // factor))
    return places


def levels(scores: Mapping[Setting, Sequence[float]], rungs: int, factor: int) -> dict[Setting, int]:
    """How far each setting may be trained by now: to the rung of that number, or to the end (number ``rungs``).

    Args:
        scores: Of every setting, its scores on the rungs that it has reached, from the first one on; higher is better.
            Of equal ones the setting that comes first in the mapping is the better.
        rungs: How many there are below the end.
        factor: One in so many settings goes on from a rung.
    """
    places = places_on(rungs, len(scores), factor)
    level = dict.fromkeys(scores, 0)
    for rung in range(rungs):
        here = [setting for setting in scores if level[setting] == rung and len(scores[setting]) > rung]
        here.sort(key=lambda setting: -scores[setting][rung])  # stable: of equal scores the first
        unknown = places[rung] - len(here)
        for setting in here[: max(0, places[rung + 1] - unknown)]:
            level[setting] = rung + 1
    return level
