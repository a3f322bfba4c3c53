# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnnecessaryIsInstance=false
"""Classifiers that were not made here: any `nn.Module` as images in [0,1] → logits, looked at before it is believed.

Legend: B images, C channels, D features.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unfool.core.errors import ImagesError, NonFiniteError, SpecError, UnfoolWarning
from unfool.core.spec import parse_number, unknown
from unfool.core.user_code import run_user_code
from unfool.models.checkpoints.reader import load_weights
from unfool.models.modes import frozen_eval
from unfool.models.network import NORMALISATIONS
from unfool.models.python_file import load_module

_SAME = 1e-4
"""Difference of two passes, relative to the largest logit, up to which they count as the same."""


class ForeignClassifier(nn.Module):
    """A module of the user's behind unfool's contract: images (B, C, H, W) in [0,1] → its own outputs.

    With ``mean`` and ``std`` (a name of `NORMALISATIONS`, numbers with commas, or one number per channel) the module
    sees (images - mean) / std. ``features`` is the dotted path of the submodule whose output is the representation.
    The module is shared, not copied. Raises SpecError, with the nearest name for a path that is not there.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        mean: str | Sequence[float] | None = None,
        std: str | Sequence[float] | None = None,
        features: str | None = None,
    ):
        super().__init__()
        if not isinstance(module, nn.Module):
            raise SpecError(f"the model is a {type(module).__name__}; give an nn.Module")
        if (mean is None) != (std is None):
            raise SpecError("mean and std go together; give both for a model of normalised images, or neither")
        if features is not None and features not in (paths := [name for name, _ in module.named_modules() if name]):
            raise unknown("features path", features[:80], paths)
        self.normalises = mean is not None and std is not None
        if mean is not None and std is not None:
            self.register_buffer("mean", _statistics("mean", mean))
            self.register_buffer("std", _statistics("std", std))
            if len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
                raise SpecError(f"mean has {len(self.mean)} channels, std has {len(self.std)}; give as many of both")
        self.feature_path = features
        self.module = module
        self.training = module.training

    def forward(self, images: Tensor) -> Any:
        """The module's own outputs, by right logits (B, classes); ImagesError for images of other channels."""
        if not self.normalises:
            return self.module(images)
        channels = max(len(self.mean), len(self.std))
        if images.ndim != 4 or channels not in (1, images.shape[1]):
            raise ImagesError(
                f"images have shape {tuple(images.shape)}; mean and std are given for (B, {channels}, H, W)"
            )
        return self.module((images - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1))

    def features(self, images: Tensor, stage: str = "last") -> Tensor:
        """The representation (B, D): what the submodule named ``features`` gave, averaged over pixels if it has any.

        ``stage`` is "last", the only one. Raises SpecError for another stage, if no submodule was named, or if its
        output is no representation.
        """
        if stage != "last":
            raise unknown("stage of a foreign classifier", stage[:80], ["last"])
        return self.features_and_logits(images)[0]

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The representation (B, D) and the logits (B, classes) of one pass; raises as `features`."""
        if self.feature_path is None:
            raise SpecError(
                "defenses and strength tests that need a representation need to know where this classifier has it; "
                "give --features MODULE.PATH, or adapt(module, features='module.path')"
            )
        seen: list[Any] = []
        part = self.module.get_submodule(self.feature_path)
        # Hooked for this one pass: a hook that stayed would keep images alive and be copied with every fast copy.
        hook = part.register_forward_hook(lambda _, __, output: seen.append(output))
        try:
            logits = self(images)
        finally:
            hook.remove()
        rule = f"name a submodule that gives (B, D) or (B, C, H, W) once a pass; features are {self.feature_path!r}"
        if len(seen) != 1 or not isinstance(seen[0], Tensor):
            raise SpecError(f"{len(seen)} outputs were seen, of which one tensor was expected; {rule}")
        features = seen[0].mean((2, 3)) if seen[0].ndim == 4 else seen[0]
        if features.ndim != 2 or len(features) != len(images):
            raise SpecError(f"an output of shape {tuple(seen[0].shape)} is no representation; {rule}")
        return features, logits


def adapt(
    module: nn.Module,
    mean: str | Sequence[float] | None = None,
    std: str | Sequence[float] | None = None,
    features: str | None = None,
) -> ForeignClassifier:
    """Wrap any module as a classifier that unfool attacks, defends and evaluates.

    Args:
        module: Maps images (B, C, H, W) to logits (B, classes); shared, not copied.
        mean: Where the module expects normalised images: their mean, as a name such as cifar10 or imagenet, numbers
            with commas, or one number per channel. None: the module takes images in [0,1].
        std: Their standard deviation, in the same form.
        features: Dotted path of the submodule whose output is the representation, for defenses and tests that need
            one.

    Returns:
        The wrapped module: images in [0,1] → logits.

    Raises:
        SpecError: Something that is no nn.Module, a path that is not there (with the nearest one), or only one of
            ``mean`` and ``std``.

    Example:
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> model = adapt(module, mean="cifar10", std="cifar10", features="0")
        >>> model(torch.rand(2, 3, 8, 8)).shape, model.features(torch.rand(2, 3, 8, 8)).shape
        (torch.Size([2, 10]), torch.Size([2, 192]))
    """
    return ForeignClassifier(module, mean, std, features)


def load_classifier(
    text: str,
    weights: str | Path | None = None,
    mean: str | None = None,
    std: str | None = None,
    features: str | None = None,
    key: str | None = None,
    prefix: str | None = None,
) -> ForeignClassifier:
    """The classifier that ``path/to/file.py:NAME`` gives, with the weights of a file if one is named.

    Raises SpecError for the file and its code, WeightsError for the weights, and as `ForeignClassifier` does.
    """
    classifier = adapt(load_module(text), mean, std, features)
    if weights is not None:
        load_weights(classifier.module, weights, key=key, prefix=prefix)
    return classifier


def check_classifier(model: nn.Module, images: Tensor) -> None:
    """Look at what a model makes of a few images (B, C, H, W) before work is spent on it; it is left as it was.

    Raises SpecError for an error inside the model, ImagesError for outputs that are no logits (B, classes) or images
    that it overwrote, NonFiniteError for NaN. Told as UnfoolWarning: train mode, outputs that differ between two
    passes, outputs that are probabilities.
    """
    name = type(model.module if isinstance(model, ForeignClassifier) else model).__name__
    if any(part.training for part in model.modules()):
        _warn(f"{name} is in train mode; it is attacked and evaluated in eval mode")
    before = images.clone()
    with frozen_eval(model), torch.no_grad():
        first, second = (run_user_code(f"model {name}", lambda: model(images)) for _ in range(2))
    rule = "give a model that maps images (B, C, H, W) to logits (B, classes)"
    if not torch.equal(before, images):
        raise ImagesError(f"model {name} overwrites the images it is given; {rule} without in-place operations on them")
    if not isinstance(first, Tensor) or not first.is_floating_point():
        kind = first.dtype if isinstance(first, Tensor) else type(first).__name__
        raise ImagesError(f"model {name} gave {kind}, not floating logits; {rule}")
    if first.ndim != 2 or len(first) != len(images) or first.shape[1] < 2:
        raise ImagesError(f"model {name} gave outputs of shape {tuple(first.shape)} for {len(images)} images; {rule}")
    if not bool(torch.isfinite(first).all()):
        raise NonFiniteError(f"model {name} gave NaN or infinite logits; check its weights and its normalisation")
    if float((first - second).abs().max()) > _SAME * max(1.0, float(first.abs().max())):
        _warn(f"{name} gives other outputs each time it sees the same images; its robustness may be luck")
    if bool((first >= 0).all()) and bool(((first.sum(1) - 1).abs() < 1e-3).all()):
        _warn(f"{name} gives probabilities; attacks need logits, so leave out its softmax")


def _warn(text: str) -> None:
    warnings.warn(text, UnfoolWarning, stacklevel=3)


def _statistics(word: str, statistics: str | Sequence[float]) -> Tensor:
    """One number per channel, (C,) float32."""
    values: Any = statistics
    if isinstance(statistics, str):
        if statistics in NORMALISATIONS:
            values = NORMALISATIONS[statistics][word == "std"]
        elif statistics[:1].isalpha():
            raise unknown(word, statistics[:80], NORMALISATIONS)
        else:
            values = [parse_number(part, word) for part in statistics.split(",")]
    try:
        numbers = torch.tensor([float(value) for value in values], dtype=torch.float32)
    except (TypeError, ValueError, OverflowError):
        numbers = torch.empty(0)
    if not len(numbers) or not bool(torch.isfinite(numbers).all()) or (word == "std" and bool((numbers <= 0).any())):
        rule = "give a name or one finite number per channel" + (" above 0" if word == "std" else "")
        raise SpecError(f"{word} {statistics!r} is not allowed; {rule}, such as 0.49,0.48,0.45")
    return numbers
