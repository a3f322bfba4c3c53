"""What an evaluation does and how: its settings, checked before a model or an image is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from unfool.attacks import Attack
from unfool.attacks.base import NoFormError
from unfool.core.config import configured
from unfool.core.errors import SpecError
from unfool.core.threat import ThreatModel
from unfool.data.corruptions import SEVERITIES
from unfool.evaluation.crafting.chosen_attacks import (
    DEFAULT_THREAT,
    AttackLike,
    ChosenAttack,
    choose_attack,
    choose_attacks,
    within,
)
from unfool.evaluation.curves import CurvePoints
from unfool.evaluation.statistics.sequential import AccuracyClaim
from unfool.evaluation.statistics.settling import check_claimed
from unfool.evaluation.statistics.union import ThreatUnion


def _threat(value: object) -> object:
    return ThreatModel.parse(value) if isinstance(value, str) else value


READ_THREAT = BeforeValidator(_threat)
"""Lets a field that holds a threat model be given as text too."""


def _claim(value: object) -> object:
    return AccuracyClaim.parse(value) if isinstance(value, str) else value


def _union(value: object) -> object:
    return ThreatUnion.parse(value) if isinstance(value, str) else value


@configured
class EvaluationSettings:
    """How a classifier is evaluated.

    Raises:
        SpecError: A setting that is not known or not allowed.

    Example:
        >>> from unfool import EvaluationSettings
        >>> settings = EvaluationSettings(threat="l2:0.5", seed=3, reliability=False)
        >>> str(settings.threat), settings.precision
        ('l2:0.5', 'fp32')
    """

    threat: Annotated[ThreatModel | None, READ_THREAT] = Field(
        default=None,
        description="Threat model of attacks that are given by name, which clean rows name too; also as text, such as "
        '``"linf:8/255"``. Default: that of the attack objects, or ``linf:8/255``.',
    )
    seed: int = Field(default=0, ge=0, description="Seed of every random draw.")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="Precision in which attacks search; bf16 is faster, and the model itself confirms each example.",
    )
    batch_size: int | None = Field(default=None, ge=1, description="Images at a time; default: what memory allows.")
    claim: Annotated[AccuracyClaim | None, BeforeValidator(_claim)] = Field(
        default=None,
        description="Claim about the robust accuracy, such as ``>=0.45``: the one attack stops when it is settled.",
    )
    alpha: float = Field(default=0.05, gt=0, lt=1, description="Error rate at which the claim is settled.")
    curve: CurvePoints | None = Field(
        default=None, description="Sizes of the ball, or numbers of steps, at which the one attack is evaluated too."
    )
    union: Annotated[ThreatUnion | None, BeforeValidator(_union)] = Field(
        default=None,
        description="Threat models of different norms, such as linf:8/255,l2:0.5,l1:12: every attack runs in each that "
        "it has a form in, and the last row is the accuracy of the images that stand under all.",
    )
    corruptions: bool = Field(default=False, description="Evaluate under the fifteen common corruptions too.")
    severities: tuple[Annotated[int, Field(ge=1, le=len(SEVERITIES))], ...] = Field(
        default=SEVERITIES, description="Severities of the corruptions, from 1 to 5."
    )
    binarization_test: bool = Field(
        default=False, description="Test whether each attack finds adversarial examples that are known to be there."
    )
    reliability: bool = Field(default=True, description="Check whether the accuracies can be believed.")


def check_evaluation(
    attacks: AttackLike | Sequence[AttackLike], settings: EvaluationSettings
) -> tuple[ThreatModel, list[ChosenAttack]]:
    """The threat model and the attacks of an evaluation; SpecError for what does not go together."""
    if settings.union is not None:
        return _in_union(attacks, settings, settings.union)
    chosen = choose_attacks(attacks, settings.threat)
    for what, value in (("claim", settings.claim), ("curve", settings.curve)):
        if value is not None and len(chosen) != 1:
            raise SpecError(f"{what} {str(value)!r} is about one attack; give exactly one, such as autoattack")
    if settings.claim is not None:
        check_claimed(chosen[0].attack)
    threat = chosen[0].attack.threat if chosen else settings.threat or DEFAULT_THREAT
    return threat, chosen


def _in_union(
    attacks: AttackLike | Sequence[AttackLike], settings: EvaluationSettings, union: ThreatUnion
) -> tuple[ThreatModel, list[ChosenAttack]]:
    """The first threat model of a union, and the attacks in each of its threat models that they have a form in."""
    for what, value in (("claim", settings.claim), ("curve", settings.curve)):
        if value is not None:
            raise SpecError(f"{what} {str(value)!r} is about one threat model, not the union {union}; give one of both")
    if settings.threat not in (None, union.threats[0]):
        raise SpecError(f"threat {settings.threat} and union {union} were given; give the union alone")
    listed = [attacks] if isinstance(attacks, (str, Attack)) else list(attacks)
    if not listed:
        raise SpecError(f"the union {union} is of attacks; give at least one, such as autoattack")
    chosen: list[ChosenAttack] = []
    used: set[int] = set()
    for threat in union.threats:
        lacking: list[SpecError] = []
        before = len(chosen)
        for number, attack in enumerate(listed):
            try:
                moved = within(attack, threat)
            except NoFormError as error:
                lacking.append(error)
                continue
            usual = choose_attack(attack, threat if isinstance(attack, str) else None)
            used.add(number)
            chosen.append(replace(usual, title=f"{usual.title} at {threat}", attack=moved))
        if len(chosen) == before:
            raise lacking[0]
    unused = [str(attack) for number, attack in enumerate(listed) if number not in used]
    if unused:
        raise SpecError(f"attack {unused[0]} has no form in any threat model of the union {union}; leave it out")
    titles = [item.title for item in chosen]
    if len(set(titles)) < len(titles):
        twice = next(title for title in titles if titles.count(title) > 1)
        raise SpecError(f"two attacks are called {twice}; give each a name of its own")
    return union.threats[0], chosen
