"""The attacks of an evaluation, which a caller gives by name or as objects, one or several."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from unfool.attacks import Attack, make_attack
from unfool.core.config import parse_settings
from unfool.core.errors import SpecError
from unfool.core.threat import ThreatModel

AttackLike: TypeAlias = Attack | str
"""An attack, or its name such as ``"pgd-20"`` or ``"pgd-20:restarts=5"``."""


DEFAULT_THREAT = ThreatModel.parse("linf:8/255")
"""Threat model of attacks given by name, unless another is stated."""


@dataclass(frozen=True, kw_only=True)
class ChosenAttack:
    """An attack with its ``title`` and the ``settings`` that its rows show: those that differ from the usual ones."""

    title: str
    attack: Attack
    settings: Mapping[str, Any]


def choose_attacks(
    attacks: AttackLike | Iterable[AttackLike], threat: ThreatModel | str | None = None
) -> list[ChosenAttack]:
    """The attacks of one evaluation in order, each once, all within one threat model.

    That is ``threat``, or else the first attack object's, or else ``linf:8/255``. Raises SpecError for an unknown name,
    for something that is no attack, for objects of different threat models, and for two attacks of one name.
    """
    listed: Sequence[object] = [attacks] if isinstance(attacks, (str, Attack)) else _listed(attacks)
    if threat is None:
        threat = next((attack.threat for attack in listed if isinstance(attack, Attack)), None)
    chosen: dict[str, ChosenAttack] = {}
    for item in listed:
        attack = choose_attack(item, threat)
        key = f"{attack.attack.name} {json.dumps(dict(attack.settings), sort_keys=True, default=str)}"
        if key in chosen and chosen[key].attack != attack.attack:
            raise SpecError(f"two different attacks are called {attack.title}; give each a name of its own")
        chosen.setdefault(key, attack)
    return list(chosen.values())


def choose_attack(attack: object, threat: ThreatModel | str | None = None) -> ChosenAttack:
    """One attack; raises SpecError as `choose_attacks` does."""
    if isinstance(threat, str):
        threat = ThreatModel.parse(threat)
    if isinstance(attack, str):
        threat = threat or DEFAULT_THREAT
        return ChosenAttack(title=attack, attack=make_attack(attack, threat), settings=parse_settings(attack)[1])
    if not isinstance(attack, Attack):
        raise SpecError(
            f"{_shown(attack)} is not an attack; give an attack, or its name such as 'pgd-20' or 'autoattack'"
        )
    if threat is not None and attack.threat != threat:
        raise SpecError(
            f"attack {attack.name} stays within {attack.threat}, and the evaluation is of {threat}; "
            "give attacks of one threat model, and evaluate others by themselves"
        )
    settings = attack.unusual_settings
    words = ",".join(f"{name}={value}" for name, value in settings.items())
    return ChosenAttack(title=f"{attack.name}:{words}" if words else attack.name, attack=attack, settings=settings)


def within(attack: AttackLike, threat: ThreatModel) -> Attack:
    """An attack in another ball; its other settings stay. SpecError for one that is made for its ball alone."""
    if isinstance(attack, str):
        return make_attack(attack, threat)
    moved = dataclasses.replace(choose_attack(attack).attack, threat=threat)
    if any(part.engine.threat != threat for part in moved.parts):
        raise SpecError(f"attack {attack.name} is made for {attack.threat} alone; give one of `unfool.attacks`")
    return moved


def _listed(attacks: object) -> list[object]:
    if isinstance(attacks, type):
        return [attacks]
    if not isinstance(attacks, Iterable):
        raise SpecError(f"{_shown(attacks)} is not an attack; give an attack, its name, or a list of them")
    return list(attacks)


def _shown(value: object) -> str:
    """A value that is not what was asked for, in a few words."""
    if isinstance(value, type):
        return f"the class {value.__name__} without its settings, as in attacks.PGD(Linf(8/255)),"
    return f"{value!r}" if isinstance(value, (int, float)) else f"a value of type {type(value).__name__}"
