"""System E as data: the source's figures, the pretrainings that are probed, and the scales at which they are made."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import Field

from unfool.core.config import configured
from unfool.models.trunks import TrunkSpec
from unfool.studies.framework import Published
from unfool.training import ProbeSettings, StageConfig, TaskConfig
from unfool.training.config import TrunkField
from unfool.training.recipes import short_stage

STAGES = ("pool1", "pool2", "pool3", "pool4", "pool5")
"""The stages of VGG-16 that are probed."""
RESNET_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
"""Those of a ResNet-50, each averaged over the whole image."""
WHOLE, HALF, HALF_RESNET = "whole", "half width", "half-width ResNet-50"
"""Extractors, by their names in `Scale.trunks`."""


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """One way to make an extractor: ``task`` (None: none, the weights stay random) under ``noise`` (a key of
    `Scale.noises`, None: clean) on a ``trunk``, for longer or not; ``attacked``: is its best classifier attacked?"""

    name: str
    task: str | None = "rotation"
    noise: str | None = None
    trunk: str = WHOLE
    longer: bool = False
    attacked: bool = False

    def on(self, trunk: str) -> Pretraining:
        """The same on another trunk, which its name then says."""
        return self if trunk == self.trunk else replace(self, name=f"{trunk}, {self.name}", trunk=trunk, attacked=False)


AS_WRITTEN, REACHING, LABELS_NOISE = "as written", "reaching eps", "labels"

ROTATION = Pretraining(name="rotation", attacked=True)
NOISE = Pretraining(name="rotation + adversarial noise", noise=AS_WRITTEN, attacked=True)
LONGER = Pretraining(name="rotation, for longer", longer=True)
RANDOM = Pretraining(name="random weights", task=None)
REACHES = Pretraining(name="rotation + noise that reaches eps", noise=REACHING, attacked=True)
LABELS = Pretraining(name="labels", task="labels", attacked=True)
ROBUST_LABELS = Pretraining(name="labels + noise", task="labels", noise=LABELS_NOISE, attacked=True)

SMALLER = tuple(plan.on(trunk) for trunk in (HALF, HALF_RESNET) for plan in (ROTATION, NOISE))
EVERY = (ROTATION, NOISE, LONGER, REACHES, LABELS, ROBUST_LABELS, *SMALLER, RANDOM)
"""All pretrainings; the first two are the source's."""

PUBLISHED = Published.beside(__file__, lambda row: row.split != "train" and row.protocol == "clean")
"""The source's probes."""


@configured
class Scale:
    """One scale: the set that is probed (``data``), the set and split that rotation learns from (``unlabelled``), the
    set and label column that supervised pretraining learns from (``labels``); ``size`` in pixels a side (0: its own).

    ``trunks`` are the extractors by name, ``pretrainings`` those that are probed; ``pretrain`` is the stage of each,
    ``rotation`` its task, and `LONGER` takes ``times`` as long. ``noises`` are attacks inside ``threat``. The ``probe``
    learns from ``labelled`` images; the best stage is chosen on ``held_out`` others. ``attack`` attacks ``attacked``
    test images inside ``threats``, searching in ``precision``.
    """

    data: str
    unlabelled: tuple[str, str]
    labels: tuple[str, str]
    size: int = Field(default=0, ge=0)
    normalisation: str = "cifar10"
    trunks: dict[str, TrunkField]
    pretrainings: tuple[Pretraining, ...] = EVERY
    rotation: TaskConfig = TaskConfig(task="rotation", settings={"turns": "one", "augmentation": "none"})
    pretrain: StageConfig
    times: int = Field(default=4, ge=1)
    noises: dict[str, str]
    threat: str = "linf:0.01"
    probe: ProbeSettings
    labelled: int = Field(ge=1)
    held_out: int = Field(ge=1)
    attacked: int = Field(ge=1)
    attack: str = "autoattack"
    threats: tuple[str, ...] = ("linf:0.01", "linf:8/255")
    precision: str = "bf16"


_NOISES = {
    AS_WRITTEN: "pgd-5:random_start=false,step_size=0.001",
    REACHING: "pgd-5:random_start=true,step_size=0.0025",
    LABELS_NOISE: "fgsm:random_start=true,step_size=0.0125",
}
# The source's pretraining is the long one, and its probe that of 120 epochs.
_SHORT = short_stage(weight_decay=1e-4, nesterov=False, epochs=3)
_LONG = replace(_SHORT, schedule="step", drop_every=25, epochs=60, precision="fp32")
_PROBE = ProbeSettings(seeds=(0, 1, 2, 3, 4))
_SHORT_PROBE = replace(_PROBE, epochs=12, drop_every=3)


def _trunks(width: float) -> dict[str, TrunkSpec]:
    """VGG-16 of a width, and two extractors of half of it."""
    return {
        WHOLE: TrunkSpec(name="vgg16", width=width),
        HALF: TrunkSpec(name="vgg16", width=width / 2),
        HALF_RESNET: TrunkSpec(name="resnet50", stem="imagenet", width=width / 2),
    }


SMALL = Scale(
    data="cifar10",
    unlabelled=("cifar10", "train"),
    labels=("cifar100", "fine_label"),
    trunks=_trunks(0.25),
    pretrain=_SHORT,
    noises=_NOISES,
    probe=replace(_SHORT_PROBE, precision="bf16"),
    labelled=4500,
    held_out=500,
    attacked=200,
)
DEMO = replace(
    SMALL,
    data="digits",
    unlabelled=("digits", "train"),
    labels=("digits", "parity"),
    trunks=_trunks(0.125),
    pretrain=replace(_SHORT, epochs=2),
    times=3,
    probe=replace(_SHORT_PROBE, seeds=(0, 1, 2)),
    labelled=600,
    held_out=200,
    attacked=24,
    attack="apgd-ce:steps=10",
)
FULL = replace(
    SMALL,
    data="stl10",
    unlabelled=("stl10", "unlabelled"),
    labels=("tiny-imagenet", "label"),
    size=64,
    normalisation="imagenet",
    trunks=_trunks(1.0),
    pretrain=_LONG,
    noises={**_NOISES, LABELS_NOISE: _NOISES[REACHING]},
    probe=_PROBE,
    attacked=1000,
    precision="fp32",
)
SOURCE = replace(
    FULL,
    data="imagenette96_sub",
    unlabelled=("tiny_imagenet_sub40", "train"),
    labels=("tiny_imagenet_sub40", "label"),
    pretrainings=(ROTATION, NOISE, LONGER, LABELS.on(HALF), ROBUST_LABELS.on(HALF), RANDOM),
    pretrain=replace(_LONG, epochs=4, drop_every=2, warmup_epochs=1, precision="bf16"),
    noises=_NOISES,
    probe=replace(_PROBE, precision="bf16"),
    labelled=1800,
    held_out=200,
    attacked=200,
    attack="apgd-t:steps=30",
    precision="bf16",
)
SCALES = {"demo": DEMO, "small": SMALL, "source": SOURCE, "full": FULL}
