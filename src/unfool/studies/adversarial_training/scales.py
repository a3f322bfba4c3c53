"""The methods that train a robust classifier, and the scales at which they are compared."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from unfool.core.config import configured
from unfool.models.trunks import TrunkSpec
from unfool.training import StageConfig
from unfool.training.config import TrunkField
from unfool.training.recipes import FAST as FGSM_RS
from unfool.training.recipes import short_stage

FAST, NOISY, PGD = "FGSM-RS", "N-FGSM", "PGD-10"
METHODS: dict[str, dict[str, Any]] = {
    FAST: {"perturb": FGSM_RS},
    NOISY: {"perturb": "n-fgsm"},
    PGD: {"perturb": "pgd-10"},
    "TRADES-1": {"perturb": "pgd-10", "adversarial": "trades", "beta": 1.0},
    "TRADES-3": {"perturb": "pgd-10", "adversarial": "trades", "beta": 3.0},
    "TRADES-6": {"perturb": "pgd-10", "adversarial": "trades", "beta": 6.0},
    "MART": {"perturb": "pgd-10", "adversarial": "mart", "beta": 5.0},
}
"""Stage settings by name; the number after TRADES is beta."""
AWP, EMA = "AWP", "EMA"
"""Weight perturbation, weight averaging: what a method is trained with too, written after its name and a plus."""
ALL = (*METHODS, *(f"{method} + {AWP}" for method in METHODS), *(f"{method} + {EMA}" for method in (NOISY, PGD)))


@configured
class Scale:
    """``images`` of the training set, the stage that all ``methods`` share and their training ``seeds``, the ``attack``
    of the table inside ``threat`` on ``attacked`` images of the test set and as many of the training set; ``awp`` and
    ``ema`` where switched on."""

    data: str
    words: str
    trunk: TrunkField
    stage: StageConfig
    images: int = Field(ge=1)
    attacked: int = Field(ge=1)
    methods: tuple[str, ...] = ALL
    seeds: tuple[int, ...] = (0, 1, 2)
    attack: str = "pgd-50"
    threat: str = "linf:8/255"
    awp: float = 0.005
    ema: float = 0.995
    precision: str = "bf16"


SCALES = {
    "demo": Scale(
        data="digits",
        words="convnet 8-16-32",
        trunk=TrunkSpec(name="convnet", stem="strided", widths=(8, 16, 32)),
        stage=short_stage(epochs=6, nesterov=False, threat="linf:0.1"),
        images=1000,
        attacked=100,
        seeds=(0,),
        attack="pgd-20",
        threat="linf:0.1",
    ),
    "small": Scale(
        data="cifar10",
        words="convnet 16-32-64, strided stem",
        trunk=TrunkSpec(name="convnet", stem="strided", widths=(16, 32, 64)),
        stage=short_stage(epochs=4, nesterov=False),
        images=50_000,
        attacked=4000,
        methods=(FAST, NOISY, f"{NOISY} + {EMA}", PGD, "TRADES-6"),
    ),
    "full": Scale(
        data="cifar10",
        words="PreAct ResNet-18",
        trunk=TrunkSpec(name="preact-resnet18"),
        stage=short_stage(epochs=100, nesterov=False, schedule="cosine"),
        images=50_000,
        attacked=10_000,
        precision="fp32",
    ),
}
