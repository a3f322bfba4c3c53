"""System A as data: the source's table, and at which scales its models and their controls are trained and attacked."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from unfool.core.config import configured
from unfool.evaluation.results.rows import Row
from unfool.models.trunks import TrunkSpec
from unfool.studies.framework import Published
from unfool.training import StageConfig
from unfool.training.config import TrunkField
from unfool.training.recipes import LABELS, short_stage

SINGLE, SIMCLR, SUPERVISED = "single-task", "simclr multitask", "supervised multitask"
"""The source's models 1, 2 and 3."""
VIEWS, ADVERSARIAL = "labels on SimCLR views", "PGD-10 training"
"""Model 2 without its contrast, and adversarial training that sends as many images through its network as model 2."""
ATTACKS = ("fgsm", "pgd-7", "pgd-20", "pgd-50")
THREAT, STEP_SIZE, TEMPERATURE = "linf:8/255", "2/255", 0.07
AS_WRITTEN, AS_MEANT = "as written: 0.5 labels + 1 contrast", "as meant: 0.5 labels + 0.5 contrast"
CIFAR = {"cifar10": ("label", None), "cifar100": ("fine_label", "coarse_label")}


@configured
class Variant:
    """One way of training all models: ``trunk`` and how it is written in the table, the stage, the seeds.

    ``main`` variants stand beside the source's figures. ``sets`` limits a variant to some data sets (empty: all),
    ``meant`` names those on which the loss that the source meant to write is trained too, with the first seed. PGD-10
    training takes ``adversarial_steps`` (0: there is none).
    """

    words: str
    trunk: TrunkField
    stage: StageConfig
    hidden: int = Field(default=0, ge=0)
    seeds: tuple[int, ...] = (0,)
    sets: tuple[str, ...] = ()
    main: bool = True
    meant: tuple[str, ...] = ()
    adversarial_steps: int = Field(default=0, ge=0)

    @property
    def single_seeds(self) -> tuple[int, ...]:
        """Seeds of the single-task network: two at least, for no network is shown examples of its own seed."""
        return self.seeds if len(self.seeds) > 1 else (*self.seeds, max(self.seeds) + 1)


@configured
class Scale:
    """Data sets (name: label column, auxiliary column or none), variants, and how many test images are attacked."""

    data: dict[str, tuple[str, str | None]]
    variants: tuple[Variant, ...]
    attacked: int
    precision: str = "bf16"


_SOURCE = StageConfig(
    tasks=LABELS,
    epochs=100,
    batch_size=256,
    optimizer="adam",
    learning_rate=3e-4,
    weight_decay=1e-4,
    schedule="cosine",
    constant_epochs=10,
    cosine_epochs=195,
)
_VANILLA = Variant(
    words="ResNet-18, ImageNet stem",
    trunk=TrunkSpec(name="resnet18", stem="imagenet"),
    stage=_SOURCE,
    hidden=512,
    seeds=(0, 1, 2),
    meant=("cifar10", "cifar100"),
    adversarial_steps=3545,
)


_ONE_SEED = {"seeds": (0,), "meant": ()}


def _short(data: str, epochs: int, adversarial_steps: int) -> Variant:
    """The source's networks on one data set, trained for fewer epochs, of one seed."""
    stage = replace(_SOURCE, epochs=epochs, constant_epochs=round(epochs / 10), cosine_epochs=0, precision="bf16")
    return replace(_VANILLA, stage=stage, sets=(data,), adversarial_steps=adversarial_steps, **_ONE_SEED)


DEMO = Scale(
    data={"digits": ("label", "parity")},
    variants=(
        Variant(
            words="convnet 16-32-64",
            trunk=TrunkSpec(name="convnet", widths=(16, 32, 64)),
            stage=short_stage(epochs=8),
            adversarial_steps=15,
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
            seeds=(0, 1, 2),
            meant=("cifar10",),
            adversarial_steps=106,
        ),
    ),
    attacked=1000,
)
SOURCE = Scale(
    data=CIFAR,
    variants=(_short("cifar10", 20, 709), _short("cifar100", 8, 0)),
    attacked=1000,
)
FULL = Scale(
    data=CIFAR,
    variants=(
        _VANILLA,
        replace(
            _VANILLA,
            words="ResNet-18, CIFAR stem",
            trunk=TrunkSpec(name="resnet18", stem="cifar"),
            main=False,
            adversarial_steps=0,
            **_ONE_SEED,
        ),
    ),
    attacked=10_000,
    precision="fp32",
)
SCALES = {"demo": DEMO, "small": SMALL, "source": SOURCE, "full": FULL}
_MAIN = {variant.words for scale in SCALES.values() for variant in scale.variants if variant.main}


def _of_the_source(row: Row) -> bool:
    """Its second and third model were judged by transfer, its first white-box; the loss as meant was never run."""
    protocol = "white-box" if row.model == SINGLE else "transfer"
    comparable = row.settings["trunk"] in _MAIN and row.settings.get("loss") != AS_MEANT
    return comparable and row.protocol in ("clean", protocol)


PUBLISHED = Published.beside(__file__, _of_the_source)
"""The source's table."""
