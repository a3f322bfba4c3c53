# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The classifier inside a model that wraps one: behind a purifier, or within an aggregator, ensemble or detector.

Legend: B images, K classes, m copies of each image in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfool.models.modes import frozen_eval

AGREES = 0.6
"""Share of the images on which a classifier inside must say what the model says: a layer as wide does so by chance."""
SAME_IMAGES, SAME_LOGITS = 1e-3, 1e-4
"""How far images may be from an affine image of the model's own, and logits from a scaled and shifted copy, relative to
their spread, where what lies between changes nothing that an attack could not see through."""

SAME_GRADIENTS = 0.9
"""Mean cosine of a model's gradients and those of the classifier inside, from which on they are the same."""


@dataclass(frozen=True, kw_only=True)
class Inner:
    """The classifiers inside a model.

    Args:
        names: The modules, by name; several of an ensemble, whose logits are averaged.
        heads: Whether they see features and not images: then the model's own pass leads to them.
        scale: What the images are multiplied by before they go to the classifiers, (C,).
        shift: What is then added, (C,).
    """

    names: tuple[str, ...]
    heads: bool = False
    scale: Tensor | None = None
    shift: Tensor | None = None

    @property
    def words(self) -> str:
        """The modules as messages name them."""
        more = f" and {len(self.names) - 3} more" if len(self.names) > 3 else ""
        return ", ".join(self.names[:3]) + more

    def bare(self, model: nn.Module) -> Bare:
        """The classifiers of a model, without what is around them."""
        return Bare(model, self)


