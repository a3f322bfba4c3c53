# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnnecessaryIsInstance=false
"""A network: normalisation, a trunk and named heads; images in [0,1] → logits."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from unfool.core.errors import ImagesError, SpecError
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.models.heads import Head, HeadDescription, build_head, empty_head
from unfool.models.trunks import Trunk, TrunkSpec, build_trunk, empty_trunk
from unfool.models.trunks.settings import SettingValue

NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "none": ((0.0,), (1.0,)),
    "symmetric": ((0.5,), (0.5,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation of each channel of the training images, in [0,1] pixel units, by name."""


def _statistics(which: int, statistics: str | Sequence[float], channels: int) -> Tensor:
    """Mean (0) or standard deviation (1) as (1, channels, 1, 1) float32."""
    word = ("mean", "std")[which]
    if isinstance(statistics, str):
        if statistics not in NORMALISATIONS:
            raise unknown(word, statistics[:80], NORMALISATIONS)
        statistics = NORMALISATIONS[statistics][which]
    try:
        values = torch.tensor([float(value) for value in statistics], dtype=torch.float32)
    except (TypeError, ValueError, OverflowError):
        values = torch.empty(0)
    if len(values) == 1:
        values = values.repeat(channels)
    if len(values) != channels or not bool(torch.isfinite(values).all()) or (which and bool((values <= 0).any())):
        rule = f"give a name or {channels} finite numbers" + (" above 0" if which else "")
        raise SpecError(f"{word} {reprlib.repr(statistics)} does not fit images of {channels} channels; {rule}")
    return values.view(1, -1, 1, 1)


def _beside(statistics: Tensor, images: Tensor) -> Tensor:
    """Statistics of channels (1, C, 1, 1), for channels-last images at every pixel: a CPU is six times as fast on them,
    since it need not begin anew every C numbers."""
    if images.device.type != "cpu" or not images.is_contiguous(memory_format=torch.channels_last):
        return statistics
    return statistics.expand(1, *images.shape[1:]).contiguous(memory_format=torch.channels_last)


class Architecture(TypedDict):
    """All that rebuilds a network but its weights, as JSON takes it."""

    trunk: dict[str, SettingValue]
    mean: list[float]
    std: list[float]
    heads: dict[str, HeadDescription]
    classifier: str | None


