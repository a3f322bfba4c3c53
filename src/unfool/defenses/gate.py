# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The gate: purify, or abstain, only where the pretext loss looks attacked.

Legend: B images, K classes, D purified images of each.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unfool.core.batch import spans_of_mates
from unfool.core.config import configured
from unfool.core.errors import DataError, SpecError, UnfoolWarning
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.defenses.base import Defense, checked_ids
from unfool.defenses.calibration import calibrate_threshold
from unfool.defenses.detector import Detector
from unfool.defenses.pretext import PretextLoss
from unfool.defenses.registry import DEFENSES, DefenseRequest
from unfool.defenses.reverse import make_reverse
from unfool.models.modes import frozen_eval

Action = Literal["reverse", "abstain"]

LOSS_DRAWS = 4
"""Draws of views that a gate's loss is averaged over."""
_CHUNK = 256
"""Clean images a pass."""
_MOST = 2048
"""Clean images that a threshold is made of, at the most."""


def gate_losses(pretext: PretextLoss, images: Tensor, *, draws: int = LOSS_DRAWS, seed: int = 0) -> Tensor:
    """Pretext losses (B,) on fixed draws, averaged over ``draws`` of them; differentiable in the images.

    ``seed`` alone chooses the draws, the same for every image, since a threshold holds for the draws that it was set
    on. Raises ImagesError for images that break the contract.
    """
    ids = checked_ids(images, None)
    streams = Streams(seed).named("gate")
    return torch.stack([pretext(images, ids, streams.at(draw)) for draw in range(draws)]).mean(0)


