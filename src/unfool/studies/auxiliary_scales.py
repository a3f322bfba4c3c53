"""System D as data: the source's table, and what is trained, attacked and reversed at which scale."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from unfool.core.config import configured
from unfool.studies.recipes import NORMAL, ROBUST, SHORT, SHORT_ADVERSARIAL
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

L2_ALONE, ADVERSARIAL_ALONE, SEVERAL = "L2 alone", "adversarial loss alone", "several masks"
LOSSES = {
    L2_ALONE: {"lambda_rec": 1.0, "lambda_adv": 0.0, "discriminator": 0},
    ADVERSARIAL_ALONE: {"lambda_rec": 0.0, "lambda_adv": 1.0},
}
"""Variants of inpainting whose decoders are trained beside the canonical one, on the same frozen trunk."""
MASKS = 4
"""Masks of the reversal with several."""

REPLAYED = ("fgsm", "pgd-2", "pgd-20")
"""Attacks whose last iterates are stored and replayed, as the source's are; AutoAttack's examples beside them."""


@configured
class Part:
    """One data set: its trunk (and the ``words`` for it), a stage for each kind of training, one for heads on a frozen
    trunk, and settings and weights of its tasks.

    A part with ``every`` takes each registered task that needs no labels, with defaults where ``tasks`` has no word on
    it; another one only those of ``tasks``. ``arguments`` trains the variants of inpainting too. ``alone`` is the stage
    of a run of each of ``tasks`` without a classifier, to see how well it can be done; with ``grid``, the same once
    more without the augmentation, to see what a jigsaw makes of the grid that JPEG leaves in images.
    """

    data: str
    words: str
    trunk: dict[str, Any]
    trainings: dict[str, dict[str, Any]]
    heads: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    every: bool = False
    arguments: bool = False
    alone: dict[str, Any] | None = None
    grid: bool = False


@configured
class Scale:
    """One scale: its parts, how many test images are attacked, by AutoAttack (``strongly``) and on every rung of the
    ladder, the threat model with its ``step_size``, and the settings of all reversals and of ``reversals`` by task."""

    parts: tuple[Part, ...] = Field(min_length=1)
    attacked: int = Field(ge=1)
    strongly: int = Field(ge=1)
    laddered: int = Field(ge=1)
    ladder: dict[str, Any]
    reversal: dict[str, Any]
    reversals: dict[str, dict[str, Any]]
    threat: str = "linf:8/255"
    step_size: str = "2/255"
    strongest: str = "autoattack"
    precision: str = "bf16"


_HEADS = {
    "batch_size": 256,
    "optimizer": "adam",
    "learning_rate": 2e-3,
    "weight_decay": 0.0,
    "schedule": "triangle",
    "precision": "bf16",
}
_TILES = {"form": "context-free", "grid": 3, "count": 30, "gap": 0.0, "jitter": 0.147}
"""The source's tiles, 64 of 75 pixels of a cell, in proportion."""
_CONTRAST = {"temperature": 0.2, "size": 32, "hidden": 128}
_REVERSALS = {"contrast": {"views": 2, "bank": 256, "drawn": 128}}

DEMO = Scale(
    parts=(
        Part(
            data="digits",
            words="context encoder, an eighth of the width",
            trunk={"name": "context-encoder", "width": 0.125},
            trainings={NORMAL: {**SHORT, "epochs": 6}},
            heads={**_HEADS, "batch_size": 128, "epochs": 4},
            tasks={
                "contrast": {"settings": {**_CONTRAST, "size": 16, "hidden": 32}},
                INPAINTING: {"settings": {"width": 16, "discriminator": 8}, "weight": 10.0},
                JIGSAW: {"settings": {**_TILES, "grid": 2, "count": 24, "hidden": 64}, "weight": 0.5},
            },
            every=True,
            arguments=True,
        ),
    ),
    attacked=60,
    strongly=30,
    laddered=20,
    ladder={"steps": 4, "draws": 2, "lambdas": (1.0,)},
    reversal={"steps": 5},
    reversals={"contrast": {"views": 2, "bank": 64, "drawn": 32}},
    threat="linf:0.1",
    step_size="0.025",
    strongest="apgd-t:steps=20",
    precision="fp32",
)
SMALL = Scale(
    parts=(
        Part(
            data="cifar10",
            words="context encoder, half the width",
            trunk={"name": "context-encoder", "width": 0.5},
            trainings={NORMAL: {**SHORT, "epochs": 6}, ROBUST: {**SHORT_ADVERSARIAL, "epochs": 5, "held_out": 500}},
            heads={**_HEADS, "epochs": 4},
            tasks={
                "contrast": {"settings": _CONTRAST, "weight": 0.5},
                INPAINTING: {"settings": {"width": 32}, "weight": 10.0},
                JIGSAW: {"settings": {**_TILES, "hidden": 256}, "weight": 0.5},
                "rotation": {"settings": {"turns": "one"}, "weight": 0.5},
            },
            every=True,
            arguments=True,
        ),
        Part(
            data="tiny_imagenet_sub40",
            words="convnet 32-64-128, strided stem",
            trunk={"name": "convnet", "stem": "strided", "widths": [32, 64, 128]},
            trainings={NORMAL: {**SHORT, "epochs": 12}},
            heads={**_HEADS, "batch_size": 128, "epochs": 6},
            tasks={JIGSAW: {"settings": {**_TILES, "augmentation": "resized-crop"}, "weight": 2.0}},
            alone={**_HEADS, "batch_size": 128, "epochs": 12},
            grid=True,
        ),
    ),
    attacked=500,
    strongly=200,
    laddered=100,
    ladder={"steps": 20, "draws": 4, "lambdas": (0.1, 1.0, 10.0)},
    reversal={"steps": 10},
    reversals=_REVERSALS,
)
FULL = Scale(
    parts=(
        Part(
            data="cifar10",
            words="context encoder",
            trunk={"name": "context-encoder"},
            trainings={
                NORMAL: {**SHORT, "schedule": "cosine", "epochs": 100},
                ROBUST: {**SHORT, "schedule": "cosine", "perturb": "pgd-10", "epochs": 100, "held_out": 1500},
            },
            heads={**_HEADS, "epochs": 50},
            tasks={
                "contrast": {"settings": {"temperature": 0.2, "size": 128, "hidden": 512}, "weight": 0.5},
                INPAINTING: {"weight": 10.0},
                JIGSAW: {"settings": {**_TILES, "count": 100}, "weight": 0.5},
                "rotation": {"weight": 0.5},
            },
            every=True,
            arguments=True,
        ),
        Part(
            data="tiny-imagenet",
            words="AlexNet, first stride 2",
            trunk={"name": "alexnet", "stem": "stride-2"},
            trainings={NORMAL: {**SHORT, "learning_rate": 0.02, "schedule": "cosine", "epochs": 70}},
            heads={**_HEADS, "learning_rate": 1e-3, "epochs": 30},
            tasks={
                JIGSAW: {
                    "settings": {**_TILES, "count": 100, "hidden": 4096, "augmentation": "resized-crop"},
                    "weight": 0.5,
                }
            },
            alone={**SHORT, "learning_rate": 0.01, "schedule": "cosine", "epochs": 70},
            grid=True,
        ),
    ),
    attacked=10_000,
    strongly=1_000,
    laddered=1_000,
    ladder={"steps": 50, "draws": 8, "lambdas": (0.1, 1.0, 10.0)},
    reversal={"steps": 10},
    reversals={"contrast": {"views": 4, "bank": 1024, "drawn": 512}},
    precision="fp32",
)
