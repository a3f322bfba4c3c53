# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnnecessaryIsInstance=false
"""Classifiers that were not made here: anything that classifies images, as images in [0,1] → logits.

Legend: B images, C channels, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unfool.core.errors import ImagesError, SpecError
from unfool.core.spec import unknown
from unfool.core.user_code import run_user_code
from unfool.models.checkpoints.reader import load_weights
from unfool.models.outside.batches import in_batches
from unfool.models.outside.black_box import is_black_box
from unfool.models.outside.features import checked_path, representations, run_watched, suggested_paths, without_parts
from unfool.models.outside.opening import as_module, check_materialised, open_source
from unfool.models.outside.outputs import read_logits, set_logits
from unfool.models.outside.preparation import Adaptation, LabelSets, Layout, channel_statistics, check_range, membership


class ForeignClassifier(nn.Module):
    """A module of the user's behind unfool's contract: images (B, C, H, W) in [0,1] → logits (B, classes).

    The module is shared, not copied. ``adaptation`` says how it takes images and gives logits. ``size`` is the side of
    the images that it was made for, where that is known; ``output_words`` say which part of its output the logits are,
    once it was run; ``outputs`` counts them, once it was looked at.
    """

    mean: Tensor
    std: Tensor
    label_sets: Tensor | None
    identity_leaves_out: ClassVar[frozenset[str]] = frozenset(
        {"batch", "output_words", "outputs", "without_gradient", "size"}
    )

    def __init__(self, module: nn.Module, adaptation: Adaptation, size: int | None = None):
        super().__init__()
        features = None if adaptation.features is None else checked_path(module, adaptation.features)
        mean, std = adaptation.mean, adaptation.std
        self.normalises = mean is not None and std is not None
        if mean is not None and std is not None:
            centre, spread = channel_statistics("mean", mean), channel_statistics("std", std)
            if len(centre) != len(spread) and 1 not in (len(centre), len(spread)):
                raise SpecError(f"mean has {len(centre)} channels, std has {len(spread)}; give as many of both")
            check_range(centre, spread, adaptation.scale)
            self.register_buffer("mean", beside(module, centre))
            self.register_buffer("std", beside(module, spread))
        sets = adaptation.label_sets
        self.register_buffer("label_sets", None if sets is None else beside(module, membership(sets)))
        self.feature_path = features
        self.output = adaptation.output
        self.scale = adaptation.scale
        self.layout = adaptation.layout
        self.batch = adaptation.batch
        self.size = size
        self.output_words = ""
        self.outputs = 0
        self.without_gradient = is_black_box(module)
        self.module = module
        self.training = module.training

    def set_label_sets(self, label_sets: LabelSets) -> None:
        """Make a multi-label classifier of it, as ``label_sets`` of `adapt` does; raises as that."""
        self.label_sets = beside(self.module, membership(label_sets))

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
        return self.collect(images, ())[0]

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

    def collect(self, images: Tensor, paths: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits of one pass, and what submodules gave in it, (B, D) or (B, C, H, W) by path; raises as forward,
        and SpecError for a submodule that gives no representation."""
        inputs = self.inputs(images)
        if inputs is images:
            # A module that works in place must not write into the images.
            inputs = images.clone()

        def run(part: Tensor) -> list[Tensor]:
            output, seen = run_user_code(f"model {self.shown_name}", lambda: run_watched(self.module, part, paths))
            logits, self.output_words = read_logits(output, len(part), self.shown_name, self.output)
            return [
                logits if logits.dtype == torch.float64 else logits.float(),
                *representations(seen, len(part)).values(),
            ]

        logits, *features = run(inputs) if self.batch is None else in_batches(run, inputs, self.batch)
        if self.label_sets is not None:
            logits = set_logits(logits, self.label_sets)
        return logits, dict(zip(paths, features, strict=True))

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
            raise SpecError(self.unnamed_features)
        logits, features = self.collect(images, [self.feature_path])
        values = features[self.feature_path]
        return values.mean((2, 3)) if values.ndim == 4 else values, logits

    @property
    def unnamed_features(self) -> str:
        """What to do where features are needed and no submodule was named."""
        if shut := without_parts(self.module):
            return f"this needs a representation, and {shut}"
        return (
            "defenses and strength tests that need a representation need to know where this classifier has it; give "
            f"--features MODULE.PATH{suggested_paths(self.module)}, or adapt(module, features='module.path')"
        )


def beside(module: nn.Module, tensor: Tensor) -> Tensor:
    """A tensor on the device of a module's first one; as it is beside a module without tensors."""
    return tensor.to(next(chain(module.parameters(), module.buffers()), tensor).device)


def adapt(
    model: Any,
    mean: str | float | Sequence[float] | None = None,
    std: str | float | Sequence[float] | None = None,
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
    black boxes: only score-based attacks, such as `Square`, run on them, and on an estimator that gives classes alone
    only decision-based ones, such as `HopSkipJump`.

    Args:
        model: A module, an exported program, a function of a NumPy or torch batch (B, C, H, W), an estimator of
            scikit-learn, or a text as the command line takes it: ``"FILE.py:NAME"``, ``"hf:FOLDER"``,
            ``"hf:OWNER/NAME"``, ``"timm:NAME"``, ``"torchvision:NAME"``, a TorchScript or exported file. Shared, not
            copied.
        mean: Where the module expects normalised images: their mean, as a name such as cifar10 or imagenet, numbers
            with commas, one number per channel, or one for all. None: what the model's source says, else images
            in [0,1].
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
    adaptation = Adaptation(
        mean=mean,
        std=std,
        features=features,
        output=output,
        scale=scale,
        layout=layout,
        batch=batch,
        label_sets=label_sets,
    )
    if isinstance(model, str):
        return load_classifier(model, adaptation=adaptation)
    classifier = ForeignClassifier(as_module(model, type(model).__name__), adaptation)
    check_materialised(classifier.module)
    return classifier


def load_classifier(
    text: str,
    weights: str | Path | None = None,
    *,
    adaptation: Adaptation = Adaptation(),  # noqa: B008 - frozen
    key: str | None = None,
    prefix: str | None = None,
) -> ForeignClassifier:
    """The classifier that a text names, as `open_source` reads it, with the weights of a file if one is named.

    ``key`` and ``prefix`` say which weights of that file are meant. Mean and standard deviation are by default those of
    the source. Raises SpecError for the source and its code, WeightsError for the weights, and as `adapt` does.
    """
    source = open_source(text, random=weights is not None)
    if adaptation.mean is None and source.mean is not None:
        mean, std = ([value * adaptation.scale for value in values] for values in (source.mean, source.std or []))
        adaptation = replace(adaptation, mean=mean, std=std)
    classifier = ForeignClassifier(as_module(source.model, text), adaptation, source.size)
    if weights is not None:
        load_weights(classifier.module, weights, key=key, prefix=prefix)
    check_materialised(classifier.module)
    return classifier
