"""System C as data: the source's figures, and at which scales its networks are pretrained, fine-tuned and attacked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from unfool.core.config import configured
from unfool.models.trunks import TrunkSpec
from unfool.studies.framework import Published
from unfool.studies.framework.recipes import LABELS, short_stage
from unfool.training import ProbeSettings, StageConfig
from unfool.training.config import TrunkField


class Model:
    """What rows call networks: the source's pretrainings and ours, and the controls."""

    SIMCLR, ROTATION, JIGSAW = "simclr", "rotation", "jigsaw"
    COMBINATION, ADVERSARIAL = "simclr + rotation + jigsaw", "adversarial contrast"
    CONTROL, QUARTER = "no pretraining", "adversarial training, a quarter of the cost"
    RANDOM = "random weights"


TASKS_OF = {
    Model.SIMCLR: ("contrast",),
    Model.ROTATION: ("rotation",),
    Model.JIGSAW: ("jigsaw",),
    Model.COMBINATION: ("contrast", "rotation", "jigsaw"),
    Model.ADVERSARIAL: ("contrast",),
}
"""The tasks of every pretraining."""
PRETRAININGS = tuple(TASKS_OF)
CLEAN, PERTURBED = "clean images", "FGSM examples"
LEARNS_FROM = (CLEAN, PERTURBED)
"""What fine-tuning learns from."""
SHARES = (0.01, 0.1, 0.3, 1.0)
"""Shares of the labels."""
COMPARED = 0.3
"""The share at which the source compares pretraining tasks."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One fine-tuned network but for its seed: ``model`` is a pretraining or a control, ``share`` that of the labels,
    ``images`` what it is fine-tuned on, ``trainable`` as `StageConfig` says it; ``other`` tells that it is on the
    second data set."""

    model: str
    share: float = 1.0
    images: str = PERTURBED
    trainable: str = "heads"
    other: bool = False

    @property
    def settings(self) -> dict[str, str]:
        """What tells its rows apart from those of the same model."""
        return {"labels": percent(self.share), "fine_tuned_on": self.images, "moved": trained_part(self.trainable)}


def percent(share: float) -> str:
    """A share in %."""
    return f"{100 * share:g} %"


def trained_part(trainable: str) -> str:
    """What fine-tuning trained, in words."""
    kind, _, which = trainable.partition(":")
    return {
        "heads": "the added layer",
        "all": "all layers",
        "from": f"{which} and later",
        "after": f"all but the first {which} layers",
    }[kind]


TABLE = {
    (Model.CONTROL, 1.0): (68, 23, 66, 36),
    (Model.SIMCLR, 0.01): (58, 26, 49, 29),
    (Model.SIMCLR, 0.1): (61, 32, 60, 36),
    (Model.SIMCLR, 0.3): (63, 33, 62, 38),
    (Model.SIMCLR, 1.0): (63, 35, 62, 40),
}
"""The source's first table in %: accuracy on clean images and under FGSM, fine-tuned on clean images; then the same
fine-tuned on FGSM examples."""
TASKS_TABLE = {Model.ROTATION: 25, Model.JIGSAW: 29, Model.SIMCLR: 38}
"""Its second table in %: accuracy under FGSM after fine-tuning on FGSM examples of 30 % of the labels."""

_COLUMNS = [(images, attack) for images in LEARNS_FROM for attack in ("none", "fgsm")]
_TRAINED = {model: trained_part("all" if model == Model.CONTROL else "heads") for model, _ in TABLE}
_FIRST = {
    (model, percent(share), images, _TRAINED[model], attack): value
    for (model, share), values in TABLE.items()
    for (images, attack), value in zip(_COLUMNS, values, strict=True)
}
_CELL = percent(COMPARED), PERTURBED, trained_part("heads"), "fgsm"
PUBLISHED = Published(
    names=("model", "labels", "fine_tuned_on", "moved", "attack"),
    figures={**_FIRST, **{(model, *_CELL): value for model, value in TASKS_TABLE.items()}},
    applies=lambda row: "label_column" not in row.settings,
)
"""Both tables; nothing of them is of the second data set."""


