# pyright: reportUnnecessaryIsInstance=false
"""Adversarial sets: images with their labels, distances, and the identity of the system they were crafted on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unfool.core.batch import Batch, check_images
from unfool.core.errors import DataError
from unfool.core.threat import ThreatModel
from unfool.evaluation.crafting.batches import spans
from unfool.evaluation.crafting.sharded_images import ShardedImages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unfool.data.as_table import TableLike

TENSORS = ("images", "labels", "ids", "distances", "zero_gradient", "fooled_by_part")
"""What a set holds of each image."""


@dataclass(frozen=True, kw_only=True, repr=False)
class AdversarialSet:
    """Adversarial examples with the images' labels and ids, and the identity of the system they were crafted on.

    Args:
        images: (N, C, H, W) float32 in [0,1]: a tensor, or, of a large set, what reads its rows from files, as
            ``images[rows]``.
        labels: Class numbers (N,), int64.
        ids: Ids of the images in their table (N,), int64.
        distances: Distances from the clean images (N,), in the threat model's norm.
        zero_gradient: Images that were not fooled because the attacked system gave a zero gradient (N,), bool.
        fooled_by_part: Number of the attack's part that fooled each image (N,), int64; -1 if none did.
        attack: Name of the attack.
        threat: Threat model, as text.
        data: Name of the data set.
        split: Its split.
        column: Label column.
        seed: Seed of the attack's draws.
        crafted_on: Identity of the attacked system. On any other system the examples are transfer.
        cpu_seconds: CPU seconds that crafting took.
        model_images: Images that went through the system or its copy.
        settings: Settings of the attack: steps, step size, restarts.
        parts: Names of the attack's parts.
        follows_gradients: Whether each part follows gradients.

    Raises:
        DataError: Tensors and names that do not fit together.

    Example:
        >>> from unfool import craft
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> examples = craft(model, (torch.full((2, 3, 4, 4), 0.5), [0, 0]), "fgsm", threat="linf:0.1")
        >>> examples.successes_per_part, examples.follows_gradients
        ({'fgsm': 2}, [True])
    """

    images: Tensor | ShardedImages
    labels: Tensor
    ids: Tensor
    distances: Tensor
    zero_gradient: Tensor
    fooled_by_part: Tensor
    attack: str
    threat: str
    data: str
    split: str
    column: str
    seed: int
    crafted_on: str
    cpu_seconds: float
    model_images: int
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    parts: list[str] = field(default_factory=list[str])
    follows_gradients: list[bool] = field(default_factory=list[bool])

    def __post_init__(self) -> None:
        tensors: list[Tensor] = [getattr(self, name) for name in TENSORS]
        if len({len(tensor) if tensor.ndim else -1 for tensor in tensors}) != 1:
            raise DataError("the tensors of an adversarial set have unequal lengths; craft it again")
        if any(tensor.ndim != 1 for tensor in tensors[1:]) or any(
            tensor.dtype != torch.int64 for tensor in (self.labels, self.ids, self.fooled_by_part)
        ):
            raise DataError("labels, ids and parts of an adversarial set must be int64 of shape (N,); craft it again")
        if not isinstance(self.crafted_on, str) or not self.crafted_on:
            raise DataError("an adversarial set does not say what it was crafted on; craft it again")
        ThreatModel.parse(self.threat)
        if isinstance(self.images, Tensor):  # shards are checked as they are read
            check_images(self.images)
        if self.images.dtype != torch.float32 or not self.distances.is_floating_point():
            raise DataError("images and distances of an adversarial set must be float32; craft it again")
        if int(self.fooled_by_part.max()) >= len(self.parts) or int(self.fooled_by_part.min()) < -1:
            raise DataError(f"an adversarial set names parts beyond its {len(self.parts)}; craft it again")
        if len(self.follows_gradients) != len(self.parts):
            raise DataError("an adversarial set must say of each part whether it follows gradients; craft it again")

    def __repr__(self) -> str:
        shape = "×".join(str(size) for size in self.images.shape[1:])
        fooled = int((self.fooled_by_part >= 0).sum())
        attack = f"{self.attack} at {self.threat} on {self.data} {self.split}"
        return f"AdversarialSet({len(self)} images of {shape}, {attack}, {fooled} fooled)"

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int) -> Iterator[Batch]:
        """The images in order with their ids and labels, so many at a time; of a large set no more are in memory.

        Args:
            size: Images in a batch.

        Yields:
            Batches that share no memory with the set.

        Raises:
            SpecError: A size below 1.
        """
        for span in spans(len(self), size):
            yield Batch(images=self.read(span), ids=self.ids[span], columns={self.column: self.labels[span]})

    def read(self, rows: slice | Tensor) -> Tensor:
        """The images (B, C, H, W) of a slice or of row numbers (B,), with memory of their own."""
        images = self.images[rows]
        return images.clone() if isinstance(self.images, Tensor) and isinstance(rows, slice) else images

    def show(self, data: TableLike, count: int = 6) -> Figure:
        """Draw some of the examples: the clean image, the adversarial one, and the difference, magnified.

        Args:
            data: The images that the set was crafted from: a table, or what `as_table` makes one of.
            count: How many images; those that were perturbed and fooled the system come first.

        Returns:
            A matplotlib figure; in a notebook it is shown.

        Raises:
            DataError: An image of the set is not among the data.
        """
        from unfool.evaluation.crafting.pictures import pictures_of  # imports this module for its types

        return pictures_of(self, data, count).draw(count)

    @property
    def successes_per_part(self) -> dict[str, int]:
        """How many images each part of the attack fooled."""
        return {name: int((self.fooled_by_part == number).sum()) for number, name in enumerate(self.parts)}
