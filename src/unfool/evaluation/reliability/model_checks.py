"""Checks of the model alone, before any attack: is it a fixed function from single images to logits?

Croce & Hein 2020 (their code's checks) and Carlini et al., "On Evaluating Adversarial Robustness", 2019.

Legend: B images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unfool.attacks import Attack
from unfool.attacks.objective import FEWEST_CLASSES, LabelLoss
from unfool.core.errors import NonFiniteError
from unfool.evaluation.reliability.flags import marked
from unfool.evaluation.reliability.precision import is_half, rounds_float32
from unfool.evaluation.results.reliability import Flag
from unfool.evaluation.statistics.paired import mcnemar
from unfool.models.foreign import ForeignClassifier
from unfool.models.modes import parts_in_train_mode
from unfool.models.network import NORMALISATIONS, Network

SAME = 1e-4
"""Difference of two passes, relative to the largest logit, up to which they count as the same: float32 kernels that
add in another order for another batch size differ by 1e-6, over many layers by 1e-5."""
SAME_COARSE = 0.03
"""The same where a model computes in 8 to 11 bits (bf16, fp16, TF32): a few of their roundings."""
ALONE = 8
"""Images that are shown alone and among other mates."""
RISE = 0.05
"""Rise of the clean accuracy that makes a missing normalisation: less could be a model's taste for contrast."""
CERTAIN = 1e-3
"""Error rate of that test, for each of the normalisations tried."""
FEWEST_IMAGES = 11
"""Below this many images even a rise on all of them is not certain (2 · 2⁻¹⁰ > 0.001)."""
BYTES = "images in 0–255"
COMMON = {
    **{name: values for name, values in NORMALISATIONS.items() if name != "none"},
    "0.5": ((0.5,), (0.5,)),
    BYTES: ((0.0,), (1 / 255,)),
}
"""Normalisations that classifiers are trained with, mean and standard deviation by the name that --mean takes."""


