"""System B as data: the source's figures, and at which scales its classifiers are trained, attacked and reversed."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from unfool.core.config import configured
from unfool.studies.recipes import NORMAL, ROBUST, SHORT_ADVERSARIAL

BASES = (ROBUST, NORMAL)
NORMS = ("linf", "l2", "l1")
SET_STEPS = 5
"""Steps of the stored sets in three norms, the source's default."""
STEPS = (5, 10, 15, 50)
"""Steps of the attacks whose reversal the source tabulates, in Linf."""
REVERSAL_STEPS = 5
"""Steps of the reversal in that table."""

SOURCE_NORMS = {"none": 89.69, "l1": 89.64, "l2": 88.71, "linf": 74.08}
"""Accuracy in % of the source's robust classifier without reversal: clean, and under five steps in each norm."""
SOURCE_STEPS = {5: (74.08, 74.94), 10: (70.23, 71.17), 15: (70.20, 70.96), 50: (70.25, 70.07)}
"""Accuracy in % under Linf by attack steps: without, and with five steps of reversal."""


@configured
class Scale:
    """One scale: ``trunk`` (and its ``words``), a stage for each base classifier and one for the contrastive head.

    ``head`` are the contrast task's settings, ``threats`` the budget of each norm; a reversal has twice that, as in the
    source, and ``reversal`` holds its other settings. ``attacked`` test images are attacked, ``corrupted`` of them
    judged under the common corruptions at ``severity``, ``laddered`` of them on every rung of the ladder; ``ladder``
    holds its settings, ``yardstick`` is the attack of its rung (a). ``negatives`` are the numbers of bank rows that an
    image draws in the graph over negatives.
    """

    data: str
    words: str
    trunk: dict[str, Any]
    robust: dict[str, Any]
    normal: dict[str, Any]
    contrast: dict[str, Any]
    head: dict[str, Any]
    threats: dict[str, str]
    reversal: dict[str, Any]
    attacked: int = Field(ge=1)
    corrupted: int = Field(ge=1)
    severity: int = Field(default=3, ge=1, le=5)
    yardstick: str = "autoattack"
    laddered: int = Field(ge=1)
    ladder: dict[str, Any]
    negatives: tuple[int, ...]
    strong: str = "pgd-50"
    precision: str = "bf16"


_CIFAR_THREATS = {"linf": "linf:8/255", "l2": "l2:0.5", "l1": "l1:12"}
_CONTRAST = {"optimizer": "adam", "learning_rate": 1e-3, "batch_size": 256, "precision": "bf16", "trainable": "heads"}
_HEAD = {"temperature": 0.2, "size": 16, "hidden": 128}

DEMO = Scale(
    data="digits",
    words="convnet 8-16-32",
    trunk={"name": "convnet", "stem": "strided", "widths": [8, 16, 32]},
    robust={
        **SHORT_ADVERSARIAL,
        "perturb": "fgsm:random_start=true",
        "threat": "linf:0.15",
        "epochs": 15,
        "held_out": 300,
    },
    normal={**SHORT_ADVERSARIAL, "perturb": None, "epochs": 5},
    contrast={**_CONTRAST, "epochs": 4},
    head={**_HEAD, "hidden": 32},
    threats={"linf": "linf:0.15", "l2": "l2:1", "l1": "l1:10"},
    reversal={"steps": 5, "views": 2, "bank": 128, "drawn": 64},
    attacked=100,
    corrupted=40,
    yardstick="apgd-t:steps=20",
    laddered=40,
    ladder={"steps": 6, "draws": 2, "lambdas": (1.0, 10.0)},
    negatives=(4, 16, 64),
    strong="pgd-20",
)
SMALL = Scale(
    data="cifar10",
    words="convnet 32-64-128, strided stem",
    trunk={"name": "convnet", "stem": "strided", "widths": [32, 64, 128]},
    robust={**SHORT_ADVERSARIAL, "epochs": 24, "held_out": 1500},
    normal={**SHORT_ADVERSARIAL, "perturb": None, "epochs": 5},
    contrast={**_CONTRAST, "epochs": 5},
    head=_HEAD,
    threats=_CIFAR_THREATS,
    reversal={"steps": 10, "views": 2},
    attacked=500,
    corrupted=200,
    laddered=200,
    ladder={"steps": 20, "draws": 4, "lambdas": (0.1, 1.0, 10.0)},
    negatives=(16, 64, 256, 512),
)
FULL = Scale(
    data="cifar10",
    words="WRN-28-10",
    trunk={"name": "wide-resnet", "depth": 28, "width": 10},
    robust={
        "perturb": "pgd-10",
        "adversarial": "trades",
        "batch_size": 128,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 5e-4,
        "schedule": "cosine",
        "precision": "bf16",
        "epochs": 100,
        "held_out": 1500,
    },
    normal={
        "batch_size": 128,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 5e-4,
        "schedule": "cosine",
        "precision": "bf16",
        "epochs": 100,
    },
    contrast={**_CONTRAST, "learning_rate": 1e-4, "batch_size": 1024, "epochs": 201},
    head={"temperature": 0.2, "size": 16, "hidden": 256, "head_norm": "batch"},
    threats=_CIFAR_THREATS,
    reversal={"steps": 40, "views": 4},
    attacked=10_000,
    corrupted=1_000,
    laddered=1_000,
    ladder={"steps": 50, "draws": 8, "lambdas": (0.1, 1.0, 10.0)},
    negatives=(16, 64, 256, 512),
    precision="fp32",
)
