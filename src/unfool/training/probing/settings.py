"""How probes are trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from unfool.core.config import configured


@configured
class ProbeSettings:
    """How linear probes are trained; the defaults are those of the noisy-rotation source.

    Raises:
        SpecError: for an unknown key or a value that is not allowed.

    Example:
        >>> ProbeSettings(epochs=10, seeds=(0, 1)).learning_rate
        0.1
    """

    epochs: int = Field(default=120, ge=1, description="Passes over the training images.")
    batch_size: int = Field(default=64, ge=1, description="Images in a training step.")
    learning_rate: float = Field(
        default=0.1, gt=0, allow_inf_nan=False, description="Learning rate of the first epochs."
    )
    drop_every: int = Field(
        default=30, ge=1, description="Epochs after which the learning rate is divided by 10, again and again."
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(
        default=5e-4, ge=0, allow_inf_nan=False, description="L2 penalty added to the gradients."
    )
    standardise: bool = Field(
        default=False,
        description="Whether each feature is first brought to mean 0 and deviation 1 over the training images.",
    )
    seeds: tuple[int, ...] = Field(
        default=(0,), description="Seeds; each draws initial weights and an order of its own."
    )
    neighbours: int = Field(
        default=0, ge=0, description="Neighbours of a nearest-neighbour probe beside the linear ones; 0: none."
    )
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="Number format of the trunk's passes.")
    memory: float = Field(default=4.0, gt=0, allow_inf_nan=False, description="GiB that the features may take at most.")

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError("give one or more different whole numbers of 0 or more")
        return seeds
