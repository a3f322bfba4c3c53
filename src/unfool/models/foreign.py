# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnnecessaryIsInstance=false
"""Classifiers that were not made here: anything that classifies images, as images in [0,1] → logits.

Legend: B images, C channels, D features.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from unfool.core.errors import ImagesError, SpecError
from unfool.core.spec import parse_number, unknown
from unfool.core.user_code import run_user_code
from unfool.models.checkpoints.reader import load_weights
from unfool.models.network import NORMALISATIONS
from unfool.models.outside.batches import in_batches
from unfool.models.outside.black_box import is_black_box
from unfool.models.outside.opening import as_module, check_materialised, open_source
from unfool.models.outside.outputs import read_logits, set_logits

_MOST_MEAN, _MOST_STD = 2.0, 3.0
"""Beyond these a mean or standard deviation is none of images in [0,1]."""
LAYOUTS = ("nchw", "nhwc")
Layout = Literal["nchw", "nhwc"]
LabelSets = Sequence[Collection[int]]


class ForeignClassifier(nn.Module):
    """A module of the user's behind unfool's contract: images (B, C, H, W) in [0,1] → logits (B, classes).

    Arguments as `adapt` describes them. The module is shared, not copied. ``size`` is the side of the images that it
    was made for, where that is known; ``output_words`` say which part of its output the logits are, once it was run.
    """

    mean: Tensor
    std: Tensor
    label_sets: Tensor | None
    identity_leaves_out: ClassVar[frozenset[str]] = frozenset({"batch", "output_words", "without_gradient", "size"})

    def __init__(
        self,
        module: nn.Module,
        mean: str | Sequence[float] | None = None,
        std: str | Sequence[float] | None = None,
        features: str | None = None,
        *,
        output: str | None = None,
        scale: float = 1.0,
        layout: Layout = "nchw",
        batch: int | None = None,
        label_sets: LabelSets | None = None,
        size: int | None = None,
    ):
        super().__init__()
        if (mean is None) != (std is None):
            raise SpecError("mean and std go together; give both for a model of normalised images, or neither")
        if layout not in LAYOUTS:
            raise unknown("layout", str(layout)[:80], LAYOUTS)
        if not 0 < scale < float("inf"):
            raise SpecError(f"scale {scale} is not allowed; give 255 for a model of images in 0–255, or leave it out")
        if batch is not None and batch < 1:
            raise SpecError(f"batch {batch} is not allowed; give the one batch size that the model takes, at least 1")
        if features is not None and features not in (paths := [name for name, _ in module.named_modules() if name]):
            features = features.removeprefix("module.").removeprefix("_orig_mod.")
            if features not in paths:
                raise unknown("features path", features[:80], paths)
        self.normalises = mean is not None and std is not None
        if mean is not None and std is not None:
            self.register_buffer("mean", _statistics("mean", mean))
            self.register_buffer("std", _statistics("std", std))
            if len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
                raise SpecError(f"mean has {len(self.mean)} channels, std has {len(self.std)}; give as many of both")
            _check_range(self.mean, self.std, scale)
        self.register_buffer("label_sets", None if label_sets is None else _membership(label_sets))
        self.feature_path = features
        self.output = output
        self.scale = scale
        self.layout = layout
        self.batch = batch
        self.size = size
        self.output_words = ""
        self.without_gradient = is_black_box(module)
        self.module = module
        self.training = module.training

    @property
    def black_box(self) -> bool:
        """Whether the model gives scores and no gradient."""
        return self.without_gradient

    @property
    def shown_name(self) -> str:
        """The module's class, or the function's name, for messages."""
        scores = getattr(self.module, "scores", None)
        return getattr(scores, "__name__", type(scores if scores is not None else self.module).__name__)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes); ImagesError for images of other channels and for outputs that are no logits.

        An error inside the module is a SpecError that names the module's own line.
        """
        inputs = self.inputs(images)
        logits = self._run(inputs) if self.batch is None else in_batches(self._run, inputs, self.batch)
        return logits if self.label_sets is None else set_logits(logits, self.label_sets)

    def inputs(self, images: Tensor) -> Tensor:
        """What the module is given for images (B, C, H, W) in [0,1]: scaled, normalised, in its layout and dtype."""
        if self.scale != 1.0:
            images = images * self.scale
        if self.normalises:
            channels = max(len(self.mean), len(self.std))
            if images.ndim != 4 or channels not in (1, images.shape[1]):
                raise ImagesError(
                    f"images have shape {tuple(images.shape)}; mean and std are given for (B, {channels}, H, W)"
                )
            images = (images - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)
        if self.layout == "nhwc":
            images = images.permute(0, 2, 3, 1).contiguous()
        weight = next((tensor for tensor in self.module.parameters() if tensor.is_floating_point()), None)
        return images if weight is None or weight.dtype == images.dtype else images.to(weight.dtype)

    def _run(self, inputs: Tensor) -> Tensor:
        output = run_user_code(f"model {self.shown_name}", lambda: self.module(inputs))
        logits, self.output_words = read_logits(output, len(inputs), self.shown_name, self.output)
        return logits if logits.dtype == torch.float64 else logits.float()

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
        if features.dtype in (torch.float16, torch.bfloat16):
            features = features.float()
        return features, logits


