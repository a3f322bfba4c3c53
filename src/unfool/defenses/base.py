# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What a defense is, and what it may declare about itself so that attacks, audits and reports can ask for it.

Legend: B images, D purified images for each (draw-major), K logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unfool.core.batch import check_images
from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.defenses.detector import Detector
from unfool.defenses.pretext import PretextLoss, PretextObjective
from unfool.models.modes import frozen_eval
from unfool.tasks.base import at_least_fp32


@dataclass(frozen=True, kw_only=True)
class Purified:
    """What a defense made of some images.

    Args:
        images: The purified images, (D·B, C, H, W), draw-major.
        losses: The pretext losses along the way, (steps + 1, D·B), each on its own step's views; None if the defense
            does not keep them.
        model_images: How many images went through the network for it; None if the defense does not count them.

    Example:
        >>> from unfool.defenses import Purified
        >>> Purified(images=torch.full((2, 3, 8, 8), 0.5)).losses is None
        True
    """

    images: Tensor
    losses: Tensor | None = None
    model_images: int | None = None


class Defense(nn.Module):
    """A classifier behind a defense: images (B, C, H, W) in [0,1] → logits (B, K).

    A defense works in two halves: `purified_images` gives what the network sees in place of the images, and `logits`
    what it makes of them. It is a fixed function of each image, without a gradient: all draws come from the defense's
    own seed, and, unless ``batch_dependent``, no prediction depends on batch-mates (to float rounding, which another
    batch size may change, and which the sign of a gradient may magnify). Modes, parameters, ``.grad`` and the global
    random state stay as they are.

    A subclass defines ``classifier``, ``images_per_prediction`` and ``purified_images``. It may declare more, and what
    it declares decides how it is attacked and reported (`unfool.ladder`, `unfool.audit`):

    ==========================  ====================================================================================
    ``pretext``                 its pretext loss: attackers keep it low, audits and pictures show it
    ``gate``                    the `Detector` that decides which images it acts on: attackers stay below it
    ``exact_gradient``          ``purified_images(..., differentiable=True)`` gives the true gradient
    ``threat``                  the ball in which it moves images: an audit compares it with noise of that size
    ``abstains``                the last logit is an abstention
    ==========================  ====================================================================================

    Call it with ``ids`` (B,) int64 to name the images for the draws; without them all images share theirs, so that
    neither place nor pixels choose them. Raises ImagesError for images that break the contract.

    Example:
        >>> import torch
        >>> from unfool.defenses import Defense
        >>> class Rounded(Defense):
        ...     images_per_prediction = 1
        ...     def __init__(self, network):
        ...         super().__init__()
        ...         self.network = network
        ...     @property
        ...     def classifier(self):
        ...         return self.network
        ...     def purified_images(self, images, ids=None, streams=None, differentiable=False):
        ...         return (images * 15).round() / 15
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> Rounded(network)(torch.full((2, 3, 8, 8), 0.5)).shape
        torch.Size([2, 10])
    """

    draws: int = 1
    """How many purified images D there are for each image; their logits are averaged."""
    redraw: bool = True
    """Whether the pretext loss takes fresh views at every step."""
    exact_gradient: bool = False
    """Whether ``differentiable=True`` gives the exact gradient; otherwise it is what autograd finds, if anything."""
    recomputes: bool = False
    """Whether the exact gradient sends the images through the network a second time on the way back."""
    abstains: bool = False
    """Whether there is one logit more, (B, K + 1), whose class means that the defense refuses the image."""

    def __init__(self):
        super().__init__()
        # All that it runs is in eval mode, whatever it is told: a mode of its own would only look like a mistake.
        self.training = False

    @property
    def classifier(self) -> nn.Module:
        """The undefended network inside, which the defense is compared with."""
        raise SpecError(f"defense {type(self).__name__} names no classifier; define classifier")

    @property
    def batch_dependent(self) -> bool:
        """Whether predictions depend on batch-mates, as in-batch negatives make them."""
        return False

    @property
    def own_batch_size(self) -> int | None:
        """How many images are purified together where predictions depend on batch-mates; None where they do not.

        Attacks, whose images leave them one by one, show fewer, and a single one too: the defense must take any number.
        """
        return None

    @property
    def images_per_prediction(self) -> int:
        """How many images go through the network for one prediction, at the most."""
        raise SpecError(f"defense {type(self).__name__} does not state its cost; define images_per_prediction")

    @property
    def threat(self) -> ThreatModel | None:
        """The ball in which images are moved; None if there is none."""
        return None

    @property
    def purifier(self) -> Defense:
        """The part that changes images, without what decides when to; the defense itself unless it has a gate."""
        return self

    @property
    def pretext(self) -> PretextLoss | None:
        """The pretext loss that the defense descends or tests, on the network itself; None if there is none."""
        return None

    @property
    def pretext_proxy(self) -> PretextLoss | None:
        """A cheaper copy of ``pretext`` to take gradients on; by default the same."""
        return self.pretext

    @property
    def gate(self) -> Detector | None:
        """The test that decides which images the defense acts on; None if it acts on all."""
        return None

    def purified_images(
        self,
        images: Tensor,
        ids: Tensor | None = None,
        streams: Streams | None = None,
        differentiable: bool = False,
    ) -> Tensor:
        """What the network sees in place of the images, (D·B, C, H, W).

        Args:
            images: (B, C, H, W) in [0,1].
            ids: (B,) int64, which name the images for the draws; default 0 for all.
            streams: Draws in place of those of the defense's own seed.
            differentiable: Give the same values with their gradient by the images; otherwise they have none.
        """
        raise SpecError(f"defense {type(self).__name__} purifies nothing; define purified_images")

    def purify(self, images: Tensor, ids: Tensor | None = None, streams: Streams | None = None) -> Purified:
        """The purified images with what the defense knows of the way there."""
        return Purified(images=self.purified_images(images, ids, streams))

    def logits(self, points: Tensor, images: Tensor, ids: Tensor | None = None) -> Tensor:
        """Logits (B, K) of the purified ``points`` of ``images``, averaged over D; differentiable by the points."""
        with frozen_eval(self.classifier):
            logits = at_least_fp32(self.classifier(points))
        return logits if len(logits) == len(images) else logits.unflatten(0, (-1, len(images))).mean(0)

    def objective(self, ids: Tensor, streams: Streams) -> PretextObjective:
        """The pretext loss as an objective for images with those ids (B,); SpecError for a defense without one."""
        if self.pretext_proxy is None:
            raise SpecError(f"defense {type(self).__name__} has no pretext loss; define pretext")
        return PretextObjective(self.pretext_proxy, ids, streams.named("views"), redraw=self.redraw)

    def forward(self, images: Tensor, ids: Tensor | None = None) -> Tensor:
        # A caller's inference mode would forbid the gradients that the defense itself takes.
        with torch.inference_mode(False), torch.no_grad():
            ids = checked_ids(images, ids)
            images = images.clone() if images.is_inference() else images
            return self.logits(self.purified_images(images, ids), images, ids)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.classifier).__name__})"


def checked_ids(images: Tensor, ids: Tensor | None) -> Tensor:
    """Check images and ids; without ids every image has number 0. Raises ImagesError."""
    check_images(images)
    if ids is None:
        return torch.zeros(len(images), dtype=torch.int64, device=images.device)
    if ids.shape != images.shape[:1] or ids.dtype != torch.int64:
        shape = f"{ids.dtype} of shape {tuple(ids.shape)}"
        raise ImagesError(f"ids are {shape}; give one int64 number per image, shape ({len(images)},)")
    return ids
