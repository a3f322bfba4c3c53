"""System A as data: the source's table, and at which scales its three models are trained and attacked."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from unfool.core.config import configured
from unfool.evaluation.results.rows import Row
from unfool.models.trunks import TrunkSpec
from unfool.studies.framework import Published, table
from unfool.studies.framework.recipes import LABELS, short_stage
from unfool.training import StageConfig
from unfool.training.config import TrunkField

SINGLE, SIMCLR, SUPERVISED = "single-task", "simclr multitask", "supervised multitask"
ATTACKS = ("fgsm", "pgd-7", "pgd-20", "pgd-50")
THREAT, STEP_SIZE = "linf:8/255", "2/255"
AS_WRITTEN, AS_MEANT = "as written: 0.5 labels + 1 contrast", "as meant: 0.5 labels + 0.5 contrast"
CIFAR = {"cifar10": ("label", None), "cifar100": ("fine_label", "coarse_label")}


@configured
class Variant:
    """One way of training all models: ``trunk`` and how it is written in the table, the stage, the seeds.

    ``main`` variants stand beside the source's figures. ``sets`` limits a variant to some data sets (empty: all),
    ``meant`` names those on which the loss that the source meant to write is trained too, with ``meant_seeds``.
    """

    words: str
    trunk: TrunkField
    stage: StageConfig
    hidden: int = Field(default=0, ge=0)
    temperature: float = 0.07
    seeds: tuple[int, ...] = (0,)
    sets: tuple[str, ...] = ()
    main: bool = True
    meant: tuple[str, ...] = ()
    meant_seeds: tuple[int, ...] = (0,)


@configured
class Scale:
    """Data sets (name: label column, auxiliary column or none), variants, and how many test images are attacked."""

    data: dict[str, tuple[str, str | None]]
    variants: tuple[Variant, ...]
    attacked: int
    precision: str = "bf16"


_SOURCE = StageConfig(tasks=LABELS, epochs=100, batch_size=256, optimizer="adam", learning_rate=3e-4, weight_decay=1e-4)
DEMO = Scale(
    data={"digits": ("label", "parity")},
    variants=(
        Variant(
            words="convnet 16-32-64", trunk=TrunkSpec(name="convnet", widths=(16, 32, 64)), stage=short_stage(epochs=8)
        ),
    ),
    attacked=200,
)
SMALL = Scale(
    data=CIFAR,
    variants=(
        Variant(
            words="convnet 16-48-96",
            trunk=TrunkSpec(name="convnet", widths=(16, 48, 96)),
            stage=short_stage(batch_size=256, learning_rate=0.25, epochs=3),
            seeds=(0, 1),
            meant=("cifar10",),
        ),
    ),
    attacked=1000,
)
FULL = Scale(
    data=CIFAR,
    variants=(
        Variant(
            words="ResNet-18, ImageNet stem",
            trunk=TrunkSpec(name="resnet18", stem="imagenet"),
            stage=_SOURCE,
            hidden=512,
            seeds=(0, 1, 2),
            meant=("cifar10", "cifar100"),
            meant_seeds=(0, 1, 2),
        ),
        Variant(
            words="ResNet-18, CIFAR stem",
            trunk=TrunkSpec(name="resnet18", stem="cifar"),
            stage=replace(_SOURCE, precision="bf16"),
            hidden=512,
            main=False,
        ),
    ),
    attacked=10_000,
    precision="fp32",
)
SCALES = {"demo": DEMO, "small": SMALL, "full": FULL}
_MAIN = {variant.words for scale in SCALES.values() for variant in scale.variants if variant.main}


def _of_the_source(row: Row) -> bool:
    """Its second and third model were judged by transfer, its first white-box; the loss as meant was never run."""
    protocol = "white-box" if row.model == SINGLE else "transfer"
    comparable = row.settings["trunk"] in _MAIN and row.settings.get("loss") != AS_MEANT
    return comparable and row.protocol in ("clean", protocol)


PUBLISHED = Published(
    names=("data", "model", "attack"),
    figures=table(
        ("none", *ATTACKS),
        {
            ("cifar10", SINGLE): (82.46, 2.89, 0.04, 0.00, 0.00),
            ("cifar10", SIMCLR): (73.16, 58.61, 60.62, 59.95, 59.89),
            ("cifar100", SINGLE): (48.99, 2.77, 0.37, 0.18, 0.13),
            ("cifar100", SUPERVISED): (50.47, 23.20, 25.64, 23.59, 23.49),
            ("cifar100", SIMCLR): (44.37, 32.49, 42.62, 33.92, 33.53),
        },
    ),
    applies=_of_the_source,
)
"""The source's table."""
