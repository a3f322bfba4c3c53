# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Inpainting: a square region of the image is masked; what was there?

A context encoder (Pathak et al., "Context Encoders: Feature Learning by Inpainting", CVPR 2016), in a form of ours and
in that of PyTorch-GAN, a public re-implementation.

Legend: B images, V views of each (N = V·B, view-major), C channels, S pixels a side, R pixels of the region's side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unfool.core.batch import Batch, Views
from unfool.core.config import configured
from unfool.core.errors import ImagesError, SpecError
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.data.augment import augmented
from unfool.models.heads import HeadDescription, HeadSetting
from unfool.models.heads.decoder import SMALLEST_PICTURE, Discriminating
from unfool.models.heads.region_decoder import SMALLEST_REGION
from unfool.models.network import Network
from unfool.tasks.base import TASKS, ParameterGroup, Task, at_least_fp32

PICTURE_HEADS, REGION_HEADS = ("decoder", "judged-decoder"), ("region-decoder", "judged-region-decoder")
"""Kinds of heads by form, without a discriminator and with one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Regions:
    """What was masked: ``pixels`` (N, C, R, R), and ``places`` (N, R, R) of them in the image, row · S + column.

    ``colour`` (N, C, 1, 1) is the mean of the visible pixels."""

    pixels: Tensor
    places: Tensor
    colour: Tensor


@TASKS.add("inpainting")
class Inpainting(Task):
    """Fill the masked region of an image; the loss is lambda_rec · L2 + lambda_adv · adversarial, averaged over views.

    Equations 1 to 3 of the paper. L2 is the mean squared error over the region's values. D, the discriminator, sees the
    region alone, not where it lies; it learns from the same fillings after each step of the stage, by the stage's kind
    of optimizer, and from nothing else. Departs from the paper: regions do not overlap the visible part.

    In the form ``picture``, ours, the masked pixels show the mean colour of the visible ones. The decoder makes the
    whole picture, of which the region is cut; a picture of another side is resized. The adversarial loss is -log
    D(filling), which does not saturate, in place of equation 2's log(1 - D).

    The form ``region`` is that of PyTorch-GAN: masked pixels are white, the decoder makes the region alone, errors are
    those of values from -1 to 1, as a tanh has them, and D gives a verdict on each patch, by least squares: the
    adversarial loss is (D(filling) - 1)², D's own is half of (D(region) - 1)² + D(filling)². It departs from that code
    in L2, where the code has the absolute error. Its encoder is the trunk ``gan-encoder``.

    The canonical view has one region in the centre and no augmentation. A perturbation of the views acts inside the
    region too, but not on the pixels to be filled in.

    Raises:
        SpecError: for settings that contradict each other.
        ImagesError: from ``views``, for images that are not square, or too small.

    Example:
        >>> from unfool import make_task
        >>> task = make_task("inpainting", {"masks": 2, "discriminator": 0, "lambda_adv": 0})
        >>> task.head_for({"block1": 64, "block2": 128, "last": 128}, {})["stage"]
        'block2'
    """

    reversal: ClassVar[Mapping[str, Any]] = {"place": "centre"}

    @configured
    class Settings:
        """Settings of the task inpainting."""

        form: Literal["picture", "region"] = Field(
            default="picture",
            description="The decoder makes the whole picture, or the region alone, as in PyTorch-GAN.",
        )
        region: float = Field(default=0.5, gt=0, lt=1, description="Side of the region, as a share of the image's.")
        masks: int = Field(default=1, ge=1, description="Views of an image, each with a region of its own.")
        place: Literal["random", "centre"] = Field(
            default="random", description="Where the region lies; in the centre there is one."
        )
        lambda_rec: float = Field(default=0.999, ge=0, allow_inf_nan=False, description="Weight of the L2 loss.")
        lambda_adv: float = Field(
            default=0.001, ge=0, allow_inf_nan=False, description="Weight of the adversarial loss."
        )
        augmentation: str = Field(default="none", description="Augmentation before masking, or none.")
        stage: str | None = Field(
            default=None, description="Trunk stage that the decoder reads; default: the last before pooling."
        )
        width: int = Field(
            default=128, ge=1, description="Channels of the decoder's first layer; PyTorch-GAN's has 4000."
        )
        side: int = Field(default=32, description="Pixels a side of the decoder's whole picture.")
        discriminator: int = Field(
            default=32, ge=0, description="Channels of the discriminator's first layer; 0: no discriminator."
        )
        discriminator_rate: float = Field(
            default=0.1,
            gt=0,
            allow_inf_nan=False,
            description="The discriminator's learning rate, as a share of the stage's; the paper's is a tenth.",
        )

        @property
        def views(self) -> int:
            """Views of an image when they are drawn."""
            return self.masks

    settings: Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        if settings.place == "centre" and settings.masks > 1:
            raise SpecError(f"masks={settings.masks} in the centre are one; give place=random, or masks=1")
        if settings.lambda_adv and not settings.discriminator:
            raise SpecError(
                f"lambda_adv={settings.lambda_adv:g} weights a discriminator's loss, and with discriminator=0 there "
                "is none; give it a width, or lambda_adv=0"
            )
        if not settings.lambda_rec + settings.lambda_adv:
            raise SpecError("lambda_rec=0 and lambda_adv=0 leave nothing to learn; give one of them")
        self.channels, self.reads = 3, ""
        self._latest: tuple[Tensor, Tensor, int] | None = None

    @classmethod
    def settings_of(cls, head: Mapping[str, HeadSetting]) -> dict[str, HeadSetting | bool]:
        """The form of a decoder, the stage that it reads, its sizes, and whether there is a discriminator."""
        decoder: dict[str, HeadSetting | bool] = {key: head[key] for key in ("stage", "width")}
        decoder |= {"form": "region"} if head["kind"] in REGION_HEADS else {"side": head["side"]}
        if "discriminator" in head:
            return {**decoder, "discriminator": head["discriminator"]}
        return {**decoder, "discriminator": 0, "lambda_adv": 0.0}

    @property
    def makes_regions(self) -> bool:
        """Whether the decoder makes the region alone."""
        return self.settings.form == "region"

    @property
    def optimizers(self) -> dict[str, ParameterGroup]:
        """The discriminator's own, if there is one."""
        if not isinstance(self.head, Discriminating):
            return {}
        parameters = tuple(self.head.discriminator.parameters())
        return {"discriminator": ParameterGroup(parameters=parameters, rate=self.settings.discriminator_rate)}

    def head_for(self, channels: Mapping[str, int], classes: Mapping[str, int]) -> HeadDescription:
        settings, spatial = self.settings, list(channels)[:-1]
        stage = settings.stage or spatial[-1]
        if stage not in spatial:
            raise unknown("spatial stage of the trunk", stage[:80], spatial)
        sizes: HeadDescription = {"inputs": channels[stage], "width": settings.width}
        sizes |= {"outputs": self.channels} if self.makes_regions else {"side": settings.side, "outputs": self.channels}
        plain, with_discriminator = REGION_HEADS if self.makes_regions else PICTURE_HEADS
        if not settings.discriminator:
            return {"kind": plain, "stage": stage, **sizes}
        return {"kind": with_discriminator, "stage": stage, **sizes, "discriminator": settings.discriminator}

    def bind(self, network: Network, name: str, classes: Mapping[str, int], streams: Streams) -> None:
        self.channels = network.mean.shape[1]
        self.reads = str(self.head_for(network.trunk.channels, classes)["stage"])
        super().bind(network, name, classes, streams)

    def views(self, batch: Batch, streams: Streams | None) -> Views:
        side = self._region(*batch.images.shape[2:])
        count = 1 if streams is None else self.settings.masks
        images = augmented(batch, self.settings.augmentation, count, streams)
        free = images.shape[3] - side
        if streams is None or self.settings.place == "centre":
            corners = torch.full((len(images), 2), free // 2, device=images.device)
        else:
            drawn = streams.named("inpainting").integers(batch.ids, free + 1, (count, 2))
            corners = drawn.transpose(0, 1).flatten(0, 1)
        rows, columns = (corners[..., None] + torch.arange(side, device=images.device)).unbind(1)
        places = rows[:, :, None] * images.shape[3] + columns[:, None, :]
        pixels = cut(images, places)
        visible = (images.sum((2, 3)) - pixels.sum((2, 3))) / (images.shape[3] ** 2 - side**2)
        colour = visible[:, :, None, None]
        shown = filled(images, torch.ones_like(pixels) if self.makes_regions else colour.expand_as(pixels), places)
        regions = Regions(pixels=pixels, places=places, colour=colour)
        return Views(images=shown, count=count, targets=regions, stage=self.reads)

    def fillings(self, outputs: Tensor, views: Views) -> Tensor:
        """What the decoder puts into the regions, (N, C, R, R) in [0,1]."""
        pictures = at_least_fp32(self.head(outputs))
        wanted = (views.targets.pixels if self.makes_regions else views.images).shape[2:]
        if pictures.shape[2:] != wanted:
            pictures = F.interpolate(pictures, wanted, mode="bilinear", align_corners=False)
        return pictures if self.makes_regions else cut(pictures, views.targets.places)

    def losses(self, outputs: Tensor, views: Views) -> Tensor:
        fillings, pixels = self.fillings(outputs, views), views.targets.pixels
        errors = (fillings - pixels).square().mean((1, 2, 3))
        losses = self.settings.lambda_rec * (4 * errors if self.makes_regions else errors)
        if isinstance(self.head, Discriminating):
            if self.settings.lambda_adv:
                losses = losses + self.settings.lambda_adv * self._doubts(self.head.discriminate(fillings), real=True)
            if self.learning:
                self._latest = pixels.detach(), fillings.detach(), views.count
        return losses.unflatten(0, (views.count, -1)).mean(0)

    def turn_losses(self, group: str) -> Tensor:
        """The discriminator's losses (B,) on the last losses' fillings."""
        if self._latest is None or not isinstance(self.head, Discriminating):
            raise SpecError(
                f"inpainting has nothing for its {group} to learn from; compute losses that are learnt from first"
            )
        (pixels, fillings, count), self._latest = self._latest, None
        real, filled = self.head.discriminate(torch.cat([pixels, fillings]), learning=True).chunk(2)
        losses = self._doubts(real, real=True) + self._doubts(filled, real=False)
        return (losses / 2 if self.makes_regions else losses).unflatten(0, (count, -1)).mean(0)

    def _doubts(self, verdicts: Tensor, *, real: bool) -> Tensor:
        """How far verdicts (N, ...) are from "real", or from "filling": a loss (N,)."""
        if not self.makes_regions:
            return F.softplus(-verdicts if real else verdicts)
        return (verdicts - float(real)).square().flatten(1).mean(1)

    def _region(self, height: int, width: int) -> int:
        """The region's side in pixels."""
        if height != width:
            raise ImagesError(f"inpainting got images of {height}×{width} pixels; give square images")
        side = max(1, round(self.settings.region * height))
        least = (SMALLEST_REGION if self.makes_regions else SMALLEST_PICTURE) if self.settings.discriminator else 1
        if not least <= side < height:
            raise ImagesError(
                f"region={self.settings.region:g} of images of {height} pixels is {side}, and {least} to {height - 1} "
                "are allowed; choose another region, or discriminator=0 for small ones"
            )
        return side


def cut(images: Tensor, places: Tensor) -> Tensor:
    """The regions (N, C, R, R) of images (N, C, S, S) at ``places`` (N, R, R)."""
    index = places.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).unflatten(2, places.shape[1:])


def filled(images: Tensor, fillings: Tensor, places: Tensor) -> Tensor:
    """Images (N, C, S, S) with fillings (N, C, R, R) put in at their ``places`` (N, R, R)."""
    index = places.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).scatter(2, index, fillings.flatten(2)).view_as(images)
