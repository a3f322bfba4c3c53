"""What an attack maximises: one value per image, and whether the image is misclassified already.

Legend: B images of the original batch, n of them still attacked, K classes.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfool.core.errors import ImagesError, SpecError, UnfoolWarning
from unfool.core.spec import unknown
from unfool.models.network import memory_format_of
from unfool.tasks.base import at_least_fp32

_TINY = 1e-12
"""Keeps a ratio of logit differences finite where all logits are equal."""

_ROUNDINGS = 64
"""Margins of fewer roundings of the largest logit are ties: another batch size may decide them otherwise."""

_MOST_ADDED = 1e30
"""Logits that are larger, up or down, count as this where they are added, so that float32 holds the sum."""

_MASKED = 1000.0
"""A logit so many times as large as the two that are compared masks its class, and says nothing of their rounding."""

_OVERWRITES = (
    "the model writes into its input, which would overwrite the attacked images; begin its forward with "
    "x = x.clone(), or write x = x * 2 for x.mul_(2)"
)


@dataclass(frozen=True, kw_only=True)
class ObjectiveValue:
    """An objective at n images.

    ``losses`` (n,) are differentiable in the images; ``fooled`` (n,) says which are misclassified, and is None for an
    objective that is no classification. ``tied`` (n,) says which of the others a rounding may decide, where the
    objective was asked to tell them apart. ``more_images`` went through the model beside one pass of all n a draw.
    """

    losses: Tensor
    fooled: Tensor | None = None
    tied: Tensor | None = None
    more_images: int = 0


def writes_into_input(error: RuntimeError) -> bool:
    """Whether a model failed as it wrote into its input, which torch forbids where a gradient by it is asked for."""
    return "leaf Variable that requires grad" in str(error)


class Objective(Protocol):
    """A function of images (n, C, H, W) and of their rows (n,) in the original batch."""

    def __call__(self, images: Tensor, rows: Tensor) -> ObjectiveValue: ...


def _logit_of(logits: Tensor, classes: Tensor) -> Tensor:
    """The logit of one class per image."""
    return logits.gather(1, classes[:, None]).squeeze(1)


def _highest_other(logits: Tensor, labels: Tensor) -> Tensor:
    """The highest logit of the classes other than the label."""
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def _cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _margin(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    return _highest_other(logits, labels) - _logit_of(logits, labels)


def _fall(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    # A class may be masked by the lowest number that there is, of which no two can be added.
    logits = logits.clamp(-_MOST_ADDED, _MOST_ADDED)
    own = _logit_of(logits, labels)
    return (logits.sum(1) - own) / max(1, logits.shape[1] - 1) - own


def _dlr(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    highest = logits.topk(3, dim=1).values
    return _margin(logits, labels, None) / (highest[:, 0] - highest[:, 2] + _TINY)


def _difference(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    if targets is None:
        raise SpecError("a targeted loss has no targets; give one target class per image")
    return _logit_of(logits, targets) - _logit_of(logits, labels)


def _dlr_targeted(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    highest = logits.topk(4, dim=1).values
    scale = highest[:, 0] - (highest[:, 2] + highest[:, 3]) / 2 + _TINY
    return _difference(logits, labels, targets) / scale


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "ce": _cross_entropy,
    "margin": _margin,
    "fall": _fall,
    "dlr": _dlr,
    "difference": _difference,
    "dlr-targeted": _dlr_targeted,
}
"""Losses (n,) of logits (n, K), labels (n,) and targets (n,); the higher, the closer to another class.

