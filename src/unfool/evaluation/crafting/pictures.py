"""A row of pictures: clean images, the adversarial ones made of them, and the difference, magnified."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from unfool.core.errors import DataError, ImagesError
from unfool.data.as_table import TableLike, as_table
from unfool.evaluation.results.run_details import AttackPicture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unfool.evaluation.crafting.adversarial_set import AdversarialSet

KEPT = 8
"""Images of each attack that an evaluation keeps to look at."""
_STORED, _AT_MOST = 4, 12
"""Images of each attack, and of all, that go into a results file."""
_GREY = 0.5


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AttackPictures:
    """A few images of one attack: ``clean`` and ``adversarial`` (K, C, H, W), ``labels`` by name, ``fooled`` or not."""

    attack: str
    clean: Tensor
    adversarial: Tensor
    labels: list[str]
    fooled: list[bool]

    def __repr__(self) -> str:
        return f"AttackPictures({self.attack}, {len(self.labels)} images)"

    def stored(self) -> list[AttackPicture]:
        """The first few as a results file holds them."""
        return [
            AttackPicture(
                attack=self.attack,
                label=self.labels[place],
                fooled=self.fooled[place],
                clean=png(self.clean[place]),
                adversarial=png(self.adversarial[place]),
            )
            for place in range(min(_STORED, len(self.labels)))
        ]

    def draw(self, count: int = KEPT) -> Figure:
        """Draw up to ``count`` columns of three pictures: clean, adversarial, and the magnified difference."""
        from matplotlib.figure import Figure

        count = min(count, len(self.labels))
        figure = Figure(figsize=(1.5 * count + 0.6, 5.2), layout="constrained")
        axes = figure.subplots(3, count, squeeze=False)
        for column in range(count):
            difference, factor = magnified_difference(self.clean[column], self.adversarial[column])
            shown = (self.clean[column], self.adversarial[column], difference)
            words = (self.labels[column], "fooled" if self.fooled[column] else "not fooled", f"difference ×{factor}")
            for axis, image, text in zip(axes[:, column], shown, words, strict=True):
                axis.imshow(image.permute(1, 2, 0).squeeze(2).clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1)
                axis.set_title(text, fontsize=9, parse_math=False)
                axis.set_axis_off()
        figure.suptitle(self.attack, fontsize=10, parse_math=False)
        return figure


def pictures_of(
    examples: AdversarialSet, data: TableLike, count: int = KEPT, column: str | None = None
) -> AttackPictures:
    """Some images of an adversarial set beside the clean ones of ``data``; those that were perturbed and fooled first.

    Raises DataError where the data lack an image of the set.
    """
    table = as_table(data)
    perturbed = (examples.fooled_by_part >= 0) & (examples.distances > 0)
    rows = torch.argsort((~perturbed).to(torch.int8), stable=True)[: max(1, count)]
    matches = table.ids == examples.ids[rows][:, None]
    if not matches.any(1).all():
        raise DataError(f"{table!r} lacks an image of {examples!r}; give the images that it was crafted from")
    clean = table.batch(matches.to(torch.int8).argmax(1)).images
    names: Sequence[str] = table.classes.get(column or examples.column, [])
    numbers = examples.labels[rows].tolist()
    return AttackPictures(
        attack=f"{examples.attack} at {examples.threat}",
        clean=clean.float().cpu(),
        adversarial=examples.read(rows).float().cpu(),
        labels=[names[number] if number < len(names) else str(number) for number in numbers],
        fooled=(examples.fooled_by_part[rows] >= 0).tolist(),
    )


def stored_pictures(pictures: Mapping[str, AttackPictures]) -> list[AttackPicture]:
    """What a results file holds of the pictures of all attacks: those of the strongest, which come last, first."""
    return [picture for each in reversed(list(pictures.values())) for picture in each.stored()][:_AT_MOST]


def magnified_difference(clean: Tensor, adversarial: Tensor) -> tuple[Tensor, int]:
    """The difference times a whole factor around mid-grey, and that factor: the largest that clips nothing, at least 1.

    Equal images give plain grey and the factor 1. Raises ImagesError for images of different shapes.
    """
    if clean.shape != adversarial.shape:
        raise ImagesError(f"images of shapes {tuple(clean.shape)} and {tuple(adversarial.shape)} have no difference")
    difference = adversarial.detach().float().cpu() - clean.detach().float().cpu()
    largest = float(difference.abs().max())
    # 8/255 read as a float is a hair above 8/255: without the slack the factor would be 14, not 15
    factor = max(1, int(_GREY / largest + 1e-3)) if largest > 0.0 else 1
    return (_GREY + factor * difference).clamp(0.0, 1.0), factor


def png(image: Tensor) -> bytes:
    """An image (C, H, W) in [0,1], C 1 or 3, as a PNG file; its pixels are rounded to eight bits."""
    pixels = (image.detach().float().cpu() * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, format="PNG", optimize=True)
    return file.getvalue()
