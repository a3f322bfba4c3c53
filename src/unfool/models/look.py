# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A look at what a foreign classifier makes of a few images, before work is spent on it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from unfool.core.errors import ImagesError, NonFiniteError, SpecError, UnfoolWarning
from unfool.core.user_code import run_user_code
from unfool.models.foreign import ForeignClassifier
from unfool.models.modes import frozen_eval
from unfool.models.network import Network
from unfool.models.outside.batches import fixed_batch
from unfool.models.outside.black_box import gives_classes_alone, is_black_box
from unfool.models.outside.outputs import ONE_LOGIT, SAME, same_logits

_NUMBER, _MOST = re.compile(r"(?<![\w.])\d{1,4}(?![\w.])"), 4096
"""Numbers in an error's text, one of which may be the batch size that the model takes."""
_RULE = "give a model that maps images (B, C, H, W) to logits (B, classes)"


def look_at(model: nn.Module, images: Tensor) -> int:
    """Look at a model once before work is spent on it, and count its outputs; 0 for a network of this library.

    Of a plain module the errors are those of `check_classifier` on the way forward, without warnings: they speak of
    settings that adapted ones have.
    """
    if isinstance(model, Network):
        return 0
    if isinstance(model, ForeignClassifier):
        return model.outputs or check_classifier(model, images)
    with warnings.catch_warnings(), frozen_eval(model), torch.no_grad():
        warnings.simplefilter("ignore", UnfoolWarning)
        return _checked_passes(model, images, type(model).__name__, ()).shape[1]


def check_classifier(
    model: nn.Module, images: Tensor, batches: Iterable[int] = (), *, multi_label: bool = False
) -> int:
    """Look at what a model makes of a few images (B, C, H, W) before work is spent on it, and count its outputs; it is
    left as it was.

    Of an adapted model it is found out whether it takes one batch size only (``batches`` are tried first), which is
    then padded to, and whether it gives a gradient. Raises SpecError for an error inside the model, also on the way
    back, ImagesError for outputs that are no logits (B, classes) or images that it overwrote, NonFiniteError for NaN.
    Told as UnfoolWarning: train mode where it gives other logits, which output is read, one batch size, no gradient,
    outputs that differ between two passes, outputs that are probabilities, also of one logit or, ``multi_label``, of
    labels that are decided one by one.
    """
    name = model.shown_name if isinstance(model, ForeignClassifier) else type(model).__name__
    training = [part for part in model.modules() if part.training]
    with frozen_eval(model):
        with torch.no_grad():
            first = _checked_passes(model, images, name, batches)
        _check_gradient(model, images, name)
        matters = bool(training) and _differs(model, training, images, first)
    if matters:
        _warn(f"{name} is in train mode; it is attacked and evaluated in eval mode")
    if isinstance(model, ForeignClassifier) and model.output_words:
        _warn(f"of what {name} gives, its {model.output_words} is read")
    separate = first[:, 1:] if _of_one_logit(model) else first
    if (multi_label or separate is not first) and bool(((separate >= 0) & (separate <= 1)).all()):
        _warn(
            f"{name} gives numbers between 0 and 1, and a logit above 0 counts as yes, so that all images get the same "
            "classes; leave out its sigmoid"
        )
    if gives_classes_alone(model):
        _warn(f"{name} gives classes and no scores; only decision-based attacks, such as hop-skip-jump-1000, run on it")
    elif is_black_box(model):
        _warn(f"{name} gives scores without a gradient; only score-based attacks, such as square-1000, run on it")
    elif bool((first >= 0).all()) and bool(((first.sum(1) - 1).abs() < 1e-3).all()):
        _warn(f"{name} gives probabilities; attacks need logits, so leave out its softmax")
    if isinstance(model, ForeignClassifier):
        model.outputs = first.shape[1]
    return first.shape[1]


def _of_one_logit(model: nn.Module) -> bool:
    """Whether the classes of an adapted model are the two sides of one logit."""
    return isinstance(model, ForeignClassifier) and model.output_words.endswith(ONE_LOGIT)


def _checked_passes(model: nn.Module, images: Tensor, name: str, batches: Iterable[int]) -> Tensor:
    """The logits of two passes that must agree."""
    before = images.clone()
    try:
        first = run_user_code(f"model {name}", lambda: model(images))
    except (SpecError, ImagesError) as error:
        named = [int(number) for number in _NUMBER.findall(str(error)) if 0 < int(number) <= _MOST]
        if not isinstance(model, ForeignClassifier) or not _pads(model, images, (*batches, *named)):
            raise error
        first = model(images)
    else:
        if isinstance(model, ForeignClassifier) and model.batch is None:
            _pads(model, images, (len(images), *batches))
    second = run_user_code(f"model {name}", lambda: model(images))
    if not torch.equal(before, images):
        raise ImagesError(
            f"model {name} overwrites the images it is given; {_RULE} without in-place operations on them"
        )
    if not isinstance(first, Tensor) or not first.is_floating_point():
        kind = first.dtype if isinstance(first, Tensor) else type(first).__name__
        raise ImagesError(f"model {name} gave {kind}, not floating logits; {_RULE}")
    if first.ndim != 2 or len(first) != len(images) or first.shape[1] < 2:
        raise ImagesError(f"model {name} gave outputs of shape {tuple(first.shape)} for {len(images)} images; {_RULE}")
    if not bool(torch.isfinite(first).all()):
        raise NonFiniteError(f"model {name} gave NaN or infinite logits; check its weights and its normalisation")
    if float((first - second).abs().max()) > SAME * max(1.0, float(first.abs().max())):
        _warn(f"{name} gives other outputs each time it sees the same images; its robustness may be luck")
    return first


def _differs(model: nn.Module, training: Iterable[nn.Module], images: Tensor, logits: Tensor) -> bool:
    """Whether train mode, of the parts that were in it, gives other logits than eval mode."""
    for part in training:
        part.training = True
    try:
        with torch.no_grad():
            theirs = model(images)
    except Exception:  # A batch norm refuses a single image, for example.
        return True
    finally:
        model.eval()
    return not same_logits(theirs, logits)


def _pads(model: ForeignClassifier, images: Tensor, batches: Iterable[int]) -> bool:
    """Whether the model takes one batch size only; it is then padded to it from now on, and told."""
    size = fixed_batch(lambda part: model(part.clone()), images, batches)
    if size is None:
        return False
    model.batch = size
    _warn(f"{model.shown_name} takes batches of {size} images alone; others are split and padded to it")
    return True


def _check_gradient(model: nn.Module, images: Tensor, name: str) -> None:
    """Take one gradient; a model that gives none is a black box, and one that fails on the way back is refused."""
    if is_black_box(model):
        return
    points = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = run_user_code(f"model {name}", lambda: model(points))
        if not logits.requires_grad:
            if isinstance(model, ForeignClassifier):
                model.without_gradient = True
                return
            raise SpecError(f"model {name} gives logits without a gradient; adapt(model) attacks it as a black box")
        try:
            torch.autograd.grad(logits.sum(), points, allow_unused=True)
        except Exception as error:  # Whatever the model's own backward passes make of it.
            if "checkpoint" in str(error):
                raise SpecError(
                    f"model {name} uses reentrant activation checkpointing, through which no gradient by the images "
                    "passes; give checkpoint(..., use_reentrant=False)"
                ) from error
            raised = error
            run_user_code(f"model {name}, on the way back,", lambda: _raise(raised))


def _raise(error: Exception) -> None:
    raise error


def _warn(text: str) -> None:
    warnings.warn(text, UnfoolWarning, stacklevel=4)