class Gate(Defense):
    """A defense that acts only on images whose pretext loss, on fixed draws of views, is above a threshold.

    `Gate.calibrated` sets the threshold from clean images. Called as a module on images (B, C, H, W) in [0,1] it gives
    logits: (B, K) with ``action="reverse"``, which purifies the images above the threshold and classifies the others as
    they are; (B, K + 1) with ``action="abstain"``, which purifies none: the last logit is the highest of the others
    plus the loss's excess over the threshold, so that the last class, abstention, wins exactly above it.

    Args:
        defense: The defense inside, such as `Reverse`; it must have a pretext loss.
        threshold: It acts on images whose loss is above it.
        action: ``"reverse"`` or ``"abstain"``.
        loss_draws: Draws of views that the loss is averaged over.
        seed: The seed of these draws; default that of the defense inside.

    Raises:
        SpecError: For another action, and for a defense without a pretext loss.

    Example:
        >>> import torch
        >>> from unfool import Linf, Network, TrunkSpec, defenses
        >>> heads = {"labels": {"kind": "linear", "outputs": 4}, "rotation": {"kind": "linear", "outputs": 4}}
        >>> network = Network.build(TrunkSpec(name="convnet", widths=(4, 8, 8)), heads, classifier="labels").eval()
        >>> reverse = defenses.Reverse(network, "rotation", threat=Linf(8/255), steps=3)
        >>> gate = defenses.Gate(reverse, threshold=1.5, action="abstain")
        >>> gate
        Gate(Reverse(Network, Rotation, linf:8/255, steps=3), abstain above 1.5)
        >>> gate(torch.full((2, 3, 16, 16), 0.5)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        defense: Defense,
        threshold: float,
        action: Action = "reverse",
        loss_draws: int = LOSS_DRAWS,
        seed: int | None = None,
    ):
        super().__init__()
        if action not in ("reverse", "abstain"):
            raise unknown("action", str(action), ("reverse", "abstain"))
        if defense.pretext is None:
            raise SpecError(f"defense {type(defense).__name__} has no pretext loss for a gate to test; give another")
        self.defense = defense
        self.threshold = threshold
        self.action: Action = action
        self.loss_draws = loss_draws
        self.seed = int(getattr(defense, "seed", 0)) if seed is None else seed
        self.draws = 1 if action == "abstain" else defense.draws
        self.exact_gradient = defense.exact_gradient
        self.recomputes = defense.recomputes
        self.abstains = action == "abstain"

    @classmethod
    def calibrated(
        cls,
        defense: Defense,
        calibrate_on: Table,
        *,
        rate: float = 0.05,
        action: Action = "reverse",
        loss_draws: int = LOSS_DRAWS,
        seed: int | None = None,
    ) -> Gate:
        """A gate that clean images trigger at a stated rate, with 95 % confidence (see `calibrate_threshold`).

        Args:
            defense: As for `Gate`.
            calibrate_on: Clean images that neither the network nor the defense has seen; their labels are not read. Of
                a defense with in-batch negatives only whole batches count: among fewer mates losses are lower.
            rate: The highest rate of false triggers, between 0 and 1.
            action: As for `Gate`.
            loss_draws: As for `Gate`.
            seed: As for `Gate`.

        Raises:
            SpecError: For too few images to show the rate, a rate outside (0,1), and what `Gate` refuses. Warns
                (UnfoolWarning) of fewer images than a batch of the defense's own.
        """
        gate = cls(defense, float("inf"), action, loss_draws, seed)
        device, own = next(defense.classifier.parameters()).device, gate.own_batch_size
        if own is not None and len(calibrate_on) < own:
            warnings.warn(
                f"the gate's threshold is set among {len(calibrate_on)} images, and its batches have {own}, among "
                f"which losses are higher: it will act on more clean images than stated; give {own} images or more, "
                "or a smaller batch_size",
                UnfoolWarning,
                stacklevel=2,
            )
        with torch.no_grad():
            losses = [
                gate.losses(calibrate_on.batch(torch.arange(rows.start, rows.stop), device).images)
                for rows in gate.batches_of(len(calibrate_on))
            ]
        gate.threshold = calibrate_threshold(torch.cat(losses), rate)
        return gate

    @property
    def classifier(self) -> nn.Module:
        return self.defense.classifier

    @property
    def batch_dependent(self) -> bool:
        return self.defense.batch_dependent

    @property
    def own_batch_size(self) -> int | None:
        return self.defense.own_batch_size

    @property
    def images_per_prediction(self) -> int:
        """That of an image above the threshold; below it, only the gate's own looks and the classification."""
        looks = self.gate.images_per_loss
        return looks + (1 if self.action == "abstain" else self.defense.images_per_prediction)

    @property
    def purifier(self) -> Defense:
        return self.defense.purifier

    @property
    def pretext(self) -> PretextLoss | None:
        return self.defense.pretext

    @property
    def pretext_proxy(self) -> PretextLoss | None:
        return self.defense.pretext_proxy

    @property
    def gate(self) -> Detector:
        """The loss that the threshold is set against."""
        views = 1 if self.pretext is None else self.pretext.images_per_loss
        return Detector(losses=self.losses, threshold=self.threshold, images_per_loss=self.loss_draws * views)

    def batches_of(self, count: int) -> list[slice]:
        """Batches of ``count`` images to set or to test a threshold on: whole ones where mates matter, if there are."""
        own = self.own_batch_size
        if own is None:
            return spans_of_mates(count, _CHUNK)
        whole = [slice(start, start + own) for start in range(0, count - own + 1, own)]
        return whole or [slice(0, count)]

    def losses(self, images: Tensor) -> Tensor:
        """The losses (B,) that the threshold is set against, of images among the mates that they are purified among;
        differentiable in the images."""
        pretext = self.defense.pretext
        if pretext is None:
            raise SpecError(f"defense {type(self.defense).__name__} has no pretext loss any more")
        with frozen_eval(self.defense):
            cuts = spans_of_mates(len(images), self.own_batch_size or max(1, len(images)))
            losses = [gate_losses(pretext, images[rows], draws=self.loss_draws, seed=self.seed) for rows in cuts]
        return torch.cat(losses)

    def purified_images(
        self,
        images: Tensor,
        ids: Tensor | None = None,
        streams: Streams | None = None,
        differentiable: bool = False,
    ) -> Tensor:
        """The purified images where the gate acts, the images themselves elsewhere; (D·B, C, H, W)."""
        ids = checked_ids(images, ids)
        if self.action == "abstain":
            return images
        with torch.no_grad():
            rows = (self.losses(images) > self.threshold).nonzero().squeeze(1)
        points = images.repeat(self.draws, 1, 1, 1)
        if not len(rows):
            return points
        # In-batch negatives need the whole batch, acted on or not.
        chosen = torch.arange(len(images), device=images.device) if self.batch_dependent else rows
        purified = self.defense.purified_images(images[chosen], ids[chosen], streams, differentiable)
        places = (torch.arange(self.draws, device=rows.device)[:, None] * len(images) + rows).flatten()
        if self.batch_dependent:
            purified = purified[places]
        return points.index_copy(0, places, purified)

    def logits(self, points: Tensor, images: Tensor, ids: Tensor | None = None) -> Tensor:
        logits = super().logits(points, images, ids)
        if self.action == "reverse":
            return logits
        excess = self.losses(images) - self.threshold
        return torch.cat([logits, (logits.amax(1) + excess)[:, None]], dim=1)

    def __repr__(self) -> str:
        return f"Gate({self.defense!r}, {self.action} above {self.threshold:.4g})"


@configured
class GateSettings:
    """The stated rate of false triggers, and what to do above the threshold; all other settings are the reversal's."""

    rate: float = Field(default=0.05, gt=0, lt=1)
    action: Action = "reverse"


@DEFENSES.add("gate")
def make_gate(request: DefenseRequest) -> Gate:
    """A reverse attack behind a gate; images to calibrate on are cut in two, for the task's bank and the threshold."""
    own = {field.name for field in dataclasses.fields(GateSettings)}  # type: ignore[arg-type]
    values, others = {}, {}
    for key, value in request.values.items():
        (values if key in own else others)[key] = value
    settings = dataclasses.replace(request, values=values).settings(GateSettings)
    if request.images is None:
        raise DataError("a gate was asked for without images to set its threshold on; give images cut from train")
    # Images of the bank would not be fresh to the gate.
    clean = request.images.sample(min(len(request.images) // 2, _MOST), request.streams.named("gate"))
    rest = request.images.subset(~torch.isin(request.images.ids, clean.ids))
    defense = make_reverse(dataclasses.replace(request, values=others, images=rest))
    return Gate.calibrated(defense, clean, rate=settings.rate, action=settings.action)
