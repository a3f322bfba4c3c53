"""Attacks as text, such as ``pgd-20:restarts=5``: the one place where it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unfool.attacks.base import ATTACKS, Attack, Settings
from unfool.core.config import build, parse_settings
from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.core.threat import ThreatModel

_STEPS = re.compile(r"(.*?[^\d-])-?(\d{1,18})")


def make_attack(text: str, threat: ThreatModel | str, settings: Mapping[str, Any] | None = None) -> Attack:
    """Read an attack from text: a name, the number of steps, and other settings.

    Args:
        text: ``fgsm``, ``pgd-20`` (or ``pgd20``), ``pgd-20:restarts=5,step_size=2/255``, ``aa:version=plus``. The
            names are those of `ATTACKS`.
        threat: The allowed perturbations, as an object or as text such as ``linf:8/255``.
        settings: Settings that the text does not give.

    Returns:
        The same object as the class makes: ``make_attack("pgd-20", threat)`` is ``attacks.PGD(threat, steps=20)``.

    Raises:
        SpecError: A name, setting or value is unknown or not allowed; the message offers the nearest known name.

    Example:
        >>> from unfool import make_attack
        >>> make_attack("pgd-20:restarts=5", "linf:8/255")
        PGD(linf:8/255, steps=20, restarts=5)
    """
    threat = ThreatModel.parse(threat) if isinstance(threat, str) else threat
    spelled, written = parse_settings(text)
    if "," in spelled or " " in spelled:
        raise SpecError(f"attack {text!r} is several names; give a list of them, or --attack several times")
    values: Settings = {**(settings or {}), **written}
    name = family = _registered(spelled)
    counted = _STEPS.fullmatch(name)
    if counted is not None and name not in ATTACKS:
        family = _registered(counted[1])
        name = f"{family}-{counted[2]}"
        if "steps" in values:
            raise SpecError(f"attack {text!r} sets its steps twice; write {name} or {family}:steps={values['steps']}")
        values["steps"] = int(counted[2])
    cls = ATTACKS[family]
    preset = cls.preset(family, threat)
    known = [key for key in cls.setting_names() if key not in preset or key in cls.preset_defaults]
    for key in values:
        if key not in known:
            raise unknown(f"key of attack {name!r}", str(key), known)
    attack = build(cls, {"threat": threat, **preset, **values}, f"attack {name!r}")
    if attack.name == name:
        return attack
    return build(cls, {"threat": threat, "label": name, **preset, **values}, f"attack {name!r}")


def _registered(name: str) -> str:
    """The registered name that an alias stands for; any other name as it is."""
    return ATTACKS.canonical(name) if name in ATTACKS else name
