# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Stratified choices of rows: every class keeps its share, and a row's draw depends on its id alone.

Each row gets a random score that is a pure function of the streams and its id; a choice takes the lowest scores of
each class. So a subset of a table makes the same choices as the whole, and a larger choice holds the smaller one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from unfool.core.errors import DataError
from unfool.core.streams import Streams


def _ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """The place of each row among the rows of its own class, from 0, by ascending score; (N,) int64."""
    by_score = torch.argsort(scores, stable=True)
    order = by_score[torch.argsort(labels[by_score], stable=True)]
    _, counts = torch.unique_consecutive(labels[order], return_counts=True)
    starts = torch.repeat_interleave(torch.cumsum(counts, 0) - counts, counts)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order)) - starts
    return ranks


def scores(ids: Tensor, streams: Streams, purpose: str) -> Tensor:
    """One random int64 per row, a pure function of the streams, the purpose and the id; (N,)."""
    return streams.named(purpose).bits(ids)


def exactly(labels: Tensor, ids: Tensor, count: int, streams: Streams, purpose: str) -> Tensor:
    """A mask (N,) of ``count`` rows spread over the classes in proportion, by largest remainder.

    Raises DataError unless 0 <= count <= N.
    """
    if not 0 <= count <= len(ids):
        raise DataError(f"{count} of {len(ids)} rows cannot be drawn; give 0 to {len(ids)}")
    _, inverse, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    quotas = sizes.numpy().astype(np.float64) * count / max(len(ids), 1)
    taken = np.floor(quotas).astype(np.int64)
    short = count - int(taken.sum())
    largest = np.argsort(-(quotas - taken), kind="stable")[:short]
    taken[largest] += 1
    return _ranks(scores(ids, streams, purpose), inverse) < torch.from_numpy(taken)[inverse]


def share_of_each(labels: Tensor, ids: Tensor, share: float, streams: Streams, purpose: str) -> Tensor:
    """A mask (N,) of ``share`` of every class, at least one row each; a smaller share lies inside a larger one.

    Raises DataError unless 0 < share <= 1.
    """
    if not 0.0 < share <= 1.0:
        raise DataError(f"a share of {share} of the labels cannot be drawn; give above 0, up to 1 (0.1 is 10 %)")
    _, inverse, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    taken = torch.clamp(torch.round(sizes.double() * share).long(), min=1)
    return _ranks(scores(ids, streams, purpose), inverse) < taken[inverse]


TEST_SHARE = 0.2


def train_and_test(labels: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """Row numbers of a fixed stratified split: a fifth of every class is for testing; a class of one row trains."""
    classes = torch.as_tensor(np.asarray(labels, dtype=np.int64))
    ids = torch.arange(len(classes))
    test = share_of_each(classes, ids, TEST_SHARE, Streams(0).named("folder"), "split")
    test &= torch.bincount(classes)[classes] > 1
    return {"train": (~test).nonzero().flatten().numpy(), "test": test.nonzero().flatten().numpy()}


def in_words(parts: Mapping[str, np.ndarray]) -> str:
    """What was cut for testing, as a warning says it."""
    test, count = len(parts["test"]), sum(map(len, parts.values()))
    return f"{test} of its {count} images are taken as test, the others as train"
