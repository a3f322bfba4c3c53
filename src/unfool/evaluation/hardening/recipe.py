"""The recipe: what training a classifier is given to harden it."""

from __future__ import annotations

from unfool.data.table import Table
from unfool.evaluation.hardening.settings import HardenSettings
from unfool.training import StageConfig, TaskConfig


def hardening_stage(settings: HardenSettings, table: Table, column: str) -> StageConfig:
    """The one stage of a hardening run, on the labels of a column; its steps are those of the settings, or 1."""
    task = TaskConfig(task="labels", settings={"column": column, "augmentation": settings.augmentation})
    return StageConfig(
        tasks={"labels": task},
        steps=settings.steps or 1,
        batch_size=min(settings.batch_size, len(table)),
        optimizer="sgd",
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        schedule="triangle",
        precision=settings.precision,
        perturb=settings.perturb,
        threat=settings.threat,
        adversarial=settings.adversarial,
        awp=settings.awp,
        ema=settings.ema,
        held_out=settings.held_out,
        stop_attack="pgd-10",
    )
