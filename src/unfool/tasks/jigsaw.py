"""Jigsaw: tiles of an image are put back in another order; which order was it?

Two forms. Whole: the shuffled tiles make one image again, and one pass of the trunk sees them all. Context-free: every
tile is an image of its own to the trunk, and a head reads the features of all of them side by side.

Legend: B images, G×G cells of which each gives one tile (T = G²), C channels, H×W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from unfool.core.batch import Batch, Views
from unfool.core.config import configured
from unfool.core.errors import ImagesError
from unfool.core.streams import Streams
from unfool.data.augment import augmented
from unfool.models.heads.tiles import PUZZLE
from unfool.models.network import Network
from unfool.tasks.base import TASKS, Task, at_least_fp32
from unfool.tasks.permutations import ObjectiveValue, permutation_set
from unfool.tasks.tiles import cut, normalised, one_by_one, together

WHOLE_HEAD, TILE_HEAD, CONVOLUTION_HEAD = "whole-tiles", "tiles", "tile-convolution"
"""Kinds of heads: one reads the image that the tiles make, the others tiles one by one."""

SILENT_HEAD = "linear"
"""The kind of the whole form's head in files from before heads carried their puzzle."""


@TASKS.add("jigsaw")
class Jigsaw(Task):
    """Predict which permutation of a stored set the tiles of an image were put through; the loss is cross-entropy.

    After Noroozi & Favaro ("Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016). The
    context-free form is theirs: each tile, at its own size and normalised by itself (`normalised`), is a view, and the
    features of all tiles, joined in the order of their places, tell the permutation. In the whole form the tiles make
    one image again, resized to what it was, and none is normalised. Edges of tiles that were neighbours do not continue
    each other: between them ``gap`` is never shown, and ``jitter`` moves each tile by itself. The canonical view has a
    permutation drawn for its id from a fixed stream, each tile in the middle of its range, and no augmentation; this
    departs from the rule that a canonical view is not shuffled, since the original order need not be in the set. The
    head carries the puzzle, so that whoever has the weights alone asks the one that was learnt. Raises ImagesError for
    images too small to cut, and for tiles too small for the trunk.
    """

    permutations: Tensor

    @configured
    class Settings:
        """The image is cut into ``grid`` by ``grid`` cells, and there are ``count`` permutations, chosen as one of the
        readings of `permutation_set` says.

        ``gap`` and ``jitter`` are shares of a cell's side, in whole pixels at least and at most that much; the paper's
        tiles of 64 pixels in cells of 75 are no gap and a jitter of 0.147. An augmentation that pads, such as
        ``crop-flip``, would tell where a tile comes from by the black of the margin.

        The context-free form has a head of its own: ``hidden`` units behind the joined tiles, and an eighth of that
        for each tile (the paper: 4096 and 512). ``own_convolution`` reads the trunk before its last convolution stage,
        and begins the head with a convolution that the task does not share with the classifier.
        """

        form: Literal["whole", "context-free"] = "whole"
        grid: int = Field(default=2, ge=2, le=3)
        count: int = Field(default=24, ge=2)
        permutations: ObjectiveValue = "pairwise"
        gap: float = Field(default=0.125, ge=0, lt=1)
        jitter: float = Field(default=0.125, ge=0, lt=1)
        augmentation: str = "none"
        own_convolution: bool = False
        hidden: int = Field(default=512, ge=8, multiple_of=8)

        @field_validator("own_convolution")
        @classmethod
        def _has_tiles(cls, own_convolution: bool, info: ValidationInfo) -> bool:
            if own_convolution and info.data.get("form", "refused") == "whole":
                raise ValueError("it belongs to tiles that are read one by one: set form=context-free")
            return own_convolution

        @property
        def views(self) -> int:
            """Views of an image."""
            return self.grid**2 if self.form == "context-free" else 1

    settings: Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        found = permutation_set(settings.grid**2, settings.count, settings.permutations)
        self.register_buffer("permutations", found)
        self.stage = "last"
        self.smallest = 1
        self.silent = False
        """Whether the head is of a file from before heads carried their puzzle."""

    @classmethod
    def settings_of(cls, head: Mapping[str, Any]) -> dict[str, Any]:
        """A head tells the whole puzzle, and how its tiles are read; one of an older file as much of it as it has."""
        found = {"count": head["outputs"]}
        if head["kind"] == SILENT_HEAD:
            return found
        found |= {"grid": math.isqrt(head["tiles"]), **{key: head[key] for key in PUZZLE if key in head}}
        if head["kind"] == WHOLE_HEAD:
            return found
        own = head["kind"] == CONVOLUTION_HEAD
        return {**found, "form": "context-free", "hidden": head["hidden"], "own_convolution": own}

    def head_for(self, channels: Mapping[str, int], classes: Mapping[str, int]) -> dict[str, Any]:
        settings = self.settings
        puzzle = {} if self.silent else {key: getattr(settings, key) for key in PUZZLE}
        sizes = {"tiles": settings.grid**2, "outputs": settings.count, **puzzle}
        if settings.form == "whole":
            if self.silent:
                return {"kind": SILENT_HEAD, "inputs": channels["last"], "outputs": settings.count}
            return {"kind": WHOLE_HEAD, "inputs": channels["last"], **sizes}
        sizes |= {"features": settings.hidden // 8, "hidden": settings.hidden}
        if not settings.own_convolution:
            return {"kind": TILE_HEAD, "inputs": channels["last"], **sizes}
        before, last, _ = list(channels.values())[-3:]
        return {"kind": CONVOLUTION_HEAD, "inputs": before, "channels": last, **sizes}

    def bind(self, network: Network, name: str, classes: Mapping[str, int], streams: Streams) -> None:
        super().bind(network, name, classes, streams)
        self.silent = not set(PUZZLE) & set(getattr(self.head, "description", PUZZLE))
        self.smallest = network.trunk.smallest
        if self.settings.own_convolution:
            self.stage = network.trunk.stages[-3]

    def views(self, batch: Batch, streams: Streams | None) -> Views:
        images = augmented(batch, self.settings.augmentation, 1, streams)
        draws = (Streams(0).named("canonical") if streams is None else streams).named("jigsaw")
        chosen = draws.integers(batch.ids, self.settings.count)
        # The place t of the shuffled image shows tile order[:, t].
        order = self.permutations.to(chosen.device)[chosen]
        moving = None if streams is None else draws
        rows = self._shown("rows", images.shape[2], order, order // self.settings.grid, batch.ids, moving)
        columns = self._shown("columns", images.shape[3], order, order % self.settings.grid, batch.ids, moving)
        tiles = cut(images, rows, columns)
        if self.settings.form == "whole":
            return Views(images=together(tiles, (images.shape[2], images.shape[3])), targets=chosen)
        if min(tiles.shape[3], tiles.shape[5]) < self.smallest:
            raise ImagesError(
                f"jigsaw cut images of {images.shape[2]}×{images.shape[3]} pixels into tiles of {tiles.shape[3]}×"
                f"{tiles.shape[5]}, and the trunk needs {self.smallest} or more a side; give larger images, a smaller "
                "grid, gap or jitter, or another trunk or stem"
            )
        shown = normalised(one_by_one(tiles))
        return Views(images=shown, count=self.settings.views, targets=chosen, stage=self.stage, tiles=True)

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
