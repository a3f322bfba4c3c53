"""What a defense is, and the table of all defenses.

Legend: B images, D reversals of each (draw-major), K logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unfool.core.batch import check_images
from unfool.core.config import parse_settings
from unfool.core.errors import ImagesError, SpecError
from unfool.core.registry import Registry
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.defenses.objective import DefenseAware
from unfool.models.modes import frozen_eval
from unfool.tasks.base import at_least_fp32


class Defense(nn.Module):
    """Images (B, C, H, W) in [0,1] → logits (B, K), in two halves: what the network is shown, and what it makes of it.

    A fixed function of each image, without a gradient: all draws come from the defense's own seed, and, unless
    ``batch_dependent``, no prediction depends on batch-mates (to float rounding, which another batch size may change,
    and which the sign of a gradient may magnify). ``ids`` (B,) name the images for the draws; without them all images
    share theirs, so that neither place nor pixels choose them. Modes, parameters, ``.grad`` and the global random state
    stay as they are. Raises ImagesError for images that break the contract.
    """

    def __init__(self):
        super().__init__()
        # All that it runs is in eval mode, whatever it is told: a mode of its own would only look like a mistake.
        self.training = False

    @property
    def classifier(self) -> nn.Module:
        """The static network, which the defense stands before: the one to judge it against."""
        raise SpecError(f"defense {type(self).__name__} names no classifier; define classifier")

    @property
    def batch_dependent(self) -> bool:
        """Whether predictions depend on batch-mates, as in-batch negatives make them."""
        return False

    @property
    def images_per_prediction(self) -> int:
        """How many images go through the network for one prediction, at the most."""
        raise SpecError(f"defense {type(self).__name__} does not tell its cost; define images_per_prediction")

    def shown(
        self, images: Tensor, ids: Tensor | None = None, streams: Streams | None = None, exact: bool = False
    ) -> Tensor:
        """What the network is shown in place of the images, (D·B, C, H, W).

        ``streams`` replace those of the defense's seed. ``exact`` gives the same values with their gradient by the
        images, through all that was done to them; else there is none.
        """
        raise SpecError(f"defense {type(self).__name__} shows nothing; define shown")

    def logits(self, points: Tensor, images: Tensor, ids: Tensor | None = None) -> Tensor:
        """Logits (B, K) of points that were shown for images, averaged over D; differentiable by the points."""
        with frozen_eval(self.classifier):
            found = at_least_fp32(self.classifier(points))
        return found if len(found) == len(images) else found.unflatten(0, (-1, len(images))).mean(0)

    def aware(
        self,
        labels: Tensor,
        weight: float,
        loss: str = "ce",
        *,
        model: nn.Module | None = None,
        streams: Streams | None = None,
    ) -> DefenseAware:
        """The objective of an attacker who minds the defense: a label loss of ``model`` (default: the classifier) less
        ``weight`` times what the defense would notice, on draws of ``streams`` (default: the defense's own)."""
        raise SpecError(f"defense {type(self).__name__} has no objective of its own; define aware")

    def forward(self, images: Tensor, ids: Tensor | None = None) -> Tensor:
        # A caller's inference mode would forbid the gradients that the defense itself takes.
        with torch.inference_mode(False), torch.no_grad():
            images = images.clone() if images.is_inference() else images
            return self.logits(self.shown(images, ids), images, ids)


def checked_ids(images: Tensor, ids: Tensor | None) -> Tensor:
    """Check images and ids; without ids every image has number 0. Raises ImagesError."""
    check_images(images)
    if ids is None:
        return torch.zeros(len(images), dtype=torch.int64, device=images.device)
    if ids.shape != images.shape[:1] or ids.dtype != torch.int64:
        given = f"{ids.dtype} of shape {tuple(ids.shape)}"
        raise ImagesError(f"ids are {given}; give one int64 number per image, shape ({len(images)},)")
    return ids


class Factory(Protocol):
    """Makes a defense of a network from settings; ``data`` are images to calibrate on, whose labels are not read."""

    def __call__(
        self,
        name: str,
        network: nn.Module,
        classes: Mapping[str, int],
        values: Mapping[str, Any],
        data: Table | None,
        streams: Streams,
    ) -> Defense: ...


DEFENSES: Registry[Factory] = Registry("defense", "unfool.defenses")


def make_defense(
    text: str,
    network: nn.Module,
    classes: Mapping[str, int],
    *,
    data: Table | None = None,
    streams: Streams | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Defense:
    """Make a defense from ``reverse:task=contrast,steps=10,eps=16/255`` or ``gate:rate=0.05,steps=10``.

    Settings of the task stand among those of the defense. ``data`` calibrates what is calibrated (a bank of negatives,
    a gate's threshold); give images cut from train that no head was trained on. ``streams`` are the seed (default 0),
    ``settings`` keys that the text does not set. Raises SpecError with the nearest name for anything unknown, for a
    head that the network lacks, for one of another task or that was trained with other settings, and for a task with
    labels, DataError for too few images.
    """
    name, given = parse_settings(text)
    return DEFENSES[name](name, network, classes, {**(settings or {}), **given}, data, streams or Streams(0))
