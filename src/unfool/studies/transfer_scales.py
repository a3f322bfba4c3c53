"""System C as data: the source's figures, and at which scales its networks are pretrained, fine-tuned and attacked."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from unfool.core.config import configured
from unfool.studies.recipes import SHORT

SIMCLR, ROTATION, JIGSAW = "simclr", "rotation", "jigsaw"
COMBINATION, ADVERSARIAL = "simclr + rotation + jigsaw", "adversarial contrast"
TASKS_OF = {
    SIMCLR: ("contrast",),
    ROTATION: ("rotation",),
    JIGSAW: ("jigsaw",),
    COMBINATION: ("contrast", "rotation", "jigsaw"),
    ADVERSARIAL: ("contrast",),
}
"""The tasks of every pretraining, by its name in the table; the first three are the source's."""
PRETRAININGS = tuple(TASKS_OF)
CONTROL, QUARTER = "no pretraining", "adversarial training, a quarter of the cost"
RANDOM = "random weights"

CLEAN, PERTURBED = "clean images", "FGSM examples"
LEARNT = (CLEAN, PERTURBED)
"""What fine-tuning learns from."""
SHARES = (0.01, 0.1, 0.3, 1.0)
"""Shares of the labels."""
COMPARED = 0.3
"""The share at which the source compares pretraining tasks."""

SOURCE: dict[tuple[str, float], tuple[float, ...]] = {
    (CONTROL, 1.0): (68, 23, 66, 36),
    (SIMCLR, 0.01): (58, 26, 49, 29),
    (SIMCLR, 0.1): (61, 32, 60, 36),
    (SIMCLR, 0.3): (63, 33, 62, 38),
    (SIMCLR, 1.0): (63, 35, 62, 40),
}
"""The source's first table in %: accuracy on clean images and under FGSM, fine-tuned on clean images; then the same
fine-tuned on FGSM examples."""
SOURCE_TASKS = {ROTATION: 25, JIGSAW: 29, SIMCLR: 38}
"""Its second table in %: accuracy under FGSM after fine-tuning on FGSM examples of 30 % of the labels."""


@configured
class Other:
    """A second data set: its name in the catalog, its label column, and pixels a side (0: its own)."""

    data: str
    column: str
    size: int = Field(default=0, ge=0)


@configured
class Scale:
    """One scale: networks of ``trunk`` (``words`` in the notes) are pretrained on ``unlabelled``, fine-tuned on
    ``data`` and, some of them, on ``other``.

    ``pretrain`` are the stages of every pretraining, one after the other, ``tasks`` the settings of its tasks. ``head``
    is the stage that trains the added layer alone, ``whole`` the one that moves more or starts from nothing; all take
    as many steps, of images that ``perturb`` moves inside ``threat`` where fine-tuning is adversarial. ``policies`` are
    further choices of what moves, and ``fast`` the perturbation of supervised adversarial training at a stated cost.

    ``seeds`` of fine-tuning are run where a claim compares, one elsewhere. ``attacked`` test images are attacked by
    FGSM and ``pgd``, ``judged`` of them by ``strong``. ``probe`` holds the settings of the linear probes.
    """

    unlabelled: str
    data: str
    other: Other
    words: str
    trunk: dict[str, Any]
    pretrain: dict[str, tuple[dict[str, Any], ...]]
    tasks: dict[str, dict[str, Any]]
    head: dict[str, Any]
    whole: dict[str, Any]
    policies: tuple[str, ...]
    fast: str = "fgsm:random_start=true,step_size=10/255"
    perturb: str = "fgsm"
    threat: str = "linf:8/255"
    seeds: int = Field(default=3, ge=1)
    attacked: int = Field(ge=1)
    pgd: str = "pgd-20"
    judged: int = Field(ge=1)
    strong: str = "autoattack"
    probe: dict[str, Any] = Field(default_factory=dict)
    precision: str = "bf16"


