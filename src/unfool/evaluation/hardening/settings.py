"""How a classifier is hardened: threat model, time, recipe, and how it is evaluated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unfool.core.config import configured
from unfool.core.threat import ThreatModel
from unfool.evaluation.settings import READ_THREAT


@configured
class HardenSettings:
    """How a classifier is hardened.

    Raises:
        SpecError: A setting that is not known or not allowed.

    Example:
        >>> from unfool import HardenSettings
        >>> settings = HardenSettings(threat="linf:2/255", minutes=15)
        >>> settings.perturb, settings.batch_size
        ('pgd-2', 128)
    """

    threat: Annotated[ThreatModel, READ_THREAT] = Field(
        default=ThreatModel.parse("linf:8/255"),
        description='Threat model that the classifier learns to withstand; also as text, such as ``"linf:2/255"``.',
    )
    minutes: float = Field(
        default=15.0,
        gt=0,
        allow_inf_nan=False,
        description="Minutes that timing, training and both evaluations take together, at most.",
    )
    steps: int = Field(default=0, ge=0, description="Training steps, in place of those that fit into minutes.")
    perturb: str = Field(default="pgd-2", description="Attack that perturbs the training images.")
    adversarial: str = Field(
        default="plain", description="What is learnt from them: plain, dual-stream, trades, mart or another method."
    )
    awp: float = Field(default=0.0, ge=0, lt=1, description="Size of the adversarial weight perturbation; 0: none.")
    learning_rate: float = Field(
        default=0.02, gt=0, allow_inf_nan=False, description="Highest learning rate of SGD, on one triangle."
    )
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False, description="L2 penalty.")
    batch_size: int = Field(default=128, ge=2, description="Images in a training step.")
    ema: float = Field(default=0.995, ge=0, lt=1, description="Decay a step of the weights' running average; 0: none.")
    augmentation: str = Field(default="crop-flip", description="Augmentation of the training images, or none.")
    held_out: int = Field(
        default=0, ge=0, description="Training images set aside, on which the best weights are chosen; 0: none."
    )
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="Number format of the network's passes.")
    attack: str = Field(default="pgd-50", description="Attack of the evaluations before and after.")
    at: Annotated[ThreatModel | None, READ_THREAT] = Field(
        default=None, description="Threat model of the evaluations; default: threat."
    )
    images: int | None = Field(
        default=None, ge=1, description="Test images of the evaluations; default: up to 500, as many as minutes allow."
    )
    seed: int = Field(default=0, ge=0, description="Seed of all random draws.")
