"""System E as data: the source's figures, the pretrainings that are probed, and the scales at which they are made."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import Field

from unfool.core.config import configured
from unfool.models.trunks import TrunkSpec
from unfool.studies.framework import Published, table
from unfool.studies.framework.recipes import short_stage
from unfool.training import ProbeSettings, StageConfig
from unfool.training.config import TrunkField

STAGES = ("pool1", "pool2", "pool3", "pool4", "pool5")
"""The stages of VGG-16 that are probed."""


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """One way to make an extractor: ``task`` (None: none, the weights stay random) under ``noise`` (a key of
    `Scale.noises`, None: clean), with ``half`` the channels or all, for longer or not; ``attacked``: is its best
    classifier attacked?"""

    name: str
    task: str | None = "rotation"
    noise: str | None = None
    half: bool = False
    longer: bool = False
    attacked: bool = True


AS_WRITTEN, REACHING, LABELS_NOISE = "as written", "reaching eps", "labels"

ROTATION = Pretraining(name="rotation")
NOISE = Pretraining(name="rotation + adversarial noise", noise=AS_WRITTEN)
REACHES = Pretraining(name="rotation + noise that reaches eps", noise=REACHING)
LONGER = Pretraining(name="rotation, for longer", longer=True, attacked=False)
HALF = Pretraining(name="half width, rotation + noise", noise=AS_WRITTEN, half=True, attacked=False)
LABELS = Pretraining(name="labels", task="labels")
ROBUST_LABELS = Pretraining(name="labels + noise", task="labels", noise=LABELS_NOISE)
RANDOM = Pretraining(name="random weights", task=None, attacked=False)
PRETRAININGS = (ROTATION, NOISE, REACHES, LONGER, HALF, LABELS, ROBUST_LABELS, RANDOM)
"""All that are probed; the first two are the source's."""

PUBLISHED = Published(
    names=("model", "stage"),
    figures=table(
        STAGES,
        {ROTATION.name: (48.7, 60.9, 60.3, 59.9, 47.9), NOISE.name: (48.5, 60.1, 64.6, 66.5, 54.9)},
    ),
    applies=lambda row: row.split != "train" and row.protocol == "clean",
)
"""Test accuracy in % of the source's probes on its five stages, on STL-10."""


@configured
class Scale:
    """One scale: the set that is probed (``data``, its labels), the split of it that rotation learns from, the set and
    label column that supervised pretraining learns from; ``size`` in pixels a side (0: the set's own).

    ``trunk`` and ``half`` are the extractors (``words`` in the notes). ``pretrain`` are the stages of every
    pretraining, ``times`` how many times as long `LONGER` takes, ``noises`` the attacks that make the noise, inside
    ``threat``. The ``probe`` learns from ``labelled`` training images, and on ``held_out`` others the best stage is
    chosen. ``attacked`` test images are attacked by ``attack`` inside ``threats``, searching in ``precision``.
    """

    data: str
    split: str = "train"
    labels: tuple[str, str]
    size: int = Field(default=0, ge=0)
    words: str
    trunk: TrunkField
    half: TrunkField
    pretrain: tuple[StageConfig, ...]
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
_SHORT = short_stage(weight_decay=1e-4, epochs=2)
_PROBE = ProbeSettings(epochs=12, drop_every=3, seeds=(0, 1, 2))
"""The source's probe (the defaults), for fewer epochs."""


def _source_stage(learning_rate: float, epochs: int) -> StageConfig:
    return replace(_SHORT, schedule="constant", precision="fp32", learning_rate=learning_rate, epochs=epochs)


SMALL = Scale(
    data="cifar10",
    labels=("cifar100", "fine_label"),
    words="VGG-16 of a quarter of the width",
    trunk=TrunkSpec(name="vgg16", width=0.25),
    half=TrunkSpec(name="vgg16", width=0.125),
    pretrain=(replace(_SHORT, epochs=3),),
    noises=_NOISES,
    probe=replace(_PROBE, precision="bf16"),
    labelled=48_000,
    held_out=2000,
    attacked=200,
)
DEMO = replace(
    SMALL,
    data="digits",
    labels=("digits", "parity"),
    words="VGG-16 of an eighth of the width",
    trunk=TrunkSpec(name="vgg16", width=0.125),
    half=TrunkSpec(name="vgg16", width=0.0625),
    pretrain=(_SHORT,),
    times=3,
    probe=_PROBE,
    labelled=600,
    held_out=200,
    attacked=24,
    attack="apgd-ce:steps=10",
)
FULL = replace(
    SMALL,
    data="stl10",
    split="unlabelled",
    labels=("tiny-imagenet", "label"),
    size=64,
    words="VGG-16",
    trunk=TrunkSpec(name="vgg16", width=1.0),
    half=TrunkSpec(name="vgg16", width=0.5),
    # The source divides the learning rate by 10 every 25 epochs: a stage each.
    pretrain=(_source_stage(0.1, 25), _source_stage(0.01, 25), _source_stage(0.001, 10)),
    noises={**_NOISES, LABELS_NOISE: _NOISES[REACHING]},
    probe=replace(_PROBE, epochs=120, drop_every=30),
    labelled=4500,
    held_out=500,
    attacked=1000,
    precision="fp32",
)
SCALES = {"demo": DEMO, "small": SMALL, "full": FULL}
