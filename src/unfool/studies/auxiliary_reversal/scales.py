"""System D as data: the source's table, and what is trained, attacked and reversed at which scale."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import Field

from unfool.core.config import configured
from unfool.core.threat import Linf
from unfool.evaluation.adaptive.settings import LadderSettings
from unfool.studies.framework import Published
from unfool.training import StageConfig, TaskConfig
from unfool.training.recipes import FAST, LABELS, NORMAL, ROBUST, short_stage

STRONGER = f"{ROBUST} by PGD"
"""A second kind of adversarial training, that only classifiers have which learn first."""
IN_SHORT = {NORMAL: "normal", ROBUST: "adversarial", STRONGER: "adversarial, PGD"}
"""Kinds of training where few words fit."""
INPAINTING, JIGSAW = "inpainting", "jigsaw"

SOURCE_DATA = "cifar10"
REVERSED, BESIDE = f"reverse:{INPAINTING}", f"labels + {INPAINTING}"
PUBLISHED = Published.beside(
    __file__,
    lambda row: row.data == SOURCE_DATA and {**row.settings, "regime": ""} == {"training": "normal", "regime": ""},
)

L2_ALONE, ADVERSARIAL_ALONE, SEVERAL = "L2 alone", "adversarial loss alone", "several masks"
LOSSES = {
    L2_ALONE: {"lambda_rec": 1.0, "lambda_adv": 0.0, "discriminator": 0},
    ADVERSARIAL_ALONE: {"lambda_rec": 0.0, "lambda_adv": 1.0},
}
"""Variants of inpainting whose decoders are trained beside the canonical one, on the same frozen trunk."""
MASKS = 4
"""Masks of the reversal with several."""
OWN_CONVOLUTION, FAR_FROM_ORIGINAL = "last convolution of its own", "far from the original"
ARMS = {OWN_CONVOLUTION: {"own_convolution": True}, FAR_FROM_ORIGINAL: {"permutations": "original"}}
"""Variants of the jigsaw beside the labels: which layers are shared, and which permutations are told apart."""
ARM_WORDS = {
    OWN_CONVOLUTION: "that has a last convolution of its own",
    FAR_FROM_ORIGINAL: "its permutations are far from the original order and not from each other",
}


@configured
class Part:
    """One data set: its trunk, a stage for each kind of training, settings of the stage of heads on a frozen trunk, and
    its auxiliary tasks: with ``every`` all that need no labels, with defaults where ``tasks`` has no word on them.

    Kinds of training that are ``first_only`` are of a classifier that inpainting is learnt on afterwards. With ``arms``
    the jigsaw's variants are learnt beside the labels. ``alone`` is the stage of each task without a classifier, to see
    how well it can be done; a jigsaw runs once more without augmentation, to see what it makes of the grid that JPEG
    leaves in images.
    """

    data: str
    trunk: dict[str, Any]
    trainings: dict[str, StageConfig]
    heads: dict[str, Any]
    tasks: tuple[TaskConfig, ...] = ()
    every: bool = False
    first_only: dict[str, StageConfig] = Field(default_factory=dict)
    arms: bool = False
    alone: StageConfig | None = None
    size: int = 0
    normalisation: str = "cifar10"


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


def _jigsaw(weight: float, count: int, grid: int = 3, shift: int = 1, **settings: Any) -> TaskConfig:
    """The context-free form with the source's tiles, 64 of 75 pixels of a cell, in proportion."""
    tiles = {"form": "context-free", "grid": grid, "count": count, "gap": 0.0, "jitter": 0.147}
    return auxiliary(JIGSAW, weight, **tiles, shift=shift, grey=0.3, **settings)


_ADAM = {"batch_size": 256, "optimizer": "adam", "learning_rate": 2e-3, "weight_decay": 0.0}
_HEADS = {**_ADAM, "schedule": "triangle", "precision": "bf16"}
_GAN = {**_ADAM, "learning_rate": 2e-4, "precision": "bf16"}
"""The optimizer of PyTorch-GAN."""
_gan = partial(StageConfig, tasks=LABELS, **_GAN)
_against_pgd = partial(_gan, perturb="pgd-10", held_out=500)


def _generator(*others: TaskConfig, epochs: int, **part: Any) -> Part:
    """The source's network, PyTorch-GAN's, whose discriminator learns as fast as its generator; with its losses."""
    form = {"form": "region", "width": 4000, "discriminator": 64, "discriminator_rate": 1.0}
    tasks, network = (auxiliary(INPAINTING, **form), *others), {"trunk": {"name": "gan-encoder"}, **part}
    return Part(data=SOURCE_DATA, normalisation="symmetric", heads={**_GAN, "epochs": epochs}, tasks=tasks, **network)


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
            first_only={STRONGER: short_stage(perturb="pgd-7", epochs=5, held_out=500)},
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
            arms=True,
            alone=short_stage(**{**_ADAM, "batch_size": 128, "epochs": 12}),
        ),
    ),
    attacked=500,
    strongly=200,
    ladder=LadderSettings(threat=Linf(8 / 255), images=100, precision="bf16"),
    reversal={"steps": 10},
    reversals={"contrast": {"views": 2, "bank": 256, "drawn": 128}},
)
AT_SOURCE = Scale(
    parts=(_generator(trainings={NORMAL: _gan(epochs=12)}, first_only={STRONGER: _against_pgd(epochs=6)}, epochs=4),),
    attacked=1_000,
    strongly=200,
    ladder=LadderSettings(threat=Linf(8 / 255), images=100, steps=10, draws=2, lambdas=(1.0,), precision="bf16"),
    reversal={"steps": 10},
)
FULL = Scale(
    parts=(
        _generator(
            auxiliary("contrast", 0.5, temperature=0.2, size=128, hidden=512),
            auxiliary(JIGSAW, 0.5, form="whole", grid=3, count=100),
            auxiliary("rotation", 0.5),
            trainings={NORMAL: _gan(epochs=100), STRONGER: _against_pgd(epochs=100)},
            epochs=50,
            every=True,
        ),
        Part(
            data="tiny-imagenet",
            size=225,
            trunk={"name": "alexnet", "stem": "stride-2"},
            trainings={NORMAL: short_stage(learning_rate=0.02, schedule="cosine", epochs=70)},
            heads={**_HEADS, "learning_rate": 1e-3, "epochs": 30},
            tasks=(_jigsaw(0.5, count=1000, shift=2, hidden=4096, augmentation="resized-crop"),),
            arms=True,
            alone=short_stage(learning_rate=0.01, schedule="cosine", epochs=70),
        ),
    ),
    attacked=10_000,
    strongly=1_000,
    ladder=LadderSettings(threat=Linf(8 / 255), images=1_000, steps=50, draws=8),
    reversal={"steps": 10},
    reversals={"contrast": {"views": 4, "bank": 1024, "drawn": 512}},
)
SCALES = {"demo": DEMO, "small": SMALL, "source": AT_SOURCE, "full": FULL}
