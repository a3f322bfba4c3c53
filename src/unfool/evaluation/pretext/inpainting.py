"""How well an inpainting task fills regions of held-out images, and whether the filling depends on the image.

Legend: n images, C channels, S pixels a side, R pixels of the region's side.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor

from unfool.core.batch import Batch
from unfool.core.errors import DataError, SpecError
from unfool.data.table import Table
from unfool.evaluation.crafting.batches import BATCH_SIZE, device_of
from unfool.models.modes import frozen_eval
from unfool.models.network import Network
from unfool.tasks import Task
from unfool.tasks.inpainting import Inpainting, filled


@dataclass(frozen=True, kw_only=True, eq=False)
class Inpainted:
    """Images with the centred region ``masked``, with it ``filled``, and as they were, ``original``: (n, C, S, S) each.

    Of the region alone: ``fillings``, what was there, ``pixels``, and the mean visible ``colours``: (n, C, R, R).
    """

    masked: Tensor
    filled: Tensor
    original: Tensor
    fillings: Tensor
    pixels: Tensor
    colours: Tensor


@dataclass(frozen=True, kw_only=True)
class FillingQuality:
    """``l2`` is the mean squared error of the fillings over the region's values, ``mean_l2`` that of filling it with
    the mean colour of the image's visible pixels. ``variety`` is the variance of the fillings over the ``count``
    images, summed over the region's values, as a share of that of what was there: 0 if all images are filled alike.
    ``sharpness`` is the mean squared difference of neighbouring values inside the region, as a share likewise.
    """

    l2: float
    mean_l2: float
    variety: float
    sharpness: float
    count: int

    @property
    def ratio(self) -> float:
        """``l2`` over ``mean_l2``: below 1 if the filling knows more of the region than one colour."""
        return self.l2 / self.mean_l2

    def to_json(self) -> dict[str, float]:
        """The figures and their ratio as JSON takes them."""
        return {**vars(self), "ratio": self.ratio}


def inpainted(network: Network, task: Task, images: Tensor) -> Inpainted:
    """Fill the centred region of images (n, C, S, S) in [0,1] with a task that is bound to the network.

    Raises SpecError for a task that fills nothing.
    """
    if not isinstance(task, Inpainting):
        raise SpecError(f"task {type(task).__name__} fills no region; give an inpainting task")
    batch = Batch(images=images, ids=torch.arange(len(images), device=images.device))
    with frozen_eval(network), frozen_eval(task), torch.no_grad():
        views = task.views(batch, None)
        fillings = task.fillings(network.features(views.images, views.stage), views)
    regions = views.targets
    return Inpainted(
        masked=views.images,
        filled=filled(images, fillings, regions.places),
        original=images,
        fillings=fillings,
        pixels=regions.pixels,
        colours=regions.colour.expand_as(regions.pixels),
    )


def filling_quality(network: Network, task: Task, table: Table) -> FillingQuality:
    """Evaluate a task's fillings of the images of a table.

    Raises DataError for fewer than two images, or if the regions are all equal or flat; else as `inpainted`.
    """
    if len(table) < 2:
        raise DataError(f"{table.name} has {len(table)} images, and fillings vary over two or more; give a larger set")
    device, rows = device_of(network), torch.arange(len(table))
    # Of each batch the regions alone: whole images, three times over, would fill a device.
    regions = attrgetter("fillings", "pixels", "colours")
    parts = [regions(inpainted(network, task, table.batch(some, device).images)) for some in rows.split(BATCH_SIZE)]
    fillings, pixels, colours = (torch.cat(kept).double() for kept in zip(*parts, strict=True))
    steps = _steps(pixels)
    # Regions that vary inside are not of one colour, so mean_l2 is above 0 too. (Of single pixels, steps is NaN.)
    if bool((pixels == pixels[:1]).all()) or not steps > 0:
        raise DataError(
            f"the regions of the {len(table)} images of {table.name} do not vary, from image to image or inside, and "
            "fillings are judged by how those vary; give different images that are not flat"
        )
    return FillingQuality(
        l2=float((fillings - pixels).square().mean()),
        mean_l2=float((colours - pixels).square().mean()),
        variety=float(fillings.var(0).sum() / pixels.var(0).sum()),
        sharpness=float(_steps(fillings) / steps),
        count=len(table),
    )


def filling_qualities(network: Network, task: Task, table: Table, parts: int = 10) -> list[FillingQuality]:
    """`filling_quality` of disjoint parts of a table, one by one, so that their figures have an interval."""
    return [filling_quality(network, task, table.subset(rows)) for rows in torch.arange(len(table)).chunk(parts)]


def _steps(pixels: Tensor) -> Tensor:
    """Mean squared difference of neighbours down and across."""
    return pixels.diff(dim=2).square().mean() + pixels.diff(dim=3).square().mean()
