# pyright: reportMissingTypeStubs=false
"""How far each image is from its nearest adversarial example, and the whole curve of accuracy over eps that follows.

An image is robust within eps if no adversarial example is nearer. A minimum-norm attack finds an example that is near:
its distance is an upper bound of the least one, and so each accuracy of the curve is an upper bound too, for all eps by
one run. The curve cannot rise: an example within eps lies within every larger ball.

Legend: N images.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from unfool.attacks import MinimumNormAttack, ProxySettings
from unfool.core.errors import SpecError
from unfool.core.progress import Progress, renamed, silent
from unfool.core.spec import write_number
from unfool.core.threat import ThreatModel
from unfool.data.as_table import TableLike, as_table
from unfool.evaluation.classify import classify
from unfool.evaluation.crafting.batches import BATCH_SIZE
from unfool.evaluation.crafting.craft import craft
from unfool.evaluation.intervals import wilson
from unfool.evaluation.records import Records
from unfool.evaluation.results.rows import Share

if TYPE_CHECKING:
    from pandas import DataFrame

BOUND = "upper, by one run"
"""What rows of such a curve say of themselves."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Distances:
    """The distance of each image's nearest known adversarial example: the accuracy within every eps at once.

    Args:
        norm: Name of the norm, such as ``"l2"``.
        nearest: Records of the nearest examples; an image without one is correct, at the distance 0.
        clean: Records of the images themselves.

    Example:
        >>> from unfool import L2, attacks, minimum_norms
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> images = torch.tensor([0.5, 0.5, 0.3]).view(1, 3, 1, 1).repeat(2, 1, 4, 4)
        >>> images[:, 0] += torch.tensor([0.1, 0.2])[:, None, None]
        >>> distances = minimum_norms(model, (images, [0, 0]), attacks.FMN(L2(1)))
        >>> distances
        Distances(l2 by fmn on 2 images: median 0.4243, none for 0)
        >>> [round(distance, 2) for distance in distances.values]
        [0.28, 0.57]
        >>> [distances.accuracy(eps) for eps in (0.1, 0.4, 0.8)]
        [1.0, 0.5, 0.0]
    """

    norm: str
    nearest: Records
    clean: Records

    def __repr__(self) -> str:
        never = sum(not math.isfinite(value) for value in self.values)
        return (
            f"Distances({self.norm} by {self.nearest.attack} on {self.nearest.count} images: median "
            f"{write_number(float(f'{self.median:.4g}'))}, none for {never})"
        )

    @property
    def values(self) -> list[float]:
        """The distances (N,): 0 for an image that is misclassified as it is, infinite for one without an example."""
        pairs = zip(self.nearest.correct, self.nearest.distances, strict=True)
        return [math.inf if correct else distance for correct, distance in pairs]

    @property
    def median(self) -> float:
        """The median distance."""
        return float(np.median(np.array(self.values)))

    def accuracy(self, eps: float) -> float:
        """Share of the images whose nearest known example is farther than eps: an upper bound of robust accuracy."""
        return sum(value > eps for value in self.values) / self.nearest.count

    def interval(self, eps: float, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson interval of the accuracy within eps, as for any other attack."""
        return wilson(sum(value > eps for value in self.values), self.nearest.count, confidence)

    def area(self, eps: float = math.inf) -> float:
        """Area under accuracy over distance from 0 to eps: the mean distance, where each counts at most eps."""
        return float(np.minimum(np.array(self.values), eps).mean())

    def curve(self) -> dict[float, Share]:
        """The accuracy by eps, with its interval: at 0, and at every distance at which it falls."""
        places = [0.0, *sorted({value for value in self.values if 0 < value < math.inf})]
        shares: dict[float, Share] = {}
        for eps in places:
            low, high = self.interval(eps)
            shares[eps] = Share(accuracy=self.accuracy(eps), low=low, high=high, n=self.nearest.count)
        return shares

    def records(self, threat: ThreatModel | str) -> Records:
        """Records within one threat model of the norm, as an attack within it leaves them; raises SpecError.

        An image whose nearest example is farther stands as it is. Records of every eps state the cost of the one run.
        """
        threat = ThreatModel.parse(threat) if isinstance(threat, str) else threat
        if threat.norm_name != self.norm:
            raise SpecError(f"these distances are in {self.norm}, not of {threat}; give a threat model in {self.norm}")
        fallen = np.array(self.values) <= threat.eps
        return dataclasses.replace(
            self.nearest,
            threat=str(threat),
            correct=[not fell for fell in fallen.tolist()],
            losses=np.where(fallen, self.nearest.losses, self.clean.losses).tolist(),
            distances=np.where(fallen, self.nearest.distances, 0.0).tolist(),
            fooled_by={self.nearest.attack: int((fallen & np.array(self.clean.correct)).sum())},
        )

    def to_frame(self) -> DataFrame:
        """The distances as a pandas table, one line an image."""
        from pandas import DataFrame

        return DataFrame({"id": self.nearest.ids, "label": self.nearest.labels, "distance": self.values})


def minimum_norms(
    model: nn.Module,
    data: TableLike,
    attack: MinimumNormAttack,
    *,
    column: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    folder: str | Path | None = None,
    proxy: ProxySettings | None = None,
    progress: Progress = silent,
) -> Distances:
    """How far each image is from the nearest adversarial example that an attack finds.

    Args:
        model: Maps images in [0,1] to logits. It is attacked in eval mode and left as it was.
        data: A table, or what `as_table` makes one of: ``(images, labels)``, a data set, its name.
        attack: A minimum-norm attack such as ``attacks.FMN(L2(1))``; of its threat model the norm alone counts.
        column: Label column; default: the table's own choice.
        seed: Seed of every random draw.
        batch_size: Images at a time; default: what memory allows.
        folder: Where finished batches are stored, so that the same call continues where it was stopped.
        proxy: Search on a faster copy of the model, by an attack that can (`TargetedFMN`); default: no copy.
        progress: Called with the images done.

    Returns:
        The distances, and with them an upper bound of the robust accuracy within every eps.

    Raises:
        SpecError: An attack that looks for no nearest example.
        DataError: No images, or no such labels.
        ImagesError: Labels that the model's logits do not cover, or images that break the contract.
        NonFiniteError: NaN logits.
        OutputError: A folder that holds other examples, or that cannot be written.

    Example:
        >>> import torch
        >>> from unfool import Linf, attacks, minimum_norms
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> images = torch.tensor([0.6, 0.5, 0.3]).view(1, 3, 1, 1).repeat(1, 1, 4, 4)
        >>> round(minimum_norms(model, (images, [0]), attacks.FMN(Linf(1))).median, 3)
        0.05
    """
    if not isinstance(attack, MinimumNormAttack):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise SpecError(f"{attack!r} looks for no nearest example; give one that does, such as attacks.FMN(L2(1))")
    table = as_table(data)
    size = batch_size or BATCH_SIZE
    clean = classify(model, table, column=column, threat=attack.threat, batch_size=size)
    shape = tuple(table.batch(torch.arange(1)).images.shape[1:]) if len(table) else (1, 1, 1)
    examples = craft(
        model,
        table,
        attack.unbounded(shape),
        column=column,
        seed=seed,
        batch_size=batch_size,
        folder=folder,
        right=clean.correct,
        proxy=proxy if attack.uses_proxy else None,
        progress=renamed(progress, f"nearest examples of {attack.name}"),
    )
    records = classify(model, examples, batch_size=size)
    # On the boundary itself another batch may round to the other side; what fooled the model once has fooled it.
    fell = np.array(clean.correct) & (examples.fooled_by_part.numpy() >= 0) | ~np.array(clean.correct)
    correct = np.array(records.correct) & ~fell
    return Distances(
        norm=attack.threat.norm_name,
        nearest=dataclasses.replace(
            records,
            correct=correct.tolist(),
            settings=dict(attack.settings),
            cpu_seconds=records.cpu_seconds + clean.cpu_seconds,
            model_images=records.model_images + clean.model_images,
        ),
        clean=clean,
    )
