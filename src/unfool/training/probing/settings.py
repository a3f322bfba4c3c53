"""How probes are trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from unfool.core.config import configured


@configured
class ProbeSettings:
    """Settings of linear probes; the defaults are the noisy-rotation source's.

    The learning rate is divided by 10 every ``drop_every`` epochs. ``standardise`` brings each feature to mean 0 and
    deviation 1 over the training images before the head (and is then part of its weights). Each of ``seeds`` draws
    initial weights and order of its own. ``neighbours`` adds a nearest-neighbour probe of so many (0: none).
    ``precision`` is the trunk's, ``memory`` the most GiB that features may take.
    """

    epochs: int = Field(default=120, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    drop_every: int = Field(default=30, ge=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False)
    standardise: bool = False
    seeds: tuple[int, ...] = (0,)
    neighbours: int = Field(default=0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    memory: float = Field(default=4.0, gt=0, allow_inf_nan=False)

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError("give one or more different whole numbers of 0 or more")
        return seeds
