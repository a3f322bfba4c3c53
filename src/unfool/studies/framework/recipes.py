"""Stages that several studies train with, and what they call their base classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unfool.training import StageConfig, TaskConfig

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


def trunk_words(trunk: Mapping[str, Any]) -> str:
    """A trunk's name and settings in words."""
    return ", ".join([str(trunk["name"]), *(f"{key} {value}" for key, value in trunk.items() if key != "name")])
