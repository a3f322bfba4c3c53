"""Jigsaw: tiles of an image are put back in another order; which order was it?

The whole-trunk form for small images: the shuffled tiles make one image, and one pass of the trunk sees them all.

Legend: B images, G×G cells of which each gives one tile (T = G²), C channels, H×W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unfool.core.batch import Batch, Views
from unfool.core.config import configured
from unfool.core.errors import ImagesError
from unfool.core.streams import Streams
from unfool.data.augment import augmented
from unfool.tasks.base import TASKS, Task, at_least_fp32
from unfool.tasks.permutations import Reading, permutation_set


@TASKS.add("jigsaw")
class Jigsaw(Task):
    """Predict which permutation of a stored set the tiles of an image were put through; the loss is cross-entropy.

    After Noroozi & Favaro ("Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016), who
    show each tile to one network alone; here the tiles make one image again, resized to what it was, and none is
    normalised by itself. Edges of tiles that were neighbours do not continue each other: between them ``gap`` is never
    shown, and ``jitter`` moves each tile by itself. The canonical view has a permutation drawn for its id from a fixed
    stream, each tile in the middle of its range, and no augmentation. Raises ImagesError for images too small to cut.
    """

    permutations: Tensor

    @configured
    class Settings:
        """The image is cut into ``grid`` by ``grid`` cells, and there are ``count`` permutations, chosen as one of the
        readings of `permutation_set` says.

        ``gap`` and ``jitter`` are shares of a cell's side, in whole pixels at least and at most that much. An
        augmentation that pads, such as ``crop-flip``, would tell where a tile comes from by the black of the margin.
        """

        grid: int = Field(default=2, ge=2, le=3)
        count: int = Field(default=24, ge=2)
        permutations: Reading = "pairwise"
        gap: float = Field(default=0.125, ge=0, lt=1)
        jitter: float = Field(default=0.125, ge=0, lt=1)
        augmentation: str = "none"

    settings: Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        found = permutation_set(settings.grid**2, settings.count, settings.permutations)
        self.register_buffer("permutations", found)

    @classmethod
    def settings_of(cls, head: Mapping[str, Any]) -> dict[str, Any]:
        """A head tells how many permutations there are."""
        return {"count": head["outputs"]}

    def head_for(self, channels: Mapping[str, int], classes: Mapping[str, int]) -> dict[str, Any]:
        return {"kind": "linear", "inputs": channels["last"], "outputs": self.settings.count}

    def views(self, batch: Batch, streams: Streams | None) -> Views:
        images = augmented(batch, self.settings.augmentation, 1, streams)
        draws = (Streams(0).named("canonical") if streams is None else streams).named("jigsaw")
        chosen = draws.integers(batch.ids, self.settings.count)
        # The place t of the shuffled image shows tile order[:, t].
        order = self.permutations.to(chosen.device)[chosen]
        moving = None if streams is None else draws
        rows = self._shown("rows", images.shape[2], order, order // self.settings.grid, batch.ids, moving)
        columns = self._shown("columns", images.shape[3], order, order % self.settings.grid, batch.ids, moving)
        return Views(images=_gathered(images, rows, columns), targets=chosen)

    def losses(self, outputs: Tensor, views: Views) -> Tensor:
        return F.cross_entropy(at_least_fp32(self.head(outputs)), views.targets, reduction="none")

    def scores(self, outputs: Tensor, views: Views) -> dict[str, Tensor]:
        return {"accuracy": (self.head(outputs).argmax(1) == views.targets).float()}

    def _shown(self, axis: str, side: int, order: Tensor, cells: Tensor, ids: Tensor, draws: Streams | None) -> Tensor:
        """The rows, or columns, of the image that each place shows, (B, G, G, pixels of a tile).

        ``order`` (B, T) are the tiles by place, and ``cells`` (B, T) the rows, or columns, of the grid they come from.
        """
        grid = self.settings.grid
        cell = side // grid
        gap, jitter = math.ceil(self.settings.gap * cell), math.floor(self.settings.jitter * cell)
        tile = cell - gap - jitter
        if tile < 1:
            raise ImagesError(
                f"jigsaw cut {side} pixels into {grid} cells of {cell}, of which gap {gap} and jitter {jitter} leave "
                "no tile; give larger images, or a smaller grid, gap or jitter"
            )
        moved = torch.full_like(order, jitter // 2)
        if draws is not None:
            # Drawn tile by tile of the unshuffled image, then taken along to where the tile is shown.
            moved = draws.named(axis).integers(ids, jitter + 1, (grid**2,)).gather(1, order)
        starts = cells * side // grid + gap // 2 + moved
        pixels = starts[..., None] + torch.arange(tile, device=starts.device)
        return pixels.unflatten(1, (grid, grid))


def _gathered(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels at rows and columns (B, G, G, pixels of a tile) of images (B, C, H, W) as one image each, (B, C, H, W)."""
    height, width = images.shape[2:]
    # (B, G, tile, G, tile): place and pixel down, place and pixel across.
    index = rows.transpose(2, 3)[..., None] * width + columns[:, :, None]
    size = index.shape[1] * index.shape[2], index.shape[3] * index.shape[4]
    shown = images.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, images.shape[1], -1)).unflatten(2, size)
    if size == (height, width):
        return shown
    return F.interpolate(shown, size=(height, width), mode="bilinear", align_corners=False)
