"""System C as data: the source's figures, and at which scales its networks are pretrained, fine-tuned and attacked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from unfool.core.config import configured
from unfool.models.trunks import TrunkSpec
from unfool.studies.framework import Published
from unfool.training import ProbeSettings, StageConfig
from unfool.training.config import TrunkField
from unfool.training.recipes import LABELS, short_stage


class Model:
    """What rows call networks: the source's pretrainings and ours, and the controls."""

    SIMCLR, ROTATION, JIGSAW = "simclr", "rotation", "jigsaw"
    COMBINATION, ADVERSARIAL = "simclr + rotation + jigsaw", "adversarial contrast"
    CONTROL, RANDOM = "no pretraining", "random weights"
    QUARTER, PGD = "FGSM-RS training, a quarter of the cost", "PGD-10 training, the same cost"


TASKS_OF = {
    Model.SIMCLR: ("contrast",),
    Model.ROTATION: ("rotation",),
    Model.JIGSAW: ("jigsaw",),
    Model.COMBINATION: ("contrast", "rotation", "jigsaw"),
    Model.ADVERSARIAL: ("contrast",),
}
"""The tasks of every pretraining."""
PRETRAININGS = tuple(TASKS_OF)
LEARNS_FROM = CLEAN, PERTURBED = "clean images", "FGSM examples"
SHARES, COMPARED = (0.01, 0.1, 0.3, 1.0), 0.3
"""Shares of the labels, and that at which the source compares pretraining tasks."""


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
        kind, _, which = self.trainable.partition(":")
        moved = {"heads": "the added layer", "all": "all layers", "from": f"{which} and later"}
        words = {"labels": f"{100 * self.share:g} %", "fine_tuned_on": self.images}
        return {**words, "moved": moved.get(kind, f"all but the first {which} layers")}


def cell(plan: Plan, attack: str) -> tuple[str, ...]:
    """The words of a row of a plan, that the source's figures are found by."""
    return plan.model, *plan.settings.values(), attack


PUBLISHED = Published.beside(__file__, lambda row: "label_column" not in row.settings)
"""Both tables; nothing is of the second set."""


@configured
class Scale:
    """One scale: networks of ``trunk`` are pretrained on ``unlabelled``, fine-tuned on ``data`` and, some of them, on
    ``other`` (a second data set and its label column) at ``size`` pixels.

    ``pretrain`` is the stage of every pretraining, ``tasks`` the settings of its tasks. ``head`` trains the added layer
    alone, ``whole`` more, or starts from nothing; ``epochs``, if any, are theirs for each share of the labels, and last
    for the second data set. After SimCLR all layers move too, with each of ``whole_shares`` of the labels. ``policies``
    are what else may be trainable, ``baselines`` adversarial training: its attack and its share of what SimCLR and its
    fine-tuning cost. Training attacks within ``threat``.

    ``seeds`` are run where a claim compares, from pretraining on; one elsewhere. ``attacked`` test images are attacked
    by FGSM within each of ``budgets``, the first ``strongly`` of them by ``pgd`` and ``strong`` within ``threat``.
    """

    unlabelled: str
    data: str
    other: tuple[str, str]
    size: int = 0
    trunk: TrunkField
    pretrain: dict[str, StageConfig]
    tasks: dict[str, dict[str, Any]]
    head: StageConfig
    whole: StageConfig
    epochs: tuple[int, ...] = ()
    whole_shares: tuple[float, ...] = (COMPARED,)
    policies: tuple[str, ...]
    baselines: dict[str, tuple[str, float]]
    threat: str = "linf:8/255"
    budgets: tuple[str, ...] = ("linf:1/255", "linf:2/255", "linf:4/255", "linf:8/255")
    seeds: int = Field(default=3, ge=1)
    attacked: int = Field(ge=1)
    strongly: int = Field(ge=1)
    pgd: str = "pgd-20"
    strong: str = "autoattack"
    probe: ProbeSettings
    precision: str = "bf16"


_HEAD = StageConfig(
    tasks=LABELS, batch_size=128, optimizer="adam", learning_rate=0.05, schedule="cosine", precision="bf16"
)
_QUICK = replace(_HEAD, learning_rate=3e-3, schedule="triangle")


