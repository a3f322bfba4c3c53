# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A classifier of another library as a network that trains: its own logits, and heads of tasks on its features.

Legend: B images, K outputs, D features.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unfool.core.config import configured
from unfool.core.errors import SpecError, WeightsError
from unfool.models.foreign import ForeignClassifier
from unfool.models.header import read_header
from unfool.models.heads import Head, build_head
from unfool.models.modes import frozen_eval
from unfool.models.network import Architecture, Network
from unfool.models.trunks import Trunk, TrunkSpec
from unfool.models.weights import FOREIGN, load_tensors, save_tensors

CLASSIFIER = "labels"
"""The head that stands for the classifier's own outputs."""


class OwnLogits(nn.Identity):
    """The classifier's own outputs (B, K), as the head of the task that classifies."""

    stage = "logits"


class _Channels(dict[str, int]):
    """Channels by stage; without features the error says how to name them."""

    def __missing__(self, stage: str) -> int:
        raise SpecError(
            f"a task needs features (stage {stage!r}), and it is unknown where this classifier has them; give "
            "--features MODULE.PATH, or adapt(module, features='module.path')"
        )


@configured
class ForeignSettings:
    """What is known of a classifier: its outputs, and the width of its features (0: not named)."""

    outputs: int
    features: int = 0


class ForeignSpec(TrunkSpec):
    """The spec of a trunk that no settings can build, since its code is the user's."""

    def __init__(self, *, channels: int, outputs: int, features: int):
        object.__setattr__(self, "name", FOREIGN)
        object.__setattr__(self, "channels", channels)
        object.__setattr__(self, "settings", ForeignSettings(outputs=outputs, features=features))


class ForeignTrunk(Trunk):
    """A classifier of another library, run once a pass for its logits and its features."""

    def __init__(self, spec: ForeignSpec, classifier: ForeignClassifier):
        width = spec.settings.features
        channels = _Channels({"logits": spec.settings.outputs, **({"last": width} if width else {})})
        super().__init__(spec, {"classifier": classifier}, channels)
        self.stages = list(channels)

    @property
    def classifier(self) -> ForeignClassifier:
        """The wrapped classifier."""
        part = self.parts["classifier"]
        if not isinstance(part, ForeignClassifier):
            raise SpecError(f"a foreign trunk holds a {type(part).__name__}; build it with foreign_network")
        return part

    def collect(self, images: Tensor, stages: Set[str]) -> dict[str, Tensor]:
        """Logits and features in one pass; SpecError for features that were not named."""
        for stage in stages:
            _ = self.channels[stage]
        if "last" not in stages:
            return {"logits": self.classifier(images)}
        features, logits = self.classifier.features_and_logits(images)
        return {stage: features if stage == "last" else logits for stage in stages}


class ForeignNetwork(Network):
    """A classifier of another library with the interface of `Network`: heads, stages, training.

    Its state dict holds the classifier's tensors and those of the heads; `own_state` the classifier's alone, under the
    names that its own code knows.
    """

    def __init__(self, classifier: ForeignClassifier, spec: ForeignSpec):
        heads: Mapping[str, nn.Module] = {CLASSIFIER: OwnLogits()}
        super().__init__(ForeignTrunk(spec, classifier), [0.0], [1.0], heads, CLASSIFIER)

    @property
    def module(self) -> nn.Module:
        """The module that the classifier wraps."""
        trunk = self.trunk
        if not isinstance(trunk, ForeignTrunk):
            raise SpecError(f"this network has a {type(trunk).__name__}; build it with foreign_network")
        return trunk.classifier.module

    def own_state(self) -> dict[str, Tensor]:
        """The classifier's tensors under its own names."""
        return dict(self.module.state_dict())

    @property
    def architecture(self) -> Architecture:
        """Sizes and the described heads; the classifier's code is not among them."""
        heads = {name: dict(head.description) for name, head in self.heads.items() if isinstance(head, Head)}
        return {"trunk": self.trunk.spec.to_dict(), "mean": [0.0], "std": [1.0], "heads": heads, "classifier": None}


def foreign_network(classifier: ForeignClassifier, images: Tensor) -> ForeignNetwork:
    """A copy of a classifier as a network that trains.

    Args:
        classifier: The adapted classifier; it is copied and stays as it is.
        images: A few images (B, C, H, W) in [0,1], which it is run on once to learn its sizes.

    Raises:
        SpecError: A classifier without parameters, or one that cannot be copied.
    """
    if not any(parameter.is_floating_point() for parameter in classifier.parameters()):
        raise SpecError("the classifier has no parameters to train; give a torch.nn.Module with weights")
    own = copied_classifier(classifier)
    with torch.no_grad(), frozen_eval(own):
        device = next((tensor.device for tensor in own.parameters()), torch.device("cpu"))
        probe = images[:2].to(device)
        outputs = own(probe).shape[1]
        width = own.features(probe).shape[1] if own.feature_path is not None else 0
    return ForeignNetwork(own, ForeignSpec(channels=images.shape[1], outputs=outputs, features=width))


def save_own_weights(network: ForeignNetwork, path: str | Path) -> None:
    """Write the classifier's tensors under its own names, to be loaded without this library; raises OutputError."""
    save_tensors(path, network.own_state())


def copied_classifier(classifier: ForeignClassifier) -> ForeignClassifier:
    """A copy that shares nothing with the classifier; SpecError for one that cannot be copied."""
    try:
        own = copy.deepcopy(classifier)
    except Exception as error:  # whatever the user's module raises
        raise SpecError(
            f"the classifier cannot be copied for training ({type(error).__name__}: {error}); build it anew for it"
        ) from error
    return own


def load_foreign(classifier: ForeignClassifier, path: str | Path) -> ForeignNetwork:
    """A copy of a classifier with the tensors of a run's weights file, and the heads that it describes, in eval mode.

    Raises WeightsError for a file that cannot be trusted, or that belongs to another classifier.
    """
    described: Any = read_header(path).metadata.get("architecture")
    trunk: Any = described.get("trunk") if isinstance(described, dict) else None
    heads: Any = described.get("heads") if isinstance(described, dict) else None
    if not isinstance(trunk, dict) or not isinstance(heads, dict) or trunk.get("name") != FOREIGN:
        raise WeightsError(f"{path} is not of a run that trained a classifier of another library; leave the model out")
    sizes: dict[str, Any] = {name: trunk.get(name) for name in ("channels", "outputs", "features")}
    if not all(isinstance(size, int) and size >= 0 for size in sizes.values()):
        raise WeightsError(f"{path} describes no classifier ({sizes}); train the run again")
    network = ForeignNetwork(copied_classifier(classifier), ForeignSpec(**sizes))
    for name, head in heads.items():
        network.heads[name] = build_head(head)
    tensors, _ = load_tensors(path)
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise WeightsError(
            f"{path} holds the weights of another classifier: {lines[min(1, len(lines) - 1)]}"
        ) from error
    return network.eval()