class Subject:
    """The model that is checked, and images (B, C, H, W) with labels and ids to check it on.

    Counts the images that pass through it. The model is in eval mode and frozen: see `frozen_eval`. ``first_logits``
    (B, K) are those of an earlier pass over the images.
    """

    def __init__(
        self, model: nn.Module, images: Tensor, labels: Tensor, ids: Tensor, first_logits: Tensor | None = None
    ):
        self.model = model
        self.images = images
        self.labels = labels
        self.ids = ids
        self.objective = LabelLoss(model, labels)
        self.model_images = 0
        self._first_logits = first_logits

    @property
    def first_logits(self) -> Tensor:
        """Logits of the images in the first pass over them."""
        if self._first_logits is None:
            self._first_logits = self.logits(self.images)
        return self._first_logits

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits of any images in one pass; ImagesError for outputs that are none, NonFiniteError for NaN."""
        logits = self.objective.logits(images, torch.arange(len(images), device=images.device))
        self.model_images += len(images)
        if not torch.isfinite(logits).all():
            raise NonFiniteError("the model gave NaN or infinite logits; check its weights")
        return logits

    def on(self, rows: Tensor, first_logits: Tensor | None = None) -> Subject:
        """The same model with some of the images."""
        return Subject(self.model, self.images[rows], self.labels[rows], self.ids[rows], first_logits)

    def changed(self, first: Tensor, second: Tensor) -> Tensor:
        """Which images (B,) have other logits (B, K), by more than rounding; a shift of all logits is not seen."""
        scale = (first - first.mean(1, keepdim=True)).abs().max()
        return (first - second).abs().amax(1) > (SAME_COARSE if self.coarse else SAME) * scale

    @property
    def half(self) -> bool:
        """Whether the model computes in half precision."""
        return is_half(self.model)

    @property
    def coarse(self) -> bool:
        """Whether the model computes in 8 to 11 bits, whose roundings hide small changes."""
        return self.half or rounds_float32(self.images.device)


def train_mode(model: nn.Module) -> Flag | None:
    """Flag a model of which a part is in train mode when it is handed over, and gives something else there."""
    parts = parts_in_train_mode(model)
    if not parts:
        return None
    text = (
        f"{len(parts)} parts of the model are in train mode ({parts[0]} first); unfool judges in eval mode, but any "
        "other tool would see dropout and batch statistics: call model.eval()"
    )
    return Flag(name="train-mode", text=text)


def randomised_output(subject: Subject, attacks: Sequence[Attack] = ()) -> Flag | None:
    """Flag a model that gives the same images other logits a second time, or in reversed order.

    The advice is to average an attack over draws, unless one of ``attacks``, which were run, does.
    """
    first = subject.first_logits
    again = subject.logits(subject.images)
    reverse = subject.logits(subject.images.flip(0)).flip(0)
    changed = subject.changed(first, again) | subject.changed(first, reverse)
    if not changed.any():
        return None
    averaged = any(attack.averaged_passes > 1 for attack in attacks)
    return marked(
        "randomised-output",
        changed,
        subject.ids,
        "{count} of {total} images got other logits when they were shown again: the model is random, and an attack "
        f"that sees one draw is misled; {'' if averaged else 'attack it with autoattack:version=rand, and '}"
        "evaluate it on several seeds",
    )


def batch_dependence(subject: Subject) -> Flag | None:
    """Flag a model whose logits for an image depend on the other images of the batch."""
    few = subject.images[:ALONE]
    expected = subject.first_logits[: len(few)]
    try:
        alone = torch.cat([subject.logits(image) for image in few.split(1)])
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        text = (
            f"the model fails on a single image ({type(error).__name__}), though not on a batch: a prediction depends "
            "on its batch; make its forward pass hold for a batch of one"
        )
        return Flag(name="batch-dependence", text=text)
    changed = subject.changed(expected, alone)
    for mates in (1 - subject.images, torch.zeros_like(few)):
        changed |= subject.changed(expected, subject.logits(torch.cat([few, mates]))[: len(few)])
    if not changed.any():
        return None
    return marked(
        "batch-dependence",
        changed,
        subject.ids[: len(few)],
        "{count} of {total} images get other logits alone or among other images: a prediction depends on its batch, "
        "and so do attack and accuracy; remove the batch statistics, or evaluate and attack one image at a time",
    )


class _Watch(TorchFunctionMode):
    """Sees whether a gradient is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.gradient_computed = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.gradient_computed |= func in (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
        return func(*args, **(kwargs or {}))


def dynamic_inference(subject: Subject) -> Flag | None:
    """Flag a model that computes gradients while it classifies."""
    with _Watch() as watch:
        subject.logits(subject.images[:ALONE])
    if not watch.gradient_computed:
        return None
    text = (
        "the model calls autograd while it classifies: it is a dynamic defense, and an attack on it as a fixed "
        "function may miss; attack it adaptively, through its own steps, and by transfer from the bare network"
    )
    return Flag(name="dynamic-inference", text=text)


def few_classes(classes: int, attacks: Sequence[Attack]) -> Flag | None:
    """Flag attacks (of AutoAttack, if none are in use) whose loss needs more classes than there are."""
    short = {loss for loss, (needed, _) in FEWEST_CLASSES.items() if needed > classes}
    names = [part.name for attack in attacks for part in attack.parts if part.loss in short]
    if not (short and (names or not attacks)):
        return None
    which = ", ".join(dict.fromkeys(names)) or f"any attack on {' or '.join(sorted(short))}"
    text = (
        f"the model has {classes} classes: {which} falls back on a loss without its denominator, and the suite is "
        "weaker than published; add cw-pgd with restarts"
    )
    return Flag(name="few-classes", text=text)


def short_steps(attacks: Iterable[Attack]) -> Flag | None:
    """Flag attacks whose steps, all in one direction, would still end inside the ball."""
    sentences = []
    for part in (part for attack in attacks for part in attack.parts):
        steps, size = getattr(part.engine, "steps", None), getattr(part.engine, "step_size", None)
        eps = part.engine.threat.eps
        # Rounding must not turn ten steps of a tenth into less than the whole.
        if steps is not None and size is not None and steps * size < eps * (1 - 1e-6):
            sentences.append(f"{part.name} moves by at most {steps} × {size:.4g} = {steps * size:.4g} of eps {eps:.4g}")
    if not sentences:
        return None
    text = f"{'; '.join(sentences)}: it cannot cross the ball; give more steps or longer ones"
    return Flag(name="short-steps", text=text)


def normalises(model: nn.Module) -> bool:
    """Whether the model is known to normalise its images."""
    return any(
        (isinstance(part, Network) and bool((part.mean != 0).any() or (part.std != 1).any()))
        or (isinstance(part, ForeignClassifier) and part.normalises)
        for part in model.modules()
    )


def missing_normalisation(subject: Subject, correct: Tensor, batch_size: int) -> Flag | None:
    """Flag a model that classifies clean images much better behind a common normalisation than ``correct`` says."""
    best: tuple[float, str, int] | None = None
    if int((~correct).sum()) < max(RISE * len(correct), FEWEST_IMAGES):
        return None  # Even all of the wrong ones would be too few.
    for name, (mean, std) in COMMON.items():
        if len(mean) not in (1, subject.images.shape[1]):
            continue
        shift, scale = (subject.images.new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
        try:
            pieces = ((subject.images - shift) / scale).split(batch_size)
            better = torch.cat([subject.logits(piece) for piece in pieces]).argmax(1) == subject.labels
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:
            # A model that refuses images outside [0,1] was not trained on any.
            continue
        gained, lost = int((better & ~correct).sum()), int((correct & ~better).sum())
        chance = mcnemar(gained, lost)
        if gained - lost >= RISE * len(correct) and chance < CERTAIN and (best is None or chance < best[0]):
            best = chance, name, int(better.sum())
    if best is None:
        return None
    text = (
        f"behind the normalisation {best[1]} the model gets {best[2]} of {len(correct)} clean images right instead of "
        f"{int(correct.sum())}: it was trained on normalised images; give --mean {best[1]} --std {best[1]}"
    )
    if best[1] == BYTES:
        text = (
            f"with images in 0–255 the model gets {best[2]} of {len(correct)} clean images right instead of "
            f"{int(correct.sum())}: it was trained on those; give --scale 255"
        )
    return Flag(name="missing-normalisation", text=text, share=(best[2] - int(correct.sum())) / len(correct))
