# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Jigsaw: tiles of an image are put back in another order; which order was it?

Two forms. Whole: the shuffled tiles make one image again, and one pass of the trunk sees them all. Context-free: every
tile is an image of its own to the trunk, and a head reads the features of all of them side by side.

Legend: B images, G×G cells of which each gives one tile (T = G²), C channels, H×W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from unfool.core.batch import Batch, Views
from unfool.core.config import configured
from unfool.core.errors import ImagesError
from unfool.core.streams import Streams
from unfool.data.augment import augmented
from unfool.data.colour import ColourJitter, recoloured
from unfool.models.heads import HeadDescription, HeadSetting
from unfool.models.heads.tiles import PUZZLE
from unfool.models.network import Network
from unfool.tasks.base import TASKS, Task, at_least_fp32
from unfool.tasks.permutations import PermutationRule, permutation_set
from unfool.tasks.tiles import cut, normalised, one_by_one, together

WHOLE_HEAD, TILE_HEAD, CONVOLUTION_HEAD = "whole-tiles", "tiles", "tile-convolution"
"""Kinds of heads: one reads the image that the tiles make, the others tiles one by one."""

SILENT_HEAD = "linear"
"""The kind of the whole form's head in files from before heads held their puzzle."""


@TASKS.add("jigsaw")
class Jigsaw(Task):
    """Predict by which permutation of a fixed set the tiles of an image were shuffled; the loss is cross-entropy.

    After Noroozi & Favaro ("Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016). The
    context-free form is theirs: each tile, at its own size and normalised by itself (`normalised`), is a view, and the
    head reads the features of all tiles in the order of their places. In the whole form the tiles make one image again,
    resized to what it was, and none is normalised. Edges of tiles that were neighbours do not continue each other:
    between them ``gap`` is never shown, and ``jitter`` moves each tile by itself. Against the fringes of colour that a
    lens leaves, ``shift`` moves each colour channel of a tile by itself, and a share ``grey`` of the images has none.
    The canonical view has a permutation drawn for its id from a fixed stream, each tile in the middle of its range, and
    no augmentation, shift or grey; it is shuffled, since the original order need not be in the set. The head's
    description holds the puzzle, so that a defense that has only the weights shows the puzzle that was learnt.

    Raises:
        ImagesError: from ``views``, for images too small to cut, and for tiles too small for the trunk.

    Example:
        >>> from unfool import make_task
        >>> task = make_task("jigsaw", {"grid": 3, "count": 100})
        >>> task.permutations.shape
        torch.Size([100, 9])
    """

    permutations: Tensor

    @configured
    class Settings:
        """Settings of the task jigsaw.

        ``gap`` and ``jitter`` are shares of a cell's side, in whole pixels at least and at most that much; the paper's
        tiles of 64 pixels in cells of 75 are no gap and a jitter of 0.147.
        """

        form: Literal["whole", "context-free"] = Field(
            default="whole", description="One image of shuffled tiles (whole), or each tile by itself (context-free)."
        )
        grid: int = Field(default=2, ge=2, le=3, description="Cells a side; each gives a tile.")
        count: int = Field(default=24, ge=2, description="Permutations to tell apart.")
        permutations: PermutationRule = Field(
            default="pairwise", description="Permutations far from each other (pairwise) or from the original order."
        )
        gap: float = Field(default=0.125, ge=0, lt=1, description="Share of a cell between tiles that is never shown.")
        jitter: float = Field(default=0.125, ge=0, lt=1, description="Share of a cell by which a tile moves at random.")
        augmentation: str = Field(
            default="none",
            description="Augmentation before cutting, or none; the black margin of one that pads, such as crop-flip, "
            "would show where a tile comes from.",
        )
        shift: int = Field(
            default=0,
            ge=0,
            description="Pixels that each colour channel of a tile is moved at most, within its cell; the paper: 2.",
        )
        grey: float = Field(default=0.0, ge=0, le=1, description="Share of images shown in grey; the paper: 0.3.")
        own_convolution: bool = Field(
            default=False,
            description="Whether the head (context-free) begins with a convolution of its own in place of the trunk's "
            "last stage.",
        )
        hidden: int = Field(
            default=512,
            ge=8,
            multiple_of=8,
            description="Units of the head's layer behind all tiles (context-free), an eighth of it for each tile; the "
            "paper: 4096.",
        )

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
        permutations = permutation_set(settings.grid**2, settings.count, settings.permutations)
        self.register_buffer("permutations", permutations)
        self.stage = "last"
        self.smallest = 1
        self.silent = False
        """Whether the head is of a file from before heads held their puzzle."""

    @classmethod
    def settings_of(cls, head: Mapping[str, HeadSetting]) -> dict[str, HeadSetting | bool]:
        """The puzzle that a head holds, and how its tiles are read; of an older file as much as it holds."""
        puzzle: dict[str, HeadSetting | bool] = {"count": head["outputs"]}
        if head["kind"] == SILENT_HEAD:
            return puzzle
        puzzle |= {"grid": math.isqrt(int(head["tiles"])), **{key: head[key] for key in PUZZLE if key in head}}
        if head["kind"] == WHOLE_HEAD:
            return puzzle
        own = head["kind"] == CONVOLUTION_HEAD
        return {**puzzle, "form": "context-free", "hidden": head["hidden"], "own_convolution": own}

    def head_for(self, channels: Mapping[str, int], classes: Mapping[str, int]) -> HeadDescription:
        settings = self.settings
        puzzle: HeadDescription = {} if self.silent else {key: getattr(settings, key) for key in PUZZLE}
        sizes: HeadDescription = {"tiles": settings.grid**2, "outputs": settings.count, **puzzle}
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
        tiles = self._tiles(images, order, batch.ids, None if streams is None else draws)
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

    def _tiles(self, images: Tensor, order: Tensor, ids: Tensor, draws: Streams | None) -> Tensor:
        """The tiles (B, C, G, S, G, S) that each place shows; ``order`` (B, T) are those of the image by place."""
        settings = self.settings
        if draws is not None and settings.grey:
            greyed = draws.named("grey").uniform(ids) < settings.grey
            unused = images.new_zeros(len(images), 4)
            images = recoloured(images, ColourJitter(), unused, jittered=torch.zeros_like(greyed), greyed=greyed)
        axes = (
            ("rows", images.shape[2], order // settings.grid),
            ("columns", images.shape[3], order % settings.grid),
        )
        if draws is None or not settings.shift:
            return cut(images, *(self._shown(*axis, order, ids, draws) for axis in axes))
        channels = [
            cut(channel, *(self._shown(*axis, order, ids, draws, f"channel {number}") for axis in axes))
            for number, channel in enumerate(images.split(1, 1))
        ]
        return torch.cat(channels, 1)

    def _shown(
        self, axis: str, side: int, cells: Tensor, order: Tensor, ids: Tensor, draws: Streams | None, channel: str = ""
    ) -> Tensor:
        """The rows, or columns, of the image that each place shows, (B, G, G, pixels of a tile).

        ``cells`` (B, T) are the rows, or columns, of the grid that the tiles come from; a ``channel`` is shifted.
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
        offsets = torch.full_like(order, jitter // 2)
        if draws is not None:
            # Drawn tile by tile of the unshuffled image, then taken along to where the tile is shown.
            offsets = draws.named(axis).integers(ids, jitter + 1, (grid**2,)).gather(1, order)
            if channel:
                drawn = draws.named(f"{axis} of {channel}").integers(ids, 2 * self.settings.shift + 1, (grid**2,))
                offsets = (offsets + drawn.gather(1, order) - self.settings.shift).clamp(0, jitter)
        starts = cells * side // grid + gap // 2 + offsets
        pixels = starts[..., None] + torch.arange(tile, device=starts.device)
        return pixels.unflatten(1, (grid, grid))