def _pretrain(stage: StageConfig, adversarial: str, *epochs: int) -> dict[str, StageConfig]:
    """One stage for each pretraining, of so many epochs; the last is dual-stream under its own attack, as in ACL. A
    rate that decays exponentially ends at a hundredth."""
    stages = {
        name: replace(stage, epochs=count, decay=round(0.01 ** (1 / count), 3))
        for name, count in zip(PRETRAININGS, epochs, strict=False)
    }
    if Model.ADVERSARIAL in stages:
        own = replace(stages[Model.ADVERSARIAL], perturb=adversarial, adversarial="dual-stream", statistics="separate")
        stages[Model.ADVERSARIAL] = own
    return stages


def _tasks(hidden: int) -> dict[str, dict[str, Any]]:
    contrast = {"temperature": 0.2, "hidden": hidden, "head_norm": "batch"}
    return {"contrast": contrast, "rotation": {"turns": "one"}, "jigsaw": {}}


SMALL = Scale(
    unlabelled="cifar100",
    data="cifar10",
    other=("tiny_imagenet_sub40", "label"),
    size=32,
    trunk=TrunkSpec(name="convnet", stem="strided", widths=[24, 48, 96]),
    pretrain=_pretrain(_QUICK, "pgd-2:step_size=6/255", 14, 4, 4, 4, 3),
    tasks=_tasks(256),
    head=replace(_HEAD, steps=300),
    whole=short_stage(steps=300),
    policies=("from:block3", "after:4", "all"),
    baselines={Model.QUARTER: ("fgsm-rs", 0.25), Model.PGD: ("pgd-10", 1.0)},
    attacked=500,
    strongly=200,
    probe=ProbeSettings(epochs=24, drop_every=6),
)
DEMO = replace(
    SMALL,
    unlabelled="digits",
    data="digits",
    other=("digits", "parity"),
    size=0,
    trunk=TrunkSpec(name="convnet", stem="strided", widths=[8, 16, 32]),
    pretrain=_pretrain(_QUICK, "pgd-2", 8, 5, 5, 3, 2),
    tasks=_tasks(64),
    head=replace(_HEAD, batch_size=64, steps=25),
    whole=short_stage(batch_size=64, steps=25),
    threat="linf:0.1",
    budgets=("linf:0.05", "linf:0.1"),
    seeds=1,
    attacked=100,
    strongly=40,
    strong="apgd-t:steps=20",
)
_SOURCE = replace(_QUICK, batch_size=256, learning_rate=2e-3, weight_decay=1e-6, schedule="exponential")
"""The source's batches and decay; it states neither the rate nor how fast it decays."""
FULL = Scale(
    unlabelled="cifar100",
    data="cifar10",
    other=("tiny-imagenet", "label"),
    size=32,
    trunk=TrunkSpec(name="resnet18", stem="imagenet"),
    pretrain=_pretrain(_SOURCE, "pgd-5:step_size=2/255", 100, 100, 100, 100, 100),
    tasks={**_tasks(0), "rotation": {"turns": "all"}, "jigsaw": {"grid": 3, "count": 30}},
    head=_HEAD,
    whole=short_stage(),
    epochs=(50, 50, 50, 50, 50),
    whole_shares=SHARES,
    policies=("from:layer4", "after:10", "all"),
    baselines=SMALL.baselines,
    attacked=10_000,
    strongly=1_000,
    probe=replace(SMALL.probe, epochs=100, drop_every=25),
    precision="fp32",
)
SOURCE = replace(
    FULL,
    other=("tiny_imagenet_sub40", "label"),
    pretrain=_pretrain(_SOURCE, "", 36, 10, 10, 4),
    tasks={**FULL.tasks, "rotation": {"turns": "one"}},
    epochs=(50, 20, 10, 5, 10),
    whole_shares=(COMPARED,),
    baselines={Model.PGD: ("pgd-10", 1.0)},
    seeds=1,
    attacked=1_000,
    strongly=500,
    strong="apgd-t",
    probe=replace(SMALL.probe, precision="bf16"),
    precision="bf16",
)
SCALES = {"demo": DEMO, "small": SMALL, "source": SOURCE, "full": FULL}
