"""The short recipe that the studies' small networks are trained with, and what they call their base classifiers.

Nothing that plugins import brings this module with it: making a task's configuration loads all plugins.
"""

from __future__ import annotations

from typing import Any

from unfool.training.stage_config import StageConfig, TaskConfig

NORMAL, ROBUST = "normally trained", "adversarially trained"
"""What studies call their base classifiers."""

LABELS = {"labels": TaskConfig(task="labels")}
"""The task of a classifier."""

FAST = "fgsm:random_start=true,step_size=10/255"
"""FGSM with a random start, in steps of 1.25 eps of 8/255 (Wong et al., ICLR 2020)."""


def short_stage(**settings: Any) -> StageConfig:
    """A short run of SGD on one triangle (Wong et al., ICLR 2020) with other ``settings`` of `StageConfig`."""
    recipe: dict[str, Any] = {
        "tasks": LABELS,
        "batch_size": 128,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 5e-4,
        "schedule": "triangle",
        "precision": "bf16",
    }
    return StageConfig(**{**recipe, **settings})
