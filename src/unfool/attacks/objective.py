"""What a perturbation climbs: anything that gives one number per image, and perhaps whether the image is done.

Legend: B images of the original batch, n of them still in play, K classes.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from unfool.core.errors import ImagesError, SpecError, UnfoolWarning
from unfool.core.spec import unknown
from unfool.models.network import Network
from unfool.tasks.base import at_least_fp32

_TINY = 1e-12
"""Keeps a ratio of logit differences finite where all logits are equal."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveValue:
    """``losses`` (n,), differentiable in the images; ``fooled`` (n,) bool, or None where nothing can be fooled."""

    losses: Tensor
    fooled: Tensor | None = None


class Objective(Protocol):
    """Images (n, C, H, W) and the rows (n,) they have in the original batch → their losses, and who is fooled."""

    def __call__(self, images: Tensor, rows: Tensor) -> ObjectiveValue: ...


def _picked(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    """The highest logit of another class than the label's."""
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def _cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _margin(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    return _others(logits, labels) - _picked(logits, labels)


def _dlr(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    highest = logits.topk(3, dim=1).values
    return _margin(logits, labels, None) / (highest[:, 0] - highest[:, 2] + _TINY)


def _difference(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    if targets is None:
        raise SpecError("a targeted loss was asked for without targets; give one target class per image")
    return _picked(logits, targets) - _picked(logits, labels)


def _dlr_targeted(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    highest = logits.topk(4, dim=1).values
    scale = highest[:, 0] - (highest[:, 2] + highest[:, 3]) / 2 + _TINY
    return _difference(logits, labels, targets) / scale


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "ce": _cross_entropy,
    "margin": _margin,
    "dlr": _dlr,
    "difference": _difference,
    "dlr-targeted": _dlr_targeted,
}
"""Losses of logits (n, K), labels and targets (n,) → (n,); the higher, the closer to another class.

``ce``: cross-entropy. ``margin``: Carlini & Wagner 2017, the difference to the highest other logit. ``dlr`` and
``dlr-targeted``: the same and the target's difference, over the spread of the highest logits, so that neither the scale
nor the shift of the logits matters (Croce & Hein, ICML 2020, equations 6 and 7). ``difference``: target minus label.
"""

FEWEST_CLASSES = {"dlr": (3, "margin"), "dlr-targeted": (4, "difference")}
"""Classes that a loss needs, and the loss to fall back on: the same without its denominator."""


class LabelLoss:
    """A loss of a model's logits against the labels (B,); an image is fooled when its class is another one.

    ``loss`` is one of `LOSSES`; targeted ones take ``targets`` (B,). ``draws`` averages losses and logits over as many
    passes of a model that draws (EOT, Athalye et al., ICML 2018). With ``by_row`` the model is called with the images'
    rows beside them, for systems that differ from image to image. Logits enter the loss in at least float32, whatever
    precision the model computes in. With too few classes for a DLR loss it warns and leaves out the denominator. Raises
    ImagesError for outputs that are no logits, or labels beyond them.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        labels: Tensor,
        loss: str = "ce",
        *,
        targets: Tensor | None = None,
        draws: int = 1,
        by_row: bool = False,
    ):
        if loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        self.model = model
        self.labels = labels
        self.loss = loss
        self.targets = targets
        self.draws = draws
        self.by_row = by_row
        self.highest = int(labels.max()) if len(labels) else -1
        self.origin: Tensor | None = None
        # Channels-last images save a fifth of a network's time; a foreign model may rely on the strides it was given.
        self.memory = torch.channels_last if isinstance(model, Network) else torch.preserve_format

    def with_loss(self, loss: str, targets: Tensor | None = None) -> LabelLoss:
        """The same model and labels under another loss."""
        if loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        return self._but(loss=loss, targets=targets)

    def drawn(self, draws: int) -> LabelLoss:
        """The same, averaged over so many passes."""
        return self._but(draws=draws)

    def on(self, rows: Tensor) -> LabelLoss:
        """The same for some rows of the batch, which it counts from 0."""
        origin = rows if self.origin is None else self.origin[rows]
        targets = None if self.targets is None else self.targets[rows]
        return self._but(labels=self.labels[rows], targets=targets, origin=origin)

    def _but(self, **changed: Any) -> LabelLoss:
        other = copy.copy(self)
        for name, value in changed.items():
            setattr(other, name, value)
        return other

    def logits(self, images: Tensor, rows: Tensor) -> Tensor:
        """Logits (n, K), float32 or wider, checked; averaged over the draws."""
        passes = [self._pass(images, rows) for _ in range(self.draws)]
        return passes[0] if self.draws == 1 else torch.stack(passes).mean(0)

    def _pass(self, images: Tensor, rows: Tensor) -> Tensor:
        shown = images.to(memory_format=self.memory)
        where = (rows if self.origin is None else self.origin[rows],) if self.by_row else ()
        logits = at_least_fp32(self.model(shown, *where))
        if logits.ndim != 2 or len(logits) != len(images):
            raise ImagesError(
                f"the model gave outputs of shape {tuple(logits.shape)}; give logits of shape (B, classes)"
            )
        if self.highest >= logits.shape[1]:
            raise ImagesError(
                f"label {self.highest} lies beyond the model's {logits.shape[1]} classes; "
                "choose the data it was trained on"
            )
        return logits

    def __call__(self, images: Tensor, rows: Tensor) -> ObjectiveValue:
        labels = self.labels[rows]
        targets = None if self.targets is None else self.targets[rows]
        passes = [self._pass(images, rows) for _ in range(self.draws)]
        loss = LOSSES[self._possible(passes[0].shape[1])]
        losses = [loss(logits, labels, targets) for logits in passes]
        mean, logits = (
            (losses[0], passes[0]) if self.draws == 1 else (torch.stack(losses).mean(0), torch.stack(passes).mean(0))
        )
        return ObjectiveValue(losses=mean, fooled=logits.detach().argmax(1) != labels)

    def _possible(self, classes: int) -> str:
        needed, instead = FEWEST_CLASSES.get(self.loss, (0, self.loss))
        if classes >= needed:
            return self.loss
        warnings.warn(
            f"loss {self.loss} needs {needed} classes and the model has {classes}; {instead} is used instead",
            UnfoolWarning,
            stacklevel=2,
        )
        self.loss = instead
        return instead
