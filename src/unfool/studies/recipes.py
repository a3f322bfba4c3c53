"""What studies share: names of base classifiers, and short runs of SGD on one triangle (Wong et al., ICLR 2020)."""

from __future__ import annotations

from typing import Any

NORMAL, ROBUST = "normally trained", "adversarially trained"
"""What studies call their base classifiers."""

SHORT: dict[str, Any] = {
    "batch_size": 128,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "weight_decay": 5e-4,
    "schedule": "triangle",
    "precision": "bf16",
}

SHORT_ADVERSARIAL: dict[str, Any] = {**SHORT, "perturb": "fgsm:random_start=true,step_size=10/255"}
"""FGSM with a random start, in their steps of 1.25 eps of 8/255."""
