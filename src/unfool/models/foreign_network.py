# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A classifier of another library as a network that trains: its own logits, and heads of tasks on its features.

Legend: B images, K outputs, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor, nn

from unfool.core.config import configured
from unfool.core.errors import SpecError, WeightsError
from unfool.models.foreign import ForeignClassifier, beside
from unfool.models.header import read_header
from unfool.models.heads import Head, build_head
from unfool.models.modes import frozen_eval
from unfool.models.network import Architecture, Network
from unfool.models.outside.copies import copied
from unfool.models.outside.features import checked_path
from unfool.models.outside.outputs import same_logits
from unfool.models.trunks import Trunk, TrunkSpec
from unfool.models.weights import FOREIGN, load_tensors, save_tensors

_OWN = ("logits", "last")
"""Stages that every classifier has, the second one where its features are named."""
CLASSIFIER = "labels"
"""The head that stands for the classifier's own outputs."""


_PREFIX = "trunk.parts.classifier."
"""Before the names of a classifier's own tensors in a run's file."""


class Adapted(TypedDict):
    """What a run's file says of how its classifier was adapted, beside tensors: attributes of `ForeignClassifier`."""

    feature_path: str | None
    output: str | None
    scale: float
    layout: str
    batch: int | None


_UNSAID: Adapted = {"feature_path": None, "output": None, "scale": 1.0, "layout": "nchw", "batch": None}
"""What holds where a file says nothing."""


class ForeignArchitecture(Architecture):
    """That of a classifier of another library: ``adapted`` says how its images are prepared and its output read."""

    adapted: Adapted


class OwnLogits(nn.Identity):
    """The classifier's own outputs (B, K), as the head of the task that classifies."""

    stage = "logits"


class _Channels(dict[str, int]):
    """Channels by stage; without features the error says how to name them."""

    advice = ""

    def __missing__(self, stage: str) -> int:
        raise SpecError(f"a task needs features (stage {stage!r}): {self.advice}")


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
    """A classifier of another library, run once a pass for its logits and its features.

    Its images come in channels-last order only where it was seen to compute the same in it.
    """

    memory_format = torch.contiguous_format
    identity_leaves_out: ClassVar[frozenset[str]] = frozenset({"memory_format"})

    def __init__(self, spec: ForeignSpec, classifier: ForeignClassifier, widths: Mapping[str, int] | None = None):
        width = spec.settings.features
        channels = _Channels({"logits": spec.settings.outputs, **({"last": width} if width else {}), **(widths or {})})
        channels.advice = classifier.unnamed_features
        super().__init__(spec, {"classifier": classifier}, channels)
        self.stages = [stage for stage in channels if stage != "logits"]

    @property
    def classifier(self) -> ForeignClassifier:
        """The wrapped classifier."""
        part = self.parts["classifier"]
        if not isinstance(part, ForeignClassifier):
            raise SpecError(f"a foreign trunk holds a {type(part).__name__}; build it with foreign_network")
        return part

    def collect(self, images: Tensor, stages: Set[str]) -> dict[str, Tensor]:
        """Logits and features in one pass; SpecError for features that were not named.

        Beside "logits" and "last" any submodule is a stage, under its path.
        """
        own = self.classifier.feature_path
        paths = {stage: own if stage == "last" and own is not None else stage for stage in stages if stage != "logits"}
        for stage in stages:
            _ = self.channels[stage]
        logits, features = self.classifier.collect(images, list(dict.fromkeys(paths.values())))
        collected = {stage: features[path] for stage, path in paths.items()}
        if "last" in collected and collected["last"].ndim == 4:
            collected["last"] = collected["last"].mean((2, 3))
        return collected if "logits" not in stages else {"logits": logits, **collected}


class ForeignNetwork(Network):
    """A classifier of another library with the interface of `Network`: heads, stages, training.

    Its state dict holds the classifier's tensors and those of the heads; `own_state` the classifier's alone, under the
    names that its own code knows.
    """

    def __init__(self, classifier: ForeignClassifier, spec: ForeignSpec, widths: Mapping[str, int] | None = None):
        heads: Mapping[str, nn.Module] = {CLASSIFIER: OwnLogits()}
        super().__init__(ForeignTrunk(spec, classifier, widths), [0.0], [1.0], heads, CLASSIFIER)

    @property
    def classifier_alone(self) -> ForeignClassifier:
        """The classifier as `adapt` wraps it, without heads of other tasks."""
        trunk = self.trunk
        if not isinstance(trunk, ForeignTrunk):
            raise SpecError(f"this network has a {type(trunk).__name__}; build it with foreign_network")
        return trunk.classifier

    @property
    def module(self) -> nn.Module:
        """The module that the classifier wraps."""
        return self.classifier_alone.module

    def own_state(self) -> dict[str, Tensor]:
        """The classifier's tensors under its own names."""
        return dict(self.module.state_dict())

    @property
    def architecture(self) -> ForeignArchitecture:
        """Sizes and the described heads; the classifier's code is not among them."""
        heads = {name: dict(head.description) for name, head in self.heads.items() if isinstance(head, Head)}
        own = self.classifier_alone
        adapted: Adapted = {
            "feature_path": own.feature_path,
            "output": own.output,
            "scale": own.scale,
            "layout": own.layout,
            "batch": own.batch,
        }
        plain: Architecture = {
            "trunk": self.trunk.spec.to_dict(),
            "mean": [0.0],
            "std": [1.0],
            "heads": heads,
            "classifier": None,
        }
        return {**plain, "adapted": adapted}


