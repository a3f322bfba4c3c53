"""System B as data: the source's figures, and at which scales its classifiers are trained, attacked and reversed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from unfool.core.config import configured
from unfool.core.threat import Linf
from unfool.evaluation.adaptive.ladder_settings import LadderSettings
from unfool.studies.framework import Published
from unfool.studies.framework.recipes import FAST, ROBUST, short_stage
from unfool.training import StageConfig, TaskConfig

REVERSE = "reverse:contrast"
LOSSES = ("nt-xent", "first-positive", "multi-positive", "margin", "cosine")
"""The variants of the contrastive loss that are compared."""
STEPS = 5
"""The source's default: steps of the stored sets in three norms, and of the reversal in its table."""
SOURCE_NORMS = {"none": 89.69, "l1": 89.64, "l2": 88.71, "linf": 74.08}
"""Accuracy in % of the source's robust classifier without reversal: clean, and under five steps in each norm."""
SOURCE_STEPS = {5: (74.08, 74.94), 10: (70.23, 71.17), 15: (70.20, 70.96), 50: (70.25, 70.07)}
"""Accuracy in % under Linf by attack steps: without, and with five steps of reversal."""
_OTHER_ROWS = {"corruptions", "fooled", "ladder"}
"""Settings of rows that the source has not."""

PUBLISHED = Published(
    names=("defense", "reversal_steps", "attack", "norm"),
    figures={
        ("none", None, "none", "linf"): SOURCE_NORMS["none"],
        **{("none", None, f"pgd-{STEPS}", norm): SOURCE_NORMS[norm] for norm in ("l1", "l2")},
        **{("none", None, f"pgd-{steps}", "linf"): bare for steps, (bare, _) in SOURCE_STEPS.items()},
        **{(REVERSE, STEPS, f"pgd-{steps}", "linf"): ours for steps, (_, ours) in SOURCE_STEPS.items()},
    },
    applies=lambda row: row.model == ROBUST and not _OTHER_ROWS & set(row.settings),
)


@configured
class Scale:
    """One scale: a ``trunk``, a stage for each base classifier and one for the contrastive head.

    ``threats`` are the budget of each norm; a reversal has twice that, as in the source, and ``reversal`` holds its
    other settings. ``attacked`` test images are attacked, ``corrupted`` of them seen under the common corruptions at
    ``severity``; ``yardstick`` is the attack of rung (a) of the ``ladder``, in whose precision all attacks search.
    ``negatives`` are how many rows of the bank an image draws in the chart of negatives.
    """

    data: str = "cifar10"
    trunk: dict[str, Any]
    robust: StageConfig
    normal: StageConfig
    contrast: StageConfig
    threats: dict[str, str] = Field(default_factory=lambda: {"linf": "linf:8/255", "l2": "l2:0.5", "l1": "l1:12"})
    reversal: dict[str, Any]
    attacked: int = Field(ge=1)
    corrupted: int = Field(ge=1)
    severity: int = Field(default=3, ge=1, le=5)
    yardstick: str = "autoattack"
    ladder: LadderSettings
    negatives: tuple[int, ...] = (16, 64, 256, 512)
    strong: str = "pgd-50"


def head_stage(head: dict[str, Any], **settings: Any) -> StageConfig:
    """The stage of a contrastive head on a frozen trunk."""
    tasks = {"contrast": TaskConfig(task="contrast", settings={"temperature": 0.2, "size": 16, **head})}
    recipe = {"batch_size": 256, "optimizer": "adam", "learning_rate": 1e-3, "precision": "bf16", "trainable": "heads"}
    return StageConfig(tasks=tasks, **{**recipe, **settings})


DEMO = Scale(
    data="digits",
    trunk={"name": "convnet", "stem": "strided", "widths": [8, 16, 32]},
    robust=short_stage(perturb="fgsm:random_start=true", threat="linf:0.15", epochs=15, held_out=300),
    normal=short_stage(epochs=5),
    contrast=head_stage({"hidden": 32}, epochs=4),
    threats={"linf": "linf:0.15", "l2": "l2:1", "l1": "l1:10"},
    reversal={"steps": 5, "views": 2, "bank": 128, "drawn": 64},
    attacked=100,
    corrupted=40,
    yardstick="apgd-t:steps=20",
    ladder=LadderSettings(threat=Linf(0.15), images=40, precision="bf16", steps=6, draws=2, lambdas=(1.0, 10.0)),
    negatives=(4, 16, 64),
    strong="pgd-20",
)
SMALL = Scale(
    trunk={"name": "convnet", "stem": "strided", "widths": [32, 64, 128]},
    robust=short_stage(perturb=FAST, epochs=24, held_out=1500),
    normal=short_stage(epochs=5),
    contrast=head_stage({"hidden": 128}, epochs=5),
    reversal={"steps": 10, "views": 2},
    attacked=500,
    corrupted=200,
    ladder=LadderSettings(threat=Linf(8 / 255), images=200, precision="bf16"),
)
_LONG = short_stage(schedule="cosine", epochs=100)
FULL = Scale(
    trunk={"name": "wide-resnet", "depth": 28, "width": 10},
    robust=replace(_LONG, perturb="pgd-10", adversarial="trades", held_out=1500),
    normal=_LONG,
    contrast=head_stage({"hidden": 256, "head_norm": "batch"}, epochs=201, batch_size=1024, learning_rate=1e-4),
    reversal={"steps": 40, "views": 4},
    attacked=10_000,
    corrupted=1_000,
    ladder=LadderSettings(threat=Linf(8 / 255), images=1_000, steps=50, draws=8),
)
SCALES = {"demo": DEMO, "small": SMALL, "full": FULL}
