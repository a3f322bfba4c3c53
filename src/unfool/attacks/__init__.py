"""Attacks: perturbations of images, inside a threat model, that a model misclassifies.

An attack is a configured object, called on a model, images and labels:

>>> import torch
>>> from unfool import Linf, attacks
>>> attack = attacks.PGD(Linf(8/255), steps=20, restarts=5)
>>> model = torch.nn.Flatten()  # four pixels are four logits
>>> attack(model, torch.tensor([[[[0.52, 0.5], [0.4, 0.3]]]]), torch.tensor([0])).fooled
tensor([True])

`FGSM`, `NFGSM`, `PGD`, `CWPGD`, `APGD` and `FAB` follow gradients, `Square` queries outputs alone, `AutoAttack` is
the ensemble that robust accuracies are compared by, and `Lean` finds the same in a fraction of its passes.
`TargetedFMN`, `FMN`, `DDN` and `SigmaZero` look for the nearest example, `HopSkipJump` does so by the classes alone.
"""

from unfool.attacks.apgd import APGD
from unfool.attacks.attacked import Attacked
from unfool.attacks.autoattack import AutoAttack
from unfool.attacks.base import ATTACKS, Attack
from unfool.attacks.custom import CustomAttack
from unfool.attacks.ensemble import Part
from unfool.attacks.fab import FAB
from unfool.attacks.lean.attack import Lean
from unfool.attacks.minimum_norm.attacks import (
    DDN,
    FMN,
    HopSkipJump,
    MinimumNormAttack,
    SigmaZero,
    TargetedFMN,
)
from unfool.attacks.noisy_fgsm import NFGSM
from unfool.attacks.parse import make_attack
from unfool.attacks.pgd import CWPGD, FGSM, PGD
from unfool.attacks.problem import Engine, Perturbed, Problem
from unfool.attacks.proxy import ProxySettings
from unfool.attacks.square import Square

__all__ = [
    "APGD",
    "ATTACKS",
    "CWPGD",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "NFGSM",
    "PGD",
    "Attack",
    "Attacked",
    "AutoAttack",
    "CustomAttack",
    "Engine",
    "HopSkipJump",
    "Lean",
    "MinimumNormAttack",
    "Part",
    "Perturbed",
    "Problem",
    "ProxySettings",
    "SigmaZero",
    "Square",
    "TargetedFMN",
    "make_attack",
]


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
