"""Defenses: modules that take images and give logits, and do more on the way than their network. One file a defense."""

from unfool.defenses.base import Defense, Purified
from unfool.defenses.detector import Detector
from unfool.defenses.gate import Gate
from unfool.defenses.hedge import Hedge
from unfool.defenses.pretext import PretextLoss
from unfool.defenses.purifier_adapter import PurifierAdapter, WholeModel, as_defense
from unfool.defenses.registry import DEFENSES, DefenseRequest, make_defense
from unfool.defenses.reverse import Reverse

__all__ = [
    "DEFENSES",
    "Defense",
    "DefenseRequest",
    "Detector",
    "Gate",
    "Hedge",
    "PretextLoss",
    "Purified",
    "PurifierAdapter",
    "Reverse",
    "WholeModel",
    "as_defense",
    "make_defense",
]


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
