"""System B as data: the source's figures, and at which scales its classifiers are trained, attacked and reversed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from unfool.core.config import configured
from unfool.core.threat import Linf
from unfool.evaluation.adaptive.settings import LadderSettings
from unfool.evaluation.results.rows import Row
from unfool.studies.framework import Published
from unfool.training import StageConfig, TaskConfig
from unfool.training.recipes import FAST, ROBUST, short_stage

REVERSE = "reverse:contrast"
LOSSES = ("nt-xent", "first-positive", "multi-positive", "margin", "cosine")
"""The variants of the contrastive loss that are compared."""
STEPS = 5
"""The source's default: steps of the stored sets in three norms, and of the reversal in its table."""
SOURCE_STEPS = (5, 10, 15, 50)
"""Attack steps in Linf under which the source reports its reversal of five steps."""
_OTHER_ROWS = {"corruptions", "ladder", "negatives"}
"""Settings of rows that the source has not."""


def _of_the_source(row: Row) -> bool:
    """Its one eps, 8/255, is next to nothing in L1 and L2: its figures say nothing of larger sets there."""
    norm, _, eps = (row.threat or "").partition(":")
    comparable = norm == "linf" or eps == "8/255"
    return row.model == ROBUST and comparable and not _OTHER_ROWS & set(row.settings)


PUBLISHED = Published.beside(__file__, _of_the_source)


@configured
class Scale:
    """One scale: a ``trunk``, a stage for each base classifier (``normal`` None: the robust one alone) and one for the
    contrastive head. The file ``base`` takes the robust classifier's place.

    ``threats`` are the budget of each norm, and ``steps`` those of the stored sets; a reversal has twice that budget,
    as in the source, and ``reversal`` holds its other settings. Audits, charts, corruptions and ladders take the
    reversal with the settings ``fixed``, a fixed function of each image. ``attacked`` test images are attacked,
    ``reversed`` clean ones reversed (0: all), ``corrupted`` seen under the common corruptions at ``severity``;
    ``yardstick`` is the attack of rung (a) of the ``ladder``, in whose precision all attacks search, and ``gated``
    gates are climbed as well. ``negatives`` are how many rows of the bank an image draws in the chart of negatives.
    """

    data: str = "cifar10"
    trunk: dict[str, Any]
    robust: StageConfig
    normal: StageConfig | None
    contrast: StageConfig
    base: str = ""
    threats: dict[str, str] = Field(default_factory=lambda: {"linf": "linf:8/255", "l2": "l2:0.5", "l1": "l1:12"})
    steps: int = Field(default=STEPS, ge=1)
    reversal: dict[str, Any]
    fixed: dict[str, Any] = Field(default_factory=dict)
    attacked: int = Field(ge=1)
    reversed: int = Field(default=0, ge=0)
    corrupted: int = Field(ge=1)
    severity: int = Field(default=3, ge=1, le=5)
    yardstick: str = "autoattack"
    ladder: LadderSettings
    gated: bool = True
    negatives: tuple[int, ...] = (16, 64, 256, 512)

    @property
    def ladders(self) -> dict[str, str]:
        """What claims call the defenses on the ladder, and rows."""
        return {"reversal": "reversal alone", **({"gated reversal": "gated"} if self.gated else {})}


def head_stage(head: dict[str, Any], **settings: Any) -> StageConfig:
    """The stage of a contrastive head on a frozen trunk, on the views that the reversal takes."""
    own = {"temperature": 0.2, "size": 16, "augmentation": "mao2021"}
    tasks = {"contrast": TaskConfig(task="contrast", settings={**own, **head})}
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
    reversed=100,
    corrupted=40,
    yardstick="apgd-t:steps=20",
    ladder=LadderSettings(
        threat=Linf(0.15), images=40, precision="bf16", steps=6, draws=2, queries=40, lambdas=(1.0, 10.0)
    ),
    negatives=(4, 16, 64),
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

REFERENCE = {"preset": "mao2021", "steps": 40, "views": 4, "negatives": "batch", "batch_size": 512}
"""The reference's reversal."""
_EQUAL_BUDGETS = {"linf": "linf:8/255", "l2": "l2:8/255", "l1": "l1:8/255"}
"""The reference's one eps, in whichever norm."""
_FAST_AT = short_stage(perturb=FAST, learning_rate=0.2, nesterov=False)
"""FGSM-RS as Wong et al. (ICLR 2020) train it: plain momentum, on a triangle up to 0.2; 15 epochs."""
_REFERENCE_HEAD = {"batch_size": 1024, "learning_rate": 1e-4, "weight_decay": 0.0}
SOURCE = Scale(
    trunk={"name": "preact-resnet18"},
    robust=replace(_FAST_AT, epochs=6),
    normal=None,
    contrast=head_stage({"hidden": 205, "head_norm": "batch"}, epochs=5, **_REFERENCE_HEAD),
    threats=_EQUAL_BUDGETS,
    steps=10,
    reversal=REFERENCE,
    fixed={"steps": STEPS, "negatives": "bank", "bank": 2048, "drawn": 2044},
    attacked=512,
    reversed=512,
    corrupted=64,
    yardstick="autoattack:queries=1000",
    ladder=LadderSettings(
        threat=Linf(8 / 255), images=100, precision="bf16", steps=10, draws=2, targets=3, queries=50, lambdas=(10.0,)
    ),
    gated=False,
    negatives=(64, 256, 2044),
)
_CARMON = short_stage(schedule="cosine", epochs=200, batch_size=256)
"""The optimizer and the epochs of Carmon et al. (NeurIPS 2019)."""
FULL = replace(
    SOURCE,
    trunk={"name": "wide-resnet", "depth": 28, "width": 10},
    robust=replace(_CARMON, perturb="pgd-10", adversarial="trades", held_out=1500),
    normal=_CARMON,
    contrast=head_stage({"hidden": 256, "head_norm": "batch"}, epochs=201, **_REFERENCE_HEAD),
    fixed={"negatives": "bank", "bank": 2048, "drawn": 2044},
    attacked=10_000,
    reversed=0,
    corrupted=1_000,
    yardstick="autoattack",
    ladder=LadderSettings(threat=Linf(8 / 255), images=1_000, steps=50, draws=8),
    gated=True,
    negatives=(16, 64, 256, 512, 2044),
)
SCALES = {"demo": DEMO, "small": SMALL, "source": SOURCE, "full": FULL}