def adapt(
    model: Any,
    mean: str | Sequence[float] | None = None,
    std: str | Sequence[float] | None = None,
    features: str | None = None,
    *,
    output: str | None = None,
    scale: float = 1.0,
    layout: Layout = "nchw",
    batch: int | None = None,
    label_sets: LabelSets | None = None,
) -> ForeignClassifier:
    """Wrap anything that classifies images as a classifier that unfool attacks, defends and evaluates.

    A module may give its logits as a tensor (B, classes) or (B, classes, 1, 1), as ``.logits``, ``["logits"]`` or the
    first of a tuple; one logit is a two-class network. Weights in half precision are given images in theirs. Of
    `DataParallel` and compiled networks what they wrap is taken. A plain function and an estimator of scikit-learn are
    black boxes: only score-based attacks run on them.

    Args:
        model: A module, an exported program, a function of a NumPy or torch batch (B, C, H, W), an estimator of
            scikit-learn, or a text as the command line takes it: ``"FILE.py:NAME"``, ``"hf:FOLDER"``,
            ``"hf:OWNER/NAME"``, ``"timm:NAME"``, ``"torchvision:NAME"``, a TorchScript or exported file. Shared, not
            copied.
        mean: Where the module expects normalised images: their mean, as a name such as cifar10 or imagenet, numbers
            with commas, or one number per channel. None: what the model's source says, else images in [0,1].
        std: Their standard deviation, in the same form.
        features: Dotted path of the submodule whose output is the representation, for defenses and tests that need
            one.
        output: Where in the module's output the logits are, such as ``logits``, ``1`` or ``heads.main``.
        scale: What images in [0,1] are multiplied by first: 255 for a model of images in 0–255.
        layout: ``nhwc`` for a model that takes (B, H, W, C).
        batch: The one batch size that the module takes; batches are split and padded to it.
        label_sets: For a multi-label network, the labels of each class of the data. An image counts as fooled when
            the labels with a logit above 0 are not exactly those of its class. The logits then have one class more,
            which stands for any other set.

    Returns:
        The wrapped module: images in [0,1] → logits.

    Raises:
        SpecError: Something that classifies nothing, a path that is not there (with the nearest one), only one of
            ``mean`` and ``std``, statistics in the 0–255 scale without ``scale``, or a lazy layer without weights.

    Example:
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> model = adapt(module, mean="cifar10", std="cifar10", features="0")
        >>> model(torch.rand(2, 3, 8, 8)).shape, model.features(torch.rand(2, 3, 8, 8)).shape
        (torch.Size([2, 10]), torch.Size([2, 192]))
        >>> adapt(lambda images: images.reshape(len(images), -1)[:, :4])(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 4])
    """
    if isinstance(model, str):
        return load_classifier(
            model, None, mean, std, features, output=output, scale=scale, layout=layout, batch=batch, sets=label_sets
        )
    classifier = ForeignClassifier(
        as_module(model, type(model).__name__),
        mean,
        std,
        features,
        output=output,
        scale=scale,
        layout=layout,
        batch=batch,
        label_sets=label_sets,
    )
    check_materialised(classifier.module)
    return classifier


def load_classifier(
    text: str,
    weights: str | Path | None = None,
    mean: str | Sequence[float] | None = None,
    std: str | Sequence[float] | None = None,
    features: str | None = None,
    *,
    key: str | None = None,
    prefix: str | None = None,
    output: str | None = None,
    scale: float = 1.0,
    layout: Layout = "nchw",
    batch: int | None = None,
    sets: LabelSets | None = None,
) -> ForeignClassifier:
    """The classifier that a text names, as `open_source` reads it, with the weights of a file if one is named.

    Mean and standard deviation are by default those of its source. Raises SpecError for the source and its code,
    WeightsError for the weights, and as `adapt` does.
    """
    source = open_source(text, random=weights is not None)
    if mean is None and std is None and source.mean is not None:
        mean, std = [value * scale for value in source.mean], [value * scale for value in source.std or []]
    classifier = ForeignClassifier(
        as_module(source.model, text),
        mean,
        std,
        features,
        output=output,
        scale=scale,
        layout=layout,
        batch=batch,
        label_sets=sets,
        size=source.size,
    )
    if weights is not None:
        load_weights(classifier.module, weights, key=key, prefix=prefix)
    check_materialised(classifier.module)
    return classifier


def _membership(label_sets: LabelSets) -> Tensor:
    """Label sets as (S, K) float, 1 for a label that belongs to a set."""
    try:
        numbers = [[int(label) for label in labels] for labels in label_sets]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or any(label < 0 for labels in numbers for label in labels):
        raise SpecError("label_sets must name the labels of each class by number, such as [[0], [1], [0, 1]]")
    count = 1 + max(label for labels in numbers for label in [*labels, 0])
    return torch.tensor([[float(label in labels) for label in range(count)] for labels in numbers])


def _check_range(mean: Tensor, std: Tensor, scale: float) -> None:
    """Refuse statistics that belong to another scale than the images."""
    for word, values, most in (("mean", mean, _MOST_MEAN), ("std", std, _MOST_STD)):
        highest = float(values.abs().max())
        if scale == 1.0 and highest > most:
            raise SpecError(
                f"{word} {highest:g} is in the 0–255 scale, and images are in [0,1]; divide mean and std by 255 "
                f"({highest / 255:.3g}), or give --scale 255 for a model of images in 0–255"
            )
        if scale > 2 and 0 < highest <= 1 and word == "mean":
            raise SpecError(
                f"{word} {highest:g} is in the scale of images in [0,1], and scale {scale:g} comes before it; "
                f"give mean and std in that scale ({highest * scale:.4g}), or leave --scale out"
            )


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