class Bare(nn.Module):
    """The classifiers inside a model, called without what the model does before and after; it is left as it is.

    Example:
        >>> from unfool.models.surrogates.inner import Inner
        >>> class Voted(torch.nn.Module):
        ...     def __init__(self, first, second):
        ...         super().__init__()
        ...         self.first, self.second = first, second
        ...     def forward(self, images):
        ...         votes = [part(images).argmax(1) for part in (self.first, self.second)]
        ...         return sum(torch.eye(2)[vote] for vote in votes)
        >>> layers = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> parts = [layers(), layers()]
        >>> bare = Inner(names=("first", "second")).bare(Voted(*parts))
        >>> images = torch.rand(5, 3, 2, 2)
        >>> torch.equal(bare(images), (parts[0](images) + parts[1](images)) / 2)
        True
    """

    def __init__(self, model: nn.Module, inner: Inner):
        super().__init__()
        self.model = model
        self.inner = inner
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        if self.inner.heads:
            with _Calls(self.model, self.inner.names, detached=False) as calls:
                self.model(images)
            outputs = [call.output for call in calls.seen]
        else:
            if self.inner.scale is not None and self.inner.shift is not None:
                images = images * self.inner.scale.view(1, -1, 1, 1) + self.inner.shift.view(1, -1, 1, 1)
            outputs = [self.model.get_submodule(name)(images) for name in self.inner.names]
        return torch.stack([_averaged(output, len(images)) for output in outputs]).mean(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    """One call of a module: its name, what it was given and what it gave."""

    name: str
    entering: Tensor | None
    output: Tensor


@dataclass(eq=False)
class _Calls:
    """Sees the calls of modules of a model that give a matrix; those of ``names``, or of all but the model itself."""

    model: nn.Module
    names: Sequence[str] | None = None
    detached: bool = True
    seen: list[_Call] = field(default_factory=list[_Call])
    hooks: list[Any] = field(default_factory=list[Any])

    def __enter__(self) -> _Calls:
        for name, part in self.model.named_modules():
            wanted = name if self.names is None else name in self.names
            if wanted and not isinstance(part, torch.jit.ScriptModule):
                self.hooks.append(part.register_forward_hook(self._hook(name)))
        return self

    def _hook(self, name: str) -> Any:
        def see(_: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 2 and output.is_floating_point():
                entering = next((value for value in arguments if isinstance(value, Tensor)), None)
                if self.detached:
                    entering, output = None if entering is None else entering.detach().clone(), output.detach()
                self.seen.append(_Call(name=name, entering=entering, output=output))

        return see

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()


def inner_classifiers(model: nn.Module, images: Tensor) -> Inner | None:
    """Look for the classifiers inside a model: the outermost modules that give as many logits, mostly for its classes.

    Args:
        model: The model; it is left as it was.
        images: A few images (B, C, H, W) in [0,1].

    Returns:
        The classifiers; None for a model that wraps none, or does no more to one than scale images and logits, and has
            its gradient.
    """
    with torch.inference_mode(False), torch.no_grad(), frozen_eval(model), _Calls(model) as calls:
        try:
            logits = model(images.clone())
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # The model is the user's; whoever attacks it says what is wrong.
            return None
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            return None
        return _inside("", model, images, logits, calls.seen)


def _inside(around: str, model: nn.Module, images: Tensor, logits: Tensor, calls: Sequence[_Call]) -> Inner | None:
    """The classifiers inside the module ``around``, which is the model or does the same."""
    fitting = [
        call
        for call in calls
        if call.name != around and call.name.startswith(f"{around}." if around else "") and _fits(call, logits)
    ]
    outermost = [call for call in fitting if not any(call.name.startswith(f"{other.name}.") for other in fitting)]
    if not outermost:
        return None
    on_images = [call for call in outermost if _takes(call, images)]
    chosen = on_images or outermost
    names = tuple(dict.fromkeys(call.name for call in chosen))
    averaged = torch.stack([_averaged(call.output, len(logits)) for call in chosen]).mean(0)
    same_logits = _same_logits(averaged, logits)
    if not on_images:
        return None if same_logits else Inner(names=names, heads=True)
    if same_logits and all(_same_images(call.entering, images) for call in chosen):
        if len(names) != 1:
            return None
        same = _on_images(names, model, images, logits, chosen)
        if same is not None and not _same_gradients(model, same.bare(model), images):
            return same
        return _inside(names[0], model, images, logits, calls)
    return _on_images(names, model, images, logits, chosen)


def _fits(call: _Call, logits: Tensor) -> bool:
    """Whether what a call gave are logits as wide as the model's, mostly for the same classes."""
    if call.output.shape[1] != logits.shape[1] or not len(call.output) or len(call.output) % len(logits):
        return False
    same = _averaged(call.output, len(logits)).argmax(1) == logits.argmax(1)
    return bool(same.double().mean() >= AGREES)


def _takes(call: _Call, images: Tensor) -> bool:
    """Whether a call was given images, of any size."""
    entering = call.entering
    return entering is not None and entering.ndim == 4 and entering.shape[1] == images.shape[1]


def _averaged(output: Tensor, count: int) -> Tensor:
    """Logits (m·B, K) averaged over the copies of each of ``count`` images."""
    return output if len(output) == count else output.unflatten(0, (-1, count)).mean(0)


def _same_logits(first: Tensor, second: Tensor) -> bool:
    """Whether logits are those of others, scaled and shifted."""
    rows = [each.double() - each.double().mean(1, keepdim=True) for each in (first, second)]
    cosine = F.cosine_similarity(rows[0], rows[1], dim=1)
    return bool((1 - cosine <= SAME_LOGITS).all())


def _same_images(entering: Tensor | None, images: Tensor) -> bool:
    """Whether images are the model's own, each channel scaled and shifted."""
    if entering is None or entering.shape != images.shape:
        return False
    source, target = (each.double() - each.double().mean((0, 2, 3), keepdim=True) for each in (images, entering))
    slope = (source * target).sum((0, 2, 3), keepdim=True) / source.square().sum((0, 2, 3), keepdim=True).clamp(
        min=1e-12
    )
    left = (target - slope * source).square().sum()
    return bool(left <= SAME_IMAGES**2 * target.square().sum())


def _same_gradients(model: nn.Module, bare: nn.Module, images: Tensor) -> bool:
    """Whether the highest logit has one gradient in both, but for its length; not where the model's is another's."""
    slopes: list[Tensor] = []
    for classifier in (model, bare):
        with torch.enable_grad():
            leaves = images.clone().requires_grad_()
            logits = classifier(leaves)
            if not logits.requires_grad:
                return False
            (slope,) = torch.autograd.grad(logits.amax(1).sum(), leaves, allow_unused=True)
        slopes.append(torch.zeros_like(images) if slope is None else slope)
    first, second = (slope.double().flatten(1) for slope in slopes)
    both_flat = (first == 0).all(1) & (second == 0).all(1)
    cosine = torch.where(both_flat, 1.0, F.cosine_similarity(first, second, dim=1))
    return bool(cosine.mean() >= SAME_GRADIENTS)


def _on_images(
    names: tuple[str, ...], model: nn.Module, images: Tensor, logits: Tensor, calls: Sequence[_Call]
) -> Inner | None:
    """Classifiers that take images: as they are, or in the scale in which the model gives them."""
    seen = [call.entering for call in calls if call.entering is not None]
    entering = torch.cat([each for each in seen if each.shape[2:] == seen[0].shape[2:]])
    dims = (0, 2, 3)
    scale = entering.std(dims) / images.std(dims).clamp(min=1e-6)
    shift = entering.mean(dims) - scale * images.mean(dims)
    best: tuple[float, Inner] | None = None
    for inner in (Inner(names=names), Inner(names=names, scale=scale, shift=shift)):
        try:
            same = inner.bare(model)(images.clone()).argmax(1) == logits.argmax(1)
        except Exception:  # A classifier may take images of another size.
            continue
        share = float(same.double().mean())
        if share >= AGREES and (best is None or share > best[0]):
            best = share, inner
    return None if best is None else best[1]