@configured
class Scale:
    """One scale: networks of ``trunk`` (``words`` in the notes) are pretrained on ``unlabelled``, fine-tuned on
    ``data`` and, some of them, on ``other`` (a second data set and its label column).

    ``pretrain`` are the stages of every pretraining, one after the other, ``tasks`` the settings of its tasks. ``head``
    is the stage that trains the added layer alone, ``whole`` the one that trains more or starts from nothing; all take
    as many steps, of images that ``perturb`` perturbs inside ``threat`` where fine-tuning is adversarial. ``policies``
    are further choices of what is trainable, and ``fast`` the perturbation of supervised adversarial training at a
    stated cost.

    ``seeds`` of fine-tuning are run where a claim compares, one elsewhere. ``attacked`` test images are attacked by
    FGSM and ``pgd``, the first ``strongly`` of them by ``strong``. ``probe`` are the settings of the linear probes.
    """

    unlabelled: str
    data: str
    other: tuple[str, str]
    words: str
    trunk: TrunkField
    pretrain: dict[str, tuple[StageConfig, ...]]
    tasks: dict[str, dict[str, Any]]
    head: StageConfig
    whole: StageConfig
    policies: tuple[str, ...]
    fast: str = "fgsm:random_start=true,step_size=10/255"
    perturb: str = "fgsm"
    threat: str = "linf:8/255"
    seeds: int = Field(default=3, ge=1)
    attacked: int = Field(ge=1)
    pgd: str = "pgd-20"
    strongly: int = Field(ge=1)
    strong: str = "autoattack"
    probe: ProbeSettings
    precision: str = "bf16"


_HEAD = StageConfig(
    tasks=LABELS, batch_size=128, optimizer="adam", learning_rate=0.05, schedule="cosine", precision="bf16"
)
_QUICK = replace(_HEAD, learning_rate=3e-3, schedule="triangle")
_PROBE = ProbeSettings(epochs=24, drop_every=6, seeds=(0, 1, 2))


def _quick(*epochs: int, adversarial: str) -> dict[str, tuple[StageConfig, ...]]:
    """One short stage for each pretraining, of so many epochs; the last is dual-stream under its own attack."""
    stages = {name: (replace(_QUICK, epochs=count),) for name, count in zip(PRETRAININGS, epochs, strict=True)}
    return {**stages, Model.ADVERSARIAL: tuple(_dual_stream(stage, adversarial) for stage in stages[Model.ADVERSARIAL])}


def _dual_stream(stage: StageConfig, perturb: str) -> StageConfig:
    return replace(stage, adversarial="dual-stream", statistics="separate", perturb=perturb)


def _tasks(hidden: int) -> dict[str, dict[str, Any]]:
    contrast = {"temperature": 0.2, "hidden": hidden, "head_norm": "batch"}
    return {"contrast": contrast, "rotation": {"turns": "one"}, "jigsaw": {}}


SMALL = Scale(
    unlabelled="cifar100",
    data="cifar10",
    other=("cifar100", "fine_label"),
    words="convnet 24-48-96, strided stem",
    trunk=TrunkSpec(name="convnet", stem="strided", widths=[24, 48, 96]),
    pretrain=_quick(14, 4, 4, 4, 3, adversarial="pgd-2:step_size=6/255"),
    tasks=_tasks(256),
    head=replace(_HEAD, steps=300),
    whole=short_stage(steps=300),
    policies=("from:block3", "after:4", "all"),
    attacked=500,
    strongly=200,
    probe=_PROBE,
)
DEMO = replace(
    SMALL,
    unlabelled="digits",
    data="digits",
    other=("digits", "parity"),
    words="convnet 8-16-32, strided stem",
    trunk=TrunkSpec(name="convnet", stem="strided", widths=[8, 16, 32]),
    pretrain=_quick(8, 5, 5, 3, 2, adversarial="pgd-2"),
    tasks=_tasks(64),
    head=replace(_HEAD, batch_size=64, steps=25),
    whole=short_stage(batch_size=64, steps=25),
    fast="fgsm:random_start=true",
    threat="linf:0.1",
    seeds=1,
    attacked=100,
    strongly=40,
    strong="apgd-t:steps=20",
    probe=replace(_PROBE, seeds=(0,)),
)
_DECAY = 0.63
"""The source's learning rate decays exponentially, how fast is not stated: here to a hundredth, in ten equal stages."""
_SOURCE = tuple(
    replace(_HEAD, batch_size=256, learning_rate=3e-4 * _DECAY**number, schedule="constant", epochs=10)
    for number in range(10)
)
"""The source's 100 epochs."""
FULL = replace(
    SMALL,
    other=("tiny-imagenet", "label"),
    words="ResNet-18, CIFAR stem",
    trunk=TrunkSpec(name="resnet18", stem="cifar"),
    pretrain={
        **dict.fromkeys(PRETRAININGS, _SOURCE),
        Model.ADVERSARIAL: tuple(_dual_stream(stage, "pgd-5:step_size=2/255") for stage in _SOURCE),
    },
    tasks={"contrast": {"temperature": 0.5}, "rotation": {"turns": "all"}, "jigsaw": {"grid": 3, "count": 30}},
    head=replace(_HEAD, epochs=50),
    whole=short_stage(epochs=50),
    policies=("from:layer4", "after:10", "all"),
    attacked=10_000,
    strongly=1_000,
    precision="fp32",
)
SCALES = {"demo": DEMO, "small": SMALL, "full": FULL}