_DUAL_STREAM = {"adversarial": "dual-stream", "statistics": "separate"}
_HEAD = {"batch_size": 128, "optimizer": "adam", "learning_rate": 0.05, "schedule": "cosine", "precision": "bf16"}
_QUICK = {"batch_size": 128, "optimizer": "adam", "learning_rate": 3e-3, "schedule": "triangle", "precision": "bf16"}
_PROBE = {"epochs": 24, "drop_every": 6, "seeds": (0, 1, 2)}


def _quick(*epochs: int, adversarial: dict[str, Any]) -> dict[str, tuple[dict[str, Any], ...]]:
    """One short stage for each pretraining, of so many epochs; the last is given its own settings."""
    plain = {name: ({**_QUICK, "epochs": count},) for name, count in zip(PRETRAININGS[:-1], epochs, strict=True)}
    return {**plain, ADVERSARIAL: ({**_QUICK, **_DUAL_STREAM, **adversarial},)}


DEMO = Scale(
    unlabelled="digits",
    data="digits",
    other=Other(data="digits", column="parity"),
    words="convnet 8-16-32, strided stem",
    trunk={"name": "convnet", "stem": "strided", "widths": [8, 16, 32]},
    pretrain=_quick(8, 5, 5, 3, adversarial={"epochs": 2, "perturb": "pgd-2"}),
    tasks={
        "contrast": {"temperature": 0.2, "hidden": 64, "head_norm": "batch"},
        "rotation": {"turns": "one"},
        "jigsaw": {},
    },
    head={**_HEAD, "batch_size": 64, "steps": 25},
    whole={**SHORT, "batch_size": 64, "steps": 25},
    policies=("from:block3", "after:4", "all"),
    fast="fgsm:random_start=true",
    threat="linf:0.1",
    seeds=1,
    attacked=100,
    judged=40,
    strong="apgd-t:steps=20",
    probe={**_PROBE, "seeds": (0,)},
)
SMALL = Scale(
    unlabelled="cifar100",
    data="cifar10",
    other=Other(data="cifar100", column="fine_label"),
    words="convnet 24-48-96, strided stem",
    trunk={"name": "convnet", "stem": "strided", "widths": [24, 48, 96]},
    pretrain=_quick(14, 4, 4, 4, adversarial={"epochs": 3, "perturb": "pgd-2:step_size=6/255"}),
    tasks={
        "contrast": {"temperature": 0.2, "hidden": 256, "head_norm": "batch"},
        "rotation": {"turns": "one"},
        "jigsaw": {},
    },
    head={**_HEAD, "steps": 300},
    whole={**SHORT, "steps": 300},
    policies=("from:block3", "after:4", "all"),
    attacked=500,
    judged=200,
    probe=_PROBE,
)
_DECAY = 0.63
"""The source's learning rate decays exponentially, how fast is not stated: here to a hundredth, in ten equal stages."""


def _source(**words: Any) -> tuple[dict[str, Any], ...]:
    """The source's 100 epochs."""
    stage = {"batch_size": 256, "optimizer": "adam", "weight_decay": 1e-4, "precision": "bf16", "epochs": 10, **words}
    return tuple({**stage, "learning_rate": 3e-4 * _DECAY**number} for number in range(10))


FULL = Scale(
    unlabelled="cifar100",
    data="cifar10",
    other=Other(data="tiny-imagenet", column="label"),
    words="ResNet-18, CIFAR stem",
    trunk={"name": "resnet18", "stem": "cifar"},
    pretrain={
        **dict.fromkeys(PRETRAININGS, _source()),
        ADVERSARIAL: _source(**_DUAL_STREAM, perturb="pgd-5:step_size=2/255"),
    },
    tasks={"contrast": {"temperature": 0.5}, "rotation": {"turns": "all"}, "jigsaw": {"grid": 3, "count": 30}},
    head={**_HEAD, "epochs": 50},
    whole={**SHORT, "epochs": 50},
    policies=("from:layer4", "after:10", "all"),
    attacked=10_000,
    judged=1_000,
    probe=_PROBE,
    precision="fp32",
)
