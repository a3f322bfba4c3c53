"""Heads that predict how the tiles of an image were shuffled; their descriptions hold the puzzle that they learn.

They read the image that the tiles make, or each tile by itself at first, with the same weights, then all side by side.

Legend: B images, T tiles of each, in the order of their places; D features of a tile, C channels, h×w positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from unfool.core.errors import SpecError
from unfool.models.heads.base import HEADS, Head, HeadDescription, HeadSetting
from unfool.models.trunks.resnet import convolution_and_norm

POOLED_SIDE = 2
"""Side to which the features of a tile's own convolution are pooled."""


class Joined(nn.Module):
    """Features (T·B, D), tile-major, as one row an image, (B, T·D)."""

    def __init__(self, tiles: int):
        super().__init__()
        self.tiles = tiles

    def forward(self, features: Tensor) -> Tensor:
        return features.unflatten(0, (self.tiles, -1)).transpose(0, 1).flatten(1)


class PuzzleHead(Head):
    """Base of heads whose ``outputs`` are permutations of ``tiles`` tiles.

    Their description says which puzzle: ``permutations`` is the rule that chose the set, ``gap`` and ``jitter`` are
    shares of a cell's side. A head of an older file has none of the three; SpecError for one that has some of them.
    """

    words: ClassVar[Mapping[str, tuple[str, ...]]] = {"permutations": ("pairwise", "original")}
    shares = ("gap", "jitter")

    def __init__(self, description: HeadDescription, puzzle: Mapping[str, HeadSetting], *layers: nn.Module):
        lacking = [key for key in PUZZLE if key not in puzzle]
        if puzzle and lacking:
            raise SpecError(
                f"head {description['kind']!r} gives {', '.join(puzzle)} of its puzzle and not {', '.join(lacking)}; "
                f"give all of {', '.join(PUZZLE)}, or none"
            )
        super().__init__({**description, **puzzle}, *layers)


PUZZLE = (*PuzzleHead.words, *PuzzleHead.shares)
"""What a description says of the puzzle beside its sizes, under the names of the task's settings."""


@HEADS.add("whole-tiles")
class WholeTileHead(PuzzleHead):
    """One linear layer on the features of an image that the tiles make, (B, inputs) → (B, outputs)."""

    keys = ("tiles", "inputs", "outputs")

    def __init__(self, *, tiles: int, inputs: int, outputs: int, **puzzle: HeadSetting):
        sizes = {"tiles": tiles, "inputs": inputs, "outputs": outputs}
        super().__init__({"kind": "whole-tiles", **sizes}, puzzle, nn.Linear(inputs, outputs))


def _joining(tiles: int, inputs: int, features: int, hidden: int, outputs: int) -> list[nn.Module]:
    each = [nn.Linear(inputs, features), nn.ReLU()]
    return [*each, Joined(tiles), nn.Linear(tiles * features, hidden), nn.ReLU(), nn.Linear(hidden, outputs)]


@HEADS.add("tiles")
class TileHead(PuzzleHead):
    """The context-free network's head (Noroozi & Favaro, ECCV 2016, figure 3): a linear layer on each tile, one on all
    of them side by side, ReLU behind both, and a last one; (T·B, inputs), tile-major, → (B, outputs).

    Departs from the paper: no dropout.
    """

    keys = ("tiles", "inputs", "features", "hidden", "outputs")

    def __init__(self, *, tiles: int, inputs: int, features: int, hidden: int, outputs: int, **puzzle: HeadSetting):
        sizes = {"tiles": tiles, "inputs": inputs, "features": features, "hidden": hidden, "outputs": outputs}
        super().__init__({"kind": "tiles", **sizes}, puzzle, *_joining(**sizes))


@HEADS.add("tile-convolution")
class TileConvolutionHead(PuzzleHead):
    """The same behind a 3×3 convolution of its own, with batch norm and ReLU, pooled to 2×2 by the maximum:
    (T·B, inputs, h, w), tile-major, → (B, outputs).

    ``channels`` are those of the convolution. In train mode batch norm looks at batch-mates, in eval mode it does not.
    """

    keys = ("tiles", "inputs", "channels", "features", "hidden", "outputs")

    def __init__(
        self, *, tiles: int, inputs: int, channels: int, features: int, hidden: int, outputs: int, **puzzle: HeadSetting
    ):
        sizes = {"tiles": tiles, "features": features, "hidden": hidden, "outputs": outputs}
        super().__init__(
            {"kind": "tile-convolution", "inputs": inputs, "channels": channels, **sizes},
            puzzle,
            *convolution_and_norm(inputs, channels, 3),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(POOLED_SIDE),
            nn.Flatten(),
            *_joining(inputs=POOLED_SIDE**2 * channels, **sizes),
        )
