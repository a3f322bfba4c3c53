"""System D as data: the source's table, and what is trained, attacked and reversed at which scale."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from unfool.core.config import configured
from unfool.core.threat import Linf
from unfool.evaluation.adaptive.ladder_settings import LadderSettings
from unfool.studies.framework import Published
from unfool.studies.framework.recipes import FAST, NORMAL, ROBUST, short_stage
from unfool.training import StageConfig, TaskConfig
from unfool.training.regimes import CLASSIFIER_FIRST, JOINT

IN_SHORT = {NORMAL: "normal", ROBUST: "adversarial"}
"""The same where few words fit."""
INPAINTING, JIGSAW = "inpainting", "jigsaw"

SOURCE = {
    JOINT: {"none": (61.25, 44.32), "fgsm": (1.26, 12.61), "pgd-2": (0.02, 2.45)},
    CLASSIFIER_FIRST: {"none": (71.42, 55.13), "fgsm": (10.72, 17.35)},
}
"""Accuracy in % of the source's classifier with inpainting on CIFAR-10 by regime and attack: as it is, and with the
reversal. The row of classifier first under PGD-2 is missing there."""
SOURCE_DATA = "cifar10"
PUBLISHED = Published(
    names=("model", "defense", "attack"),
    figures={
        (model, defense, attack): value
        for regime, model in ((JOINT, f"labels + {INPAINTING}"), (CLASSIFIER_FIRST, "labels"))
        for attack, pair in SOURCE[regime].items()
        for defense, value in zip(("none", f"reverse:{INPAINTING}"), pair, strict=True)
    },
    applies=lambda row: (
        row.data == SOURCE_DATA and {**row.settings, "regime": ""} == {"training": "normal", "regime": ""}
    ),
)

L2_ALONE, ADVERSARIAL_ALONE, SEVERAL = "L2 alone", "adversarial loss alone", "several masks"
LOSSES = {
    L2_ALONE: {"lambda_rec": 1.0, "lambda_adv": 0.0, "discriminator": 0},
    ADVERSARIAL_ALONE: {"lambda_rec": 0.0, "lambda_adv": 1.0},
}
"""Variants of inpainting whose decoders are trained beside the canonical one, on the same frozen trunk."""
MASKS = 4
"""Masks of the reversal with several."""


@configured
class Part:
    """One data set: its trunk, a stage for each kind of training, settings of the stage of heads on a frozen trunk, and
    its auxiliary tasks.

    A part with ``every`` takes each registered task that needs no labels, with defaults where ``tasks`` has no word on
    it, and the variants of inpainting; another one only ``tasks``. ``alone`` is the stage of a run of each of them
    without a classifier, to see how well it can be done; a jigsaw runs once more without augmentation, to see what it
    makes of the grid that JPEG leaves in images.
    """

    data: str
    trunk: dict[str, Any]
    trainings: dict[str, StageConfig]
    heads: dict[str, Any]
    tasks: tuple[TaskConfig, ...] = ()
    every: bool = False
    alone: StageConfig | None = None


@configured
class Scale:
    """One scale: its parts, how many test images are attacked, and how many of them by the ``strongest`` attack, the
    ``ladder`` with the threat model of all, the ``step_size``, and settings of every reversal and of each by task."""

    parts: tuple[Part, ...] = Field(min_length=1)
    attacked: int = Field(ge=1)
    strongly: int = Field(ge=1)
    ladder: LadderSettings
    reversal: dict[str, Any]
    reversals: dict[str, dict[str, Any]] = Field(default_factory=dict)
    step_size: str = "2/255"
    strongest: str = "autoattack"

    @property
    def threat(self) -> str:
        """The threat model of all attacks."""
        return str(self.ladder.threat)


def auxiliary(task: str, weight: float = 1.0, **settings: Any) -> TaskConfig:
    """An auxiliary task beside the labels, the same in both regimes, and on clean views in both."""
    return TaskConfig(task=task, weight=weight, perturbed=False, settings=settings)


def _jigsaw(weight: float, count: int, grid: int = 3, **settings: Any) -> TaskConfig:
    """The context-free form with the source's tiles, 64 of 75 pixels of a cell, in proportion."""
    tiles = {"form": "context-free", "grid": grid, "count": count, "gap": 0.0, "jitter": 0.147}
    return auxiliary(JIGSAW, weight, **tiles, **settings)


