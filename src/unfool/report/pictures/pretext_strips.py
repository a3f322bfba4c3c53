"""Strips of what pretext tasks do with images: regions filled, tiles put back, attacked images moved down a loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from unfool.data.table import Table
from unfool.evaluation import AdversarialSet
from unfool.evaluation.adaptive.purification import purification
from unfool.evaluation.pretext.inpainting import Inpainted
from unfool.evaluation.pretext.puzzles import SolvedPuzzle
from unfool.report.pictures.gallery import probabilities
from unfool.report.pictures.strips import Strip

_SEARCHED = 50
"""Images that are searched for some that an attack turned."""


def filled_strips(group: str, pictures: Inpainted) -> Iterator[Strip]:
    """Each image with a region masked, filled, and as it was."""
    for masked, filled, original in zip(pictures.masked, pictures.filled, pictures.original, strict=True):
        yield Strip(group=group, pictures=(("masked", masked), ("filled", filled), ("original", original)))


def puzzle_strips(group: str, images: Tensor, puzzles: Sequence[SolvedPuzzle]) -> Iterator[Strip]:
    """The tiles of each image (N, C, H, W) as a network sees them, in the order that it predicts, and in the right one.

    None where there are no ``puzzles``, one for each image.
    """
    for image, puzzle in zip(images if puzzles else (), puzzles, strict=True):
        tiles = (("shuffled", puzzle.shuffled), ("as predicted", puzzle.predicted), ("right order", puzzle.solved))
        text = f"{puzzle.right} of {puzzle.count} tiles in their place; tiles are normalised by themselves"
        yield Strip(group=group, pictures=(*tiles, ("original", image)), caption=text)


def reversed_strips(
    group: str, examples: AdversarialSet, clean: Table, network: nn.Module, reversal: nn.Module, count: int = 2
) -> Iterator[Strip]:
    """The first images that a network gets right clean and wrong attacked: clean, attacked and reversed, with what it
    says of each.

    ``clean`` holds the images that the examples were crafted from, in their order.
    """
    rows, names = torch.arange(min(len(clean), _SEARCHED)), clean.classes[examples.column]
    originals, attacked, labels = clean.batch(rows).images, examples.images[rows], examples.labels[rows]
    purified = purification(reversal, attacked).images[: len(rows)]
    shown = {"clean": originals, "attacked": attacked, "reversed": purified}
    says = {word: probabilities(network, images).argmax(1) for word, images in shown.items()}
    for row in ((says["clean"] == labels) & (says["attacked"] != labels)).nonzero().flatten()[:count].tolist():
        pictures = tuple((f"{word}: {names[int(says[word][row])]}", shown[word][row]) for word in shown)
        image = f"test image {int(examples.ids[row])}; {examples.attack} at {examples.threat}"
        yield Strip(group=group, pictures=pictures, caption=f"{names[int(labels[row])]}, {image}")
