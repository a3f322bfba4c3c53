"""The networks that system A trains, and the adversarial examples crafted on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from unfool.attacks import ProxySettings, make_attack
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.evaluation import AdversarialSet
from unfool.studies.contrastive_scales import (
    AS_MEANT,
    AS_WRITTEN,
    CIFAR,
    SIMCLR,
    SINGLE,
    STEP_SIZE,
    SUPERVISED,
    THREAT,
    Scale,
    Variant,
)
from unfool.studies.workspace import Workspace
from unfool.training import RunConfig, StageConfig, TaskConfig, TrainedRun


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """One trained network of the study, and what it is called in the table."""

    data: str
    model: str
    seed: int
    variant: Variant
    loss: str | None
    path: str
    run: TrainedRun

    @property
    def settings(self) -> dict[str, Any]:
        """What tells its rows apart from those of the same model."""
        return {"trunk": self.variant.words} | ({"loss": self.loss} if self.loss else {})

    @property
    def comparable(self) -> bool:
        """Whether the source's figures are of the same protocol."""
        return self.variant.main and self.loss != AS_MEANT


def networks_of(settings: Scale, data: str, work: Workspace) -> Iterator[Trained]:
    """Every network of one data set; of each group the single-task one first, for the others need its examples."""
    column, auxiliary = settings.data[data]
    for variant in settings.variants:
        if variant.sets and data not in variant.sets:
            continue
        meant_seeds = variant.meant_seeds if data in variant.meant else ()
        for seed in variant.seeds:
            plans = [(SINGLE, None), (SIMCLR, AS_WRITTEN)] + ([(SUPERVISED, None)] if auxiliary else [])
            if seed in meant_seeds:
                plans.append((SIMCLR, AS_MEANT))
            for model, loss in plans:
                stage = StageConfig(tasks=_tasks(model, loss, variant, column, auxiliary), **variant.stage)
                config = RunConfig(
                    data=data,
                    trunk=variant.trunk,
                    stages=(stage,),
                    seed=seed,
                    normalisation=data if data in CIFAR else "cifar10",
                )
                words = [data, variant.words, model + (" meant" if loss == AS_MEANT else ""), str(seed)]
                path = "/".join(word.replace(" ", "-").replace(",", "").lower() for word in words)
                run = work.trained(path, config)
                yield Trained(data=data, model=model, seed=seed, variant=variant, loss=loss, path=path, run=run)


def _tasks(model: str, loss: str | None, variant: Variant, column: str, auxiliary: str | None) -> dict[str, TaskConfig]:
    """The tasks of one of the three models; both augmented views are classified where there are two."""
    head = {"hidden": variant.hidden}
    if model == SIMCLR:
        views = {"column": column, "augmentation": "simclr", "views": 2, **head}
        return {
            "labels": TaskConfig(task="labels", weight=0.5, settings=views),
            "contrast": TaskConfig(
                task="contrast",
                weight=1.0 if loss == AS_WRITTEN else 0.5,
                settings={"temperature": variant.temperature},
            ),
        }
    tasks = {"labels": TaskConfig(task="labels", settings={"column": column, **head})}
    if model == SUPERVISED:
        tasks["coarse"] = TaskConfig(task="labels", settings={"column": auxiliary, **head})
    return tasks


def attacked_images(settings: Scale, data: str, work: Workspace) -> Table:
    """The test images that are attacked: drawn with a fixed seed, the same for every model."""
    table = work.table(data, "test")
    return table.sample(min(settings.attacked, len(table)), Streams(0).named("attacked images"))


def crafted(settings: Scale, trained: Trained, name: str, work: Workspace) -> AdversarialSet:
    """One attack on one network. Examples meant for transfer are last iterates, as the source's are."""
    values: dict[str, Any] = {} if name == "fgsm" else {"step_size": STEP_SIZE}
    if trained.model == SINGLE:
        values["goal"] = "last"
    attack = make_attack(name, THREAT, values)
    return work.adversarial(
        trained.path,
        trained.run,
        attacked_images(settings, trained.data, work),
        attack,
        seed=trained.seed,
        proxy=ProxySettings(dtype=settings.precision),
        keep=trained.model == SINGLE,
    )