_ADAM = {"batch_size": 256, "optimizer": "adam", "learning_rate": 2e-3, "weight_decay": 0.0}
_HEADS = {**_ADAM, "schedule": "triangle", "precision": "bf16"}

DEMO = Scale(
    parts=(
        Part(
            data="digits",
            trunk={"name": "context-encoder", "width": 0.125},
            trainings={NORMAL: short_stage(epochs=6)},
            heads={**_HEADS, "batch_size": 128, "epochs": 4},
            tasks=(
                auxiliary("contrast", 1.0, temperature=0.2, size=16, hidden=32),
                auxiliary(INPAINTING, 10.0, width=16, discriminator=8),
                _jigsaw(0.5, count=24, grid=2, hidden=64),
            ),
            every=True,
        ),
    ),
    attacked=60,
    strongly=30,
    ladder=LadderSettings(threat=Linf(0.1), images=20, steps=4, draws=2, lambdas=(1.0,)),
    reversal={"steps": 5},
    reversals={"contrast": {"views": 2, "bank": 64, "drawn": 32}},
    step_size="0.025",
    strongest="apgd-t:steps=20",
)
SMALL = Scale(
    parts=(
        Part(
            data="cifar10",
            trunk={"name": "context-encoder", "width": 0.5},
            trainings={NORMAL: short_stage(epochs=6), ROBUST: short_stage(perturb=FAST, epochs=5, held_out=500)},
            heads={**_HEADS, "epochs": 4},
            tasks=(
                auxiliary("contrast", 0.5, temperature=0.2, size=32, hidden=128),
                auxiliary(INPAINTING, 10.0, width=32),
                _jigsaw(0.5, count=30, hidden=256),
                auxiliary("rotation", 0.5, turns="one"),
            ),
            every=True,
        ),
        Part(
            data="tiny_imagenet_sub40",
            trunk={"name": "convnet", "stem": "strided", "widths": [32, 64, 128]},
            trainings={NORMAL: short_stage(epochs=12)},
            heads={**_HEADS, "batch_size": 128, "epochs": 6},
            tasks=(_jigsaw(2.0, count=30, augmentation="resized-crop"),),
            alone=short_stage(**{**_ADAM, "batch_size": 128, "epochs": 12}),
        ),
    ),
    attacked=500,
    strongly=200,
    ladder=LadderSettings(threat=Linf(8 / 255), images=100, precision="bf16"),
    reversal={"steps": 10},
    reversals={"contrast": {"views": 2, "bank": 256, "drawn": 128}},
)
FULL = Scale(
    parts=(
        Part(
            data="cifar10",
            trunk={"name": "context-encoder"},
            trainings={
                NORMAL: short_stage(schedule="cosine", epochs=100),
                ROBUST: short_stage(schedule="cosine", perturb="pgd-10", epochs=100, held_out=1500),
            },
            heads={**_HEADS, "epochs": 50},
            tasks=(
                auxiliary("contrast", 0.5, temperature=0.2, size=128, hidden=512),
                auxiliary(INPAINTING, 10.0),
                _jigsaw(0.5, count=100),
                auxiliary("rotation", 0.5),
            ),
            every=True,
        ),
        Part(
            data="tiny-imagenet",
            trunk={"name": "alexnet", "stem": "stride-2"},
            trainings={NORMAL: short_stage(learning_rate=0.02, schedule="cosine", epochs=70)},
            heads={**_HEADS, "learning_rate": 1e-3, "epochs": 30},
            tasks=(_jigsaw(0.5, count=100, hidden=4096, augmentation="resized-crop"),),
            alone=short_stage(learning_rate=0.01, schedule="cosine", epochs=70),
        ),
    ),
    attacked=10_000,
    strongly=1_000,
    ladder=LadderSettings(threat=Linf(8 / 255), images=1_000, steps=50, draws=8),
    reversal={"steps": 10},
    reversals={"contrast": {"views": 4, "bank": 1024, "drawn": 512}},
)
SCALES = {"demo": DEMO, "small": SMALL, "full": FULL}