class Network(nn.Module):
    """A classifier that other tools can attack as it is: float images (B, C, H, W) in [0,1] → logits (B, classes).

    Args:
        trunk: The body, as `build_trunk` builds it.
        mean: Mean of the training images' channels, subtracted from the images: a name of `NORMALISATIONS` such as
            cifar10, one number for all channels, or one per channel.
        std: Their standard deviation, in the same form; the images are divided by it.
        heads: Modules on the trunk's features, by name.
        classifier: Name of the head that gives the logits; None if there is none yet.

    Raises:
        SpecError: Normalisation or heads that do not fit the trunk.

    Example:
        >>> network = Network.build(TrunkSpec(name="convnet"), {"labels": {"kind": "linear", "outputs": 10}},
        ...                         classifier="labels").eval()
        >>> images = torch.rand(4, 3, 32, 32)
        >>> network(images).shape
        torch.Size([4, 10])
        >>> network.features(images, "block2").shape
        torch.Size([4, 128, 7, 7])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: Trunk,
        mean: str | Sequence[float] = "cifar10",
        std: str | Sequence[float] = "cifar10",
        heads: nn.ModuleDict | Mapping[str, nn.Module] | None = None,
        classifier: str | None = None,
    ):
        super().__init__()
        channels = trunk.spec.channels
        self.register_buffer("mean", _statistics(0, mean, channels))
        self.register_buffer("std", _statistics(1, std, channels))
        self.trunk = trunk
        self.heads = heads if isinstance(heads, nn.ModuleDict) else nn.ModuleDict(dict(heads or {}))
        if classifier is not None and classifier not in self.heads:
            raise unknown("classifier head", str(classifier)[:80], self.heads)
        self.classifier = classifier
        inputs = getattr(self.heads[classifier], "description", {}).get("inputs") if classifier else None
        if inputs is not None and inputs != trunk.channels["last"]:
            features = trunk.channels["last"]
            raise SpecError(
                f"head {classifier!r} takes {inputs} inputs, but the trunk gives {features}; build it for those"
            )

    @classmethod
    def build(
        cls,
        trunk: TrunkSpec,
        heads: Mapping[str, Mapping[str, Any]],
        *,
        classifier: str | None = None,
        normalisation: str = "cifar10",
        streams: Streams | None = None,
    ) -> Network:
        """Build a network with fresh weights.

        Args:
            trunk: Which trunk.
            heads: Descriptions of heads by name, as `build_head` takes them; "inputs" may be left out, and is then the
                number of the trunk's features.
            classifier: Name of the head that gives the logits.
            normalisation: Name of the mean and standard deviation in `NORMALISATIONS`.
            streams: Where the weights are drawn from. Default: ``Streams(0)``.

        Returns:
            The network, in train mode, on the CPU.
        """
        streams = streams or Streams(0)
        body = build_trunk(trunk, streams)
        described = {name: {"inputs": body.channels["last"], **head} for name, head in heads.items()}
        built = {name: build_head(head, streams.named(name)) for name, head in described.items()}
        return cls(body, normalisation, normalisation, nn.ModuleDict(built), classifier)

    @property
    def memory_format(self) -> torch.memory_format:
        """The order in memory of weights and images: channels-last, which saves a fifth of the time, if it may be."""
        return self.trunk.memory_format

    def features(self, images: Tensor, stage: str = "last") -> Tensor:
        """The trunk's features at one stage.

        Args:
            images: (B, C, H, W) floats in [0,1]. Their range is not checked here: `check_images` does that once,
                outside the loops.
            stage: Name of the stage; ``network.trunk.stages`` lists them.

        Returns:
            (B, D) for "last", else (B, channels, h, w), in the images' precision.

        Raises:
            ImagesError: Images that are not floating, not NCHW, of other channels or too small.
            SpecError: An unknown stage.
        """
        return self.features_at(images, {stage})[stage]

    def features_at(self, images: Tensor, stages: Set[str]) -> dict[str, Tensor]:
        """The trunk's features at several stages in one pass; raises as ``features``."""
        channels = self.trunk.spec.channels
        if not isinstance(images, Tensor):
            raise ImagesError(f"images are a {type(images).__name__}; this network takes a tensor; use torch.as_tensor")
        if images.ndim != 4 or images.shape[1] != channels:
            shape = tuple(images.shape)
            raise ImagesError(
                f"images have shape {shape}; this network takes (B, {channels}, H, W); reshape or convert"
            )
        if not images.is_floating_point():
            raise ImagesError(
                f"images are {images.dtype}; this network takes floats in [0,1]; use images.float() / 255"
            )
        normalised = (images - _beside(self.mean, images)) / _beside(self.std, images)
        features_by_stage = self.trunk.collect(normalised, stages)
        # A trunk may compute in bf16 (a fast copy, autocast); heads and callers get the images' precision back.
        return {stage: features.to(normalised.dtype) for stage, features in features_by_stage.items()}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes); SpecError if the network has no classifier head."""
        if self.classifier is None:
            raise SpecError(
                "this network has no classifier head; set network.classifier to the name of one of its heads"
            )
        head = self.heads[self.classifier]
        return head(self.features(images, getattr(head, "stage", "last")))

    @property
    def architecture(self) -> Architecture:
        """All that is needed to rebuild the network but its weights, as JSON takes it; SpecError for a foreign head."""
        heads: dict[str, HeadDescription] = {}
        for name, head in self.heads.items():
            if not isinstance(head, Head):
                kind = type(head).__name__
                raise SpecError(f"head {name!r} is a {kind} without a description; build heads with build_head")
            heads[name] = dict(head.description)
        # The shortest decimals that give these float32 numbers back: exact, and readable in a file.
        mean, std = ([float(str(np.float32(v))) for v in buffer.flatten().tolist()] for buffer in (self.mean, self.std))
        trunk = self.trunk.spec.to_dict()
        return {"trunk": trunk, "mean": mean, "std": std, "heads": heads, "classifier": self.classifier}

    @classmethod
    def from_architecture(cls, architecture: Mapping[str, Any], streams: Streams | None = None) -> Network:
        """The network of a description, with fresh weights from ``streams`` (default: seed 0); raises SpecError."""
        streams = streams or Streams(0)
        return cls._assemble(
            architecture,
            lambda spec: build_trunk(spec, streams),
            lambda name, head: build_head(head, streams.named(name)),
        )

    @classmethod
    def empty(cls, architecture: Mapping[str, Any]) -> Network:
        """The same with trunk and heads on the meta device: no memory is taken until weights are assigned."""
        return cls._assemble(architecture, empty_trunk, lambda name, head: empty_head(head))

    @classmethod
    def _assemble(
        cls,
        architecture: Mapping[str, Any],
        make_trunk: Callable[[TrunkSpec], Trunk],
        make_head: Callable[[str, Mapping[str, Any]], Head],
    ) -> Network:
        keys = ("trunk", "mean", "std", "heads", "classifier")
        if not isinstance(architecture, Mapping):
            raise SpecError(
                f"an architecture is a mapping, not a {type(architecture).__name__}; give {', '.join(keys)}"
            )
        for key in architecture:
            if key not in keys:
                raise unknown("architecture key", str(key)[:80], keys)
        for key in keys:
            if key not in architecture:
                raise SpecError(f"the architecture lacks {key!r}; give all of {', '.join(keys)}")
        heads = architecture["heads"]
        if not isinstance(heads, Mapping):
            raise SpecError(f"heads are a {type(heads).__name__}; give a mapping from names to descriptions")
        classifier = architecture["classifier"]
        if classifier is not None and not isinstance(classifier, str):
            raise SpecError(f"classifier is {reprlib.repr(classifier)}; give the name of a head, or nothing")
        trunk = make_trunk(TrunkSpec.from_dict(architecture["trunk"]))
        try:
            built = nn.ModuleDict({name: make_head(name, head) for name, head in heads.items()})
        except (KeyError, TypeError) as error:
            raise SpecError(
                f"a head cannot be named so: {reprlib.repr(error)}; use plain words without dots"
            ) from error
        return cls(trunk, architecture["mean"], architecture["std"], built, classifier)


def memory_format_of(model: object) -> torch.memory_format:
    """The order in memory of images for a model: a network's own; other models may rely on that of their images."""
    return model.memory_format if isinstance(model, Network) else torch.preserve_format
