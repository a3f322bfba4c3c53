"""How hard a ladder tries, and how an audit looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from unfool.core.config import configured
from unfool.core.threat import ThreatModel


@configured
class LadderSettings:
    """How hard the rungs of a ladder try, and on how many images.

    Raises:
        SpecError: A setting that is not known or not allowed.

    Example:
        >>> from unfool import L2, LadderSettings
        >>> settings = LadderSettings(threat=L2(0.5), steps=50, lambdas=(1.0, 10.0))
        >>> str(settings.threat), settings.draws
        ('l2:0.5', 4)
    """

    threat: ThreatModel | None = Field(
        default=None,
        description='Threat model of every rung; also as text, such as ``"linf:8/255"``. Default: that of the static '
        "attack, or ``linf:8/255`` if it is given by name.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of every random draw of the attacks.")
    steps: int = Field(
        default=20,
        ge=2,
        description="Gradient steps through the defense. The unrolled attack takes half as many, and so does the "
        "targeted one for each class, after twice as many on the network alone; the defense-aware ones, which do not "
        "pass through the defense, take four times as many.",
    )
    draws: int = Field(
        default=4, ge=2, description="Draws of the defense's randomness that the EOT attack averages at each step."
    )
    targets: int = Field(
        default=3,
        ge=1,
        description="Classes that the targeted attack aims at through the defense. On the network alone it aims at the "
        "nine likeliest, and goes on with those that come closest on the defense.",
    )
    queries: int = Field(
        default=100,
        ge=1,
        description="Queries of the deployed defense, for each image, by the attack without gradients.",
    )
    lambdas: tuple[float, ...] = Field(
        default=(0.1, 1.0, 10.0),
        min_length=1,
        description="Weights of what the defense would notice in the defense-aware attacks; each is tried.",
    )
    restarts: int = Field(
        default=1,
        ge=1,
        description="Random starts of each attack. Beside them most attacks start from the static examples, the "
        "targeted one from examples of its own.",
    )
    images: int | Mapping[str, int] | None = Field(
        default=None,
        description="Images that are attacked: one number, or one for each rung by its key or its name, where a rung "
        "that is not named has as many as the static attack. Smaller draws lie inside larger ones. Default: all.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="Precision in which the static attack searches; the network itself confirms each example.",
    )
    batch_size: int | None = Field(default=None, ge=1, description="Images at a time; default: what memory allows.")


@configured
class AuditSettings:
    """How a defense is audited.

    Raises:
        SpecError: A setting that is not known or not allowed.

    Example:
        >>> from unfool import AuditSettings
        >>> AuditSettings(seed=1).draws
        4
    """

    threat: ThreatModel | None = Field(
        default=None,
        description='Threat model of an attack that is given by its name; also as text, such as ``"linf:8/255"``. '
        "Default: ``linf:8/255``.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of every random draw.")
    draws: int = Field(
        default=4, ge=1, description="Draws of views that each pretext loss, and its gradient, is averaged over."
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="Precision in which the attack searches; the network itself confirms each example.",
    )
    batch_size: int | None = Field(default=None, ge=1, description="Images at a time; default: what memory allows.")