``ce``: cross-entropy. ``margin``: Carlini & Wagner 2017, the difference to the highest other logit. ``fall``: the
difference to the mean of the other logits, whichever class gains. ``dlr`` and ``dlr-targeted``: the margin and the
target's difference, over the spread of the highest logits, so that neither the scale nor the shift of the logits
matters (Croce & Hein, ICML 2020, equations 6 and 7). ``difference``: target minus label.
"""

FEWEST_CLASSES = {"dlr": (3, "margin"), "dlr-targeted": (4, "difference")}
"""How many classes a loss needs, and the loss that replaces it for fewer: the same without its denominator."""


def not_logits(outputs: object) -> str:
    """What is wrong with outputs that are no floating-point tensor, and what to do."""
    kind = f"a tensor of {outputs.dtype}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
    return (
        f"the model gave {kind}, not floating logits; give a model that maps images (B, C, H, W) to logits "
        "(B, classes); unfool.adapt(model) finds them in .logits, ['logits'] or the first of a tuple"
    )


def check_classes(logits: Tensor) -> None:
    """Refuse logits (n, 1), in which no other class can be predicted; raises ImagesError."""
    if logits.shape[1] == 1:
        raise ImagesError(
            "the model gives one logit, beside which no other class can be predicted; unfool.adapt(model) makes two "
            "classes of it, 1 where the logit is above 0"
        )


class LabelLoss:
    """A loss of a model's logits against labels; an image is fooled when the predicted class is not its label.

    The loss is computed in at least float32, whatever precision the model computes in. For a DLR loss of a model with
    too few classes it warns, and leaves out the denominator.

    Args:
        model: Maps images (n, C, H, W) to logits (n, K).
        labels: Labels of the whole batch (B,).
        loss: One of `LOSSES`.
        targets: Target classes (B,) of a targeted loss.
        draws: For a model that is random: passes that losses and logits are averaged over (expectation over
            transformation, Athalye et al., ICML 2018).
        by_row: Call the model with the images' rows as a second argument, for models that differ from image to image.

    Raises:
        ImagesError: The model's outputs are no logits, or a label is not among their classes.
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
        self.success_passes = 1
        self.by_row = by_row
        self.highest_label = int(labels.max()) if len(labels) else -1
        self.batch_rows: Tensor | None = None
        self.ties_count = True
        self.has_label_sets = _has_label_sets(model)
        self.memory_format = memory_format_of(model)

    def with_loss(self, loss: str, targets: Tensor | None = None) -> LabelLoss:
        """The same model and labels under another loss."""
        if loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        return self._replaced(loss=loss, targets=targets)

    def exact(self) -> LabelLoss | None:
        """The same on the fp32 copy that a bf16 proxy carries; None where the model carries none."""
        copied = getattr(self.model, "exact_copy", None)
        return None if copied is None else self._replaced(model=copied)

    def through(self, model: Callable[..., Tensor]) -> LabelLoss:
        """The same with logits that the model would give, from images in another form."""
        return self._replaced(model=model, by_row=False)

    def averaged(self, draws: int) -> LabelLoss:
        """The same, averaged over so many passes."""
        return self._replaced(draws=draws)

    def with_success_passes(self, passes: int) -> LabelLoss:
        """The same, by which an image of a random model is fooled only if so many passes in a row misclassify it."""
        return self._replaced(success_passes=passes)

    def beyond_ties(self) -> LabelLoss:
        """The same, by which an image is tied, not fooled, where another rounding may give it its label back."""
        return self._replaced(ties_count=False)

    def subset(self, rows: Tensor) -> LabelLoss:
        """The same for some rows of the batch, which are then counted from 0."""
        targets = None if self.targets is None else self.targets[rows]
        return self._replaced(labels=self.labels[rows], targets=targets, batch_rows=self.rows_in_batch(rows))

    def rows_in_batch(self, rows: Tensor) -> Tensor:
        """The rows of the original batch that rows of this subset are."""
        return rows if self.batch_rows is None else self.batch_rows[rows]

    def _replaced(self, **changed: Any) -> LabelLoss:
        other = copy.copy(self)
        for name, value in changed.items():
            setattr(other, name, value)
        return other

    def logits(self, images: Tensor, rows: Tensor) -> Tensor:
        """Logits (n, K), float32 or wider, checked; averaged over the draws."""
        passes = [self._pass(images, rows) for _ in range(self.draws)]
        return passes[0] if self.draws == 1 else torch.stack(passes).mean(0)

    def _pass(self, images: Tensor, rows: Tensor) -> Tensor:
        inputs = images.to(memory_format=self.memory_format)
        version = None if inputs.is_inference() else inputs._version
        try:
            outputs: Any = self.model(inputs, self.rows_in_batch(rows)) if self.by_row else self.model(inputs)
        except RuntimeError as error:
            if inputs.requires_grad and writes_into_input(error):
                raise ImagesError(_OVERWRITES) from error
            raise
        if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
            raise ImagesError(not_logits(outputs))
        logits = at_least_fp32(outputs)
        if version is not None and inputs._version != version:
            raise ImagesError(_OVERWRITES)
        if logits.ndim != 2 or len(logits) != len(images):
            raise ImagesError(
                f"the model gave outputs of shape {tuple(logits.shape)}; give logits of shape (B, classes)"
            )
        check_classes(logits)
        if self.highest_label >= logits.shape[1]:
            raise ImagesError(
                f"label {self.highest_label} lies beyond the model's {logits.shape[1]} classes; "
                "choose the data it was trained on"
            )
        return logits

    def __call__(self, images: Tensor, rows: Tensor) -> ObjectiveValue:
        labels = self.labels[rows]
        targets = None if self.targets is None else self.targets[rows]
        passes = [self._pass(images, rows) for _ in range(self.draws)]
        loss = LOSSES[self.usable_loss(passes[0].shape[1])]
        losses = [loss(logits, labels, targets) for logits in passes]
        mean, logits = (
            (losses[0], passes[0]) if self.draws == 1 else (torch.stack(losses).mean(0), torch.stack(passes).mean(0))
        )
        logits = logits.detach()
        fooled, more = self.fooled_by(logits, images, rows)
        if self.ties_count:
            return ObjectiveValue(losses=mean, fooled=fooled, more_images=more)
        own, other = _logit_of(logits, labels), _highest_other(logits, labels)
        sizes, compared = logits.abs(), torch.maximum(own.abs(), other.abs())
        largest = sizes.masked_fill(sizes > _MASKED * compared[:, None], 0.0).amax(1)
        clear = fooled & (other - own > _ROUNDINGS * torch.finfo(logits.dtype).eps * largest)
        return ObjectiveValue(losses=mean, fooled=clear, tied=fooled & ~clear, more_images=more)

    @torch.no_grad()
    def fooled_by(self, logits: Tensor, images: Tensor, rows: Tensor) -> tuple[Tensor, int]:
        """Which images (n,) are misclassified by their ``logits`` and by the other ``success_passes``, and how many
        images these took."""
        labels, more = self.labels[rows], 0
        fooled = logits.argmax(1) != labels
        for _ in range(self.success_passes - 1):
            places = fooled.nonzero().squeeze(1)
            if not len(places):
                break
            again = self.logits(images.detach()[places], rows[places])
            fooled[places] = again.argmax(1) != labels[places]
            more += len(places) * self.draws
        return fooled, more

    def usable_loss(self, classes: int) -> str:
        """The loss, or with too few classes, or sets of labels, the one that replaces it, from now on."""
        needed, instead = FEWEST_CLASSES.get(self.loss, (0, self.loss))
        if classes >= needed and not (needed and self.has_label_sets):
            return self.loss
        reason = f"needs {needed} classes and the model has {classes}"
        if classes >= needed:
            reason = "is constant where classes are sets of labels, whose logits fall as others rise"
        warnings.warn(f"loss {self.loss} {reason}; {instead} is used instead", UnfoolWarning, stacklevel=2)
        self.loss = instead
        return instead


def _has_label_sets(model: Callable[..., Tensor]) -> bool:
    """Whether the classes of a model are sets of labels (`adapt`)."""
    parts = model.modules() if isinstance(model, nn.Module) else ()
    return any(isinstance(getattr(part, "label_sets", None), Tensor) for part in parts)
