"""A random model judged over several draws: how many images are right on average, and how many in every draw.

Legend: N images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.evaluation.classify import classify_or_read
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import BATCH_SIZE
from unfool.evaluation.intervals import mean_interval, wilson
from unfool.evaluation.records import Records
from unfool.evaluation.results.rows import Row, Share
from unfool.models.surrogates.pinned import pinned_draws

DRAWS = 10
"""Draws that a random model is judged over."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OverDraws:
    """How often each image was classified correctly.

    Args:
        ids: Ids of the images (N,), int64.
        right: In how many draws each image was right (N,), int64.
        draws: How many draws there were.

    Example:
        >>> from unfool.evaluation.reliability.over_draws import OverDraws
        >>> judged = OverDraws(ids=torch.arange(4), right=torch.tensor([10, 10, 5, 0]), draws=10)
        >>> judged.mean, judged.worst
        (0.625, 0.5)
    """

    ids: Tensor
    right: Tensor
    draws: int

    @property
    def mean(self) -> float:
        """The accuracy of a draw on average."""
        return float(self.right.double().mean()) / self.draws

    def mean_interval(self) -> tuple[float, float]:
        """95 % normal interval of the mean, over the images; Wilson's for as many images where all have the same share.

        It reaches as high as that of the images that are right in every draw, and as low as that of those that are
        right in any, since the mean lies between the two.
        """
        count, shares = len(self.right), self.right.double() / self.draws
        if bool((self.right == self.right[0]).all()):
            return wilson(round(self.mean * count), count)
        _, low, high = mean_interval(shares.numpy())
        least, _ = wilson(int((self.right > 0).sum()), count)
        _, most = wilson(self.always_right, count)
        return max(0.0, min(low, least)), min(1.0, max(high, most))

    @property
    def always_right(self) -> int:
        """How many images are right in every draw."""
        return int((self.right == self.draws).sum())

    @property
    def worst(self) -> float:
        """The share of the images that are right in every draw: what an attacker leaves who may try as often."""
        return self.always_right / len(self.right)

    @property
    def every_draw(self) -> Share:
        """The worst with Wilson's interval, rounded as results files are."""
        low, high = wilson(self.always_right, len(self.right))
        return Share(accuracy=round(self.worst, 6), low=round(low, 6), high=round(high, 6), n=len(self.right))

    def sentence(self) -> str:
        """Both with their intervals, in words."""
        low, high = self.mean_interval()
        worst_low, worst_high = wilson(self.always_right, len(self.right))
        mean = f"{100 * self.mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        return (
            f"over {self.draws} draws of the model {mean} are right on average, "
            f"and {100 * self.worst:.1f} % [{100 * worst_low:.1f}, {100 * worst_high:.1f}] in every draw"
        )

    def in_row(self, row: Row) -> Row:
        """A row with the mean as its accuracy, the worst beside it, and the sentence where it has no remark."""
        low, high = self.mean_interval()
        return dataclasses.replace(
            row,
            accuracy=round(self.mean, 6),
            low=round(low, 6),
            high=round(high, 6),
            every_draw=self.every_draw,
            remark=row.remark or self.sentence(),
        )


def least_over_draws(judged: Sequence[OverDraws]) -> OverDraws:
    """The worst case of several attacks on the same images: of each image the fewest draws in which it was right."""
    return dataclasses.replace(judged[0], right=torch.stack([each.right for each in judged]).amin(0))


@dataclass(frozen=True, kw_only=True, repr=False)
class RecordsOverDraws(Records):
    """Records of a random model: ``correct`` says which images are right in every draw, the accuracy is the mean.

    The losses are those of one more draw. Compared with others, joined, or in a `worst_case`, images count as right
    where they are right in every draw.

    Args:
        right: In how many draws each image was right.
        draws: How many draws there were.
    """

    right: list[int]
    draws: int

    @classmethod
    def of(cls, records: Records, judged: OverDraws, **changed: Any) -> RecordsOverDraws:
        """Records of the same images with what several draws gave, and with other values that are ``changed``."""
        values = {each.name: getattr(records, each.name) for each in dataclasses.fields(Records)}
        values["correct"] = (judged.right == judged.draws).tolist()
        return cls(**{**values, **changed}, right=judged.right.tolist(), draws=judged.draws)

    @property
    def over_draws(self) -> OverDraws:
        """How often each image was right."""
        return OverDraws(ids=torch.tensor(self.ids), right=torch.tensor(self.right), draws=self.draws)

    @property
    def accuracy(self) -> float:
        """The accuracy of a draw on average; `over_draws` has that of every draw."""
        return self.over_draws.mean

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The interval of the mean; SpecError for another confidence than 0.95."""
        if confidence != 0.95:
            raise SpecError(f"a mean over draws has no interval of confidence {confidence}; leave it at 0.95")
        return self.over_draws.mean_interval()

    def row(self, model: str, **values: Any) -> Row:
        """As `Records.row`, with the share of images that are right in every draw."""
        return self.over_draws.in_row(super().row(model, **values))


def over_draws(
    model: nn.Module,
    source: AdversarialSet | Table,
    *,
    column: str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> OverDraws:
    """Classify images by a random model in several draws, which follow from a seed; raises as `classify`."""
    right = torch.zeros(len(source), dtype=torch.int64)
    streams = Streams(seed).named("draws of the model")
    for draw in range(draws):
        with pinned_draws(model, streams.at(draw)):
            right += torch.tensor(classify_or_read(model, source, column=column, batch_size=batch_size).correct)
    return OverDraws(ids=source.ids.clone(), right=right, draws=draws)
