# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
"""Sets of permutations for jigsaw puzzles: far from each other, or far from the original arrangement.

Far is meant in Hamming distance, the number of places where two permutations differ.

Legend: N permutations of T things.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.core.streams import Streams

PermutationRule = Literal["pairwise", "original"]

MOST_THINGS = 9
"""Every permutation is looked at: 362,880 of nine things, and ten times as many of ten."""


def permutation_set(things: int, count: int, rule: PermutationRule = "pairwise", seed: int = 0) -> Tensor:
    """``count`` different permutations of 0 … things - 1, (count, things) int64, the same for the same seed.

    ``pairwise``: each next one has the greatest least distance to those before it. Noroozi & Favaro ("Unsupervised
    Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016, algorithm 1) take the greatest sum of
    distances instead, which lets two permutations of a set come close; this departs from it. The seed relabels things
    and places, which keeps every distance: so no seed gives a worse set than another. For four things no set of any
    count has a greater least distance.

    ``original``: those farthest from 0 … things - 1 itself, drawn among the equally far; two may be alike.

    Raises SpecError for more things than `MOST_THINGS`, for more permutations than there are, and for another rule.
    """
    if not 2 <= things <= MOST_THINGS:
        raise SpecError(f"permutations of {things} things are not offered; give 2 to {MOST_THINGS}")
    if not 1 <= count <= math.factorial(things):
        raise SpecError(
            f"{count} permutations of {things} things do not exist; give 1 to {math.factorial(things)} of them"
        )
    streams, draw = Streams(seed).named("permutations"), torch.arange(2)
    if rule == "pairwise":
        places, labels = streams.permutation(draw, things)
        return labels[_rows(_apart(things, count))[:, places]]
    if rule == "original":
        every = _all_permutations(things)
        every = every[:, streams.permutation(draw[:1], every.shape[1])[0].numpy()]
        nearness = things - hamming(every, np.arange(things))
        return _rows(every[:, nearness.argsort(kind="stable")[:count]])
    raise unknown("rule of a permutation set", str(rule), ("pairwise", "original"))


def _rows(permutations_TN: np.ndarray) -> Tensor:
    """Permutations as a tensor of their own, (N, T) int64."""
    return torch.from_numpy(permutations_TN.T.astype(np.int64))


def hamming(permutations_TN: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distances (N,) uint8 of permutations, one a column, from another one, (T,)."""
    return (permutations_TN != other[:, None]).sum(0, dtype=np.uint8)


@functools.cache
def _all_permutations(things: int) -> np.ndarray:
    """All permutations in lexicographic order, one a column: (things, things!) uint8."""
    permutations = np.zeros((0, 1), dtype=np.uint8)
    for size in range(1, things + 1):
        # Before a permutation of one thing fewer stands each thing in turn, and things from it on move up by one.
        first = np.arange(size, dtype=np.uint8)[:, None]
        rest = permutations[:, None] + (permutations[:, None] >= first)
        permutations = np.concatenate([np.broadcast_to(first, (1, *rest.shape[1:])), rest]).reshape(size, -1)
    return permutations


@functools.cache
def _apart(things: int, count: int) -> np.ndarray:
    """The greedy set, (things, count): from the identity on, the first in lexicographic order of those equally far.

    Measured, the identity and this order matter: from a shuffled list most sets of four things end at distance 2 where
    3 can be had.
    """
    every = _all_permutations(things)
    least = np.full(every.shape[1], things + 1, dtype=np.uint8)
    chosen = [0]
    while len(chosen) < count:
        np.minimum(least, hamming(every, every[:, chosen[-1]]), out=least)
        chosen.append(int(least.argmax()))
    return every[:, chosen]