def foreign_network(classifier: ForeignClassifier, images: Tensor) -> ForeignNetwork:
    """A copy of a classifier as a network that trains.

    Args:
        classifier: The adapted classifier; it is copied and stays as it is.
        images: A few images (B, C, H, W) in [0,1], which it is run on once to learn its sizes.

    Raises:
        SpecError: A classifier without parameters, or one that cannot be copied.
    """
    check_trains(classifier)
    return _sized(copied_classifier(classifier), images, ())


def check_trains(classifier: ForeignClassifier) -> None:
    """Raise SpecError for a black box and for a classifier without parameters."""
    if classifier.black_box:
        raise SpecError(
            f"{classifier.shown_name} gives scores without a gradient, so it cannot be trained; give the "
            "torch.nn.Module behind it"
        )
    if not any(parameter.is_floating_point() for parameter in classifier.parameters()):
        raise SpecError("the classifier has no parameters to train; give a torch.nn.Module with weights")
    for name, value in classifier.module.state_dict().items():
        if not isinstance(value, Tensor):
            raise SpecError(
                f"the classifier keeps {name!r} among its weights, a {type(value).__name__} and no tensor, as "
                "quantised layers do; give the model that it was made from"
            )


def probed_network(classifier: ForeignClassifier, images: Tensor, paths: Sequence[str] | None) -> ForeignNetwork:
    """A copy of a classifier whose submodules at ``paths`` are stages (default: the one that it names as features).

    Raises SpecError for paths that are not there, that give no representation, and where none is named.
    """
    if paths is None and classifier.feature_path is None:
        raise SpecError(classifier.unnamed_features)
    own = copied_classifier(classifier)
    return _sized(own, images, [path if path in _OWN else checked_path(own.module, path) for path in paths or ()])


def _sized(own: ForeignClassifier, images: Tensor, paths: Sequence[str]) -> ForeignNetwork:
    """The network of a classifier of one's own, run once on two images to learn its sizes."""
    with torch.no_grad(), frozen_eval(own):
        device = next((tensor.device for tensor in own.parameters()), torch.device("cpu"))
        last = [own.feature_path] if own.feature_path is not None else []
        names = [*last, *(path for path in paths if path not in (*_OWN, *last))]
        few = images[:2].to(device, memory_format=torch.contiguous_format)
        logits, features = own.collect(few, names)
    widths = {path: values.shape[1] for path, values in features.items()}
    spec = ForeignSpec(channels=images.shape[1], outputs=logits.shape[1], features=widths[last[0]] if last else 0)
    network = ForeignNetwork(own, spec, {path: widths[path] for path in paths if path in widths})
    if _takes_channels_last(own, few, logits):
        network.trunk.memory_format = torch.channels_last
    return network


def _takes_channels_last(own: ForeignClassifier, images: Tensor, wanted: Tensor) -> bool:
    """Whether a classifier gives the logits that are ``wanted`` (B, K), and gradients, with its weights in
    channels-last order, whatever the order of its images; one that takes views of its features does not."""
    try:
        trial = copied_classifier(own).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with frozen_eval(trial), torch.enable_grad():
            learnt = [weight.requires_grad_() for weight in trial.parameters() if weight.is_floating_point()]
            for order in (torch.channels_last, torch.contiguous_format):
                leaf = images.detach().clone(memory_format=order).requires_grad_()
                logits = trial(leaf)
                torch.autograd.grad(logits.sum(), [leaf, *learnt], allow_unused=True)
                if not same_logits(logits.detach(), wanted):
                    return False
    except Exception:  # Whatever the user's code makes of strides that it does not expect.
        return False
    return True


def save_own_weights(network: ForeignNetwork, path: str | Path) -> None:
    """Write the classifier's tensors under its own names, to be loaded without this library; raises OutputError."""
    save_tensors(path, network.own_state())


def copied_classifier(classifier: ForeignClassifier) -> ForeignClassifier:
    """A copy that shares nothing with the classifier; SpecError for one that cannot be copied."""
    return copied(classifier, "leave out what it keeps beside its weights, or build it anew without that")


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
    tensors, _ = load_tensors(path)
    own = copied_classifier(classifier)
    _adapt_as_trained(own, described.get("adapted"), tensors, path)
    network = ForeignNetwork(own, ForeignSpec(**sizes))
    for name, head in heads.items():
        network.heads[name] = build_head(head)
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise WeightsError(
            f"{path} holds the weights of another classifier: {lines[min(1, len(lines) - 1)]}"
        ) from error
    return network.eval()


def _adapt_as_trained(own: ForeignClassifier, adapted: Any, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Adapt a classifier as it was when a run trained it, in place; WeightsError where the user says otherwise."""
    stored: Mapping[str, object] = {**_UNSAID, **(adapted if isinstance(adapted, dict) else {})}
    for name, default in _UNSAID.items():
        theirs, ours = stored[name], getattr(own, name)
        if theirs == ours or (theirs is None and name in ("feature_path", "batch")):
            continue
        if ours != default:
            word = "features" if name == "feature_path" else name
            raise WeightsError(f"{path} was trained with {word} {theirs}, and {ours} was given; leave --{word} out")
        setattr(own, name, theirs)
    for name in ("mean", "std", "label_sets"):
        theirs, ours = tensors.get(f"{_PREFIX}{name}"), getattr(own, name, None)
        if ours is None and theirs is not None:
            own.register_buffer(name, beside(own.module, theirs.clone()))
            own.normalises = own.normalises or name == "mean"
        elif ours is not None and (theirs is None or theirs.shape != ours.shape or not torch.equal(theirs, ours.cpu())):
            with_what = "none" if theirs is None else theirs.tolist()
            raise WeightsError(f"{path} was trained with another {name} ({with_what}) than is given; leave it out")
