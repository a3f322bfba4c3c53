"""The networks of system C: pretrained without labels, then fine-tuned on a share of them; and the controls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.studies.transfer_scales import (
    ADVERSARIAL,
    COMPARED,
    CONTROL,
    LEARNT,
    PERTURBED,
    PRETRAININGS,
    QUARTER,
    SHARES,
    SIMCLR,
    TASKS_OF,
    Scale,
)
from unfool.studies.workspace import Workspace
from unfool.training import RunConfig, StageConfig, TaskConfig, TrainedRun
from unfool.training.folder import WEIGHTS


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One fine-tuned network but for its seed: ``model`` is a pretraining or a control, ``share`` that of the labels,
    ``learnt`` what it was fine-tuned on, ``moves`` what moved; ``other`` tells that it is on the second data set."""

    model: str
    share: float = 1.0
    learnt: str = PERTURBED
    moves: str = "heads"
    other: bool = False

    @property
    def path(self) -> str:
        """Where its pieces lie."""
        words = [self.model, *(["other data"] if self.other else []), f"{100 * self.share:g} percent"]
        return "/".join(folder(word) for word in (*words, f"{self.learnt} {self.moves.replace(':', ' ')}"))

    @property
    def settings(self) -> dict[str, Any]:
        """What tells its rows apart from those of the same model."""
        return {"labels": f"{100 * self.share:g} %", "fine_tuned_on": self.learnt, "moved": moved_words(self.moves)}


def moved_words(moves: str) -> str:
    """What moved in fine-tuning, in words."""
    kind, _, which = moves.partition(":")
    return {
        "heads": "the added layer",
        "all": "all layers",
        "from": f"{which} and later",
        "after": f"all but the first {which} layers",
    }[kind]


def plans(settings: Scale) -> dict[Plan, int]:
    """Every fine-tuned network of the study, and over how many seeds: several where a claim compares it."""
    grid = [
        Plan(model=model, share=share, learnt=learnt) for model in PRETRAININGS for share in SHARES for learnt in LEARNT
    ]
    found = {plan: settings.seeds if _compared(plan) else 1 for plan in grid}
    for learnt in LEARNT:
        found[Plan(model=CONTROL, learnt=learnt, moves="all")] = settings.seeds
        for moves in settings.policies:
            found[Plan(model=SIMCLR, share=COMPARED, learnt=learnt, moves=moves)] = 1
    found[Plan(model=ADVERSARIAL, share=COMPARED, moves="all")] = 1
    found[Plan(model=SIMCLR, other=True)] = settings.seeds
    found[Plan(model=CONTROL, moves="all", other=True)] = settings.seeds
    found[Plan(model=QUARTER, moves="all")] = 1
    return found


def _compared(plan: Plan) -> bool:
    """Whether a figure of the source, or a claim, is about this cell of the grid."""
    return plan.model == SIMCLR or (plan.share, plan.learnt) == (COMPARED, PERTURBED)


def tables(settings: Scale, work: Workspace, other: bool = False) -> tuple[Table, Table]:
    """The training and the test images of the first or of the second data set."""
    data, size = (settings.other.data, settings.other.size) if other else (settings.data, 0)
    return work.table(data, "train", size), work.table(data, "test", size)


def attacked_images(settings: Scale, work: Workspace, count: int, other: bool = False) -> Table:
    """So many test images, the same for every network; smaller draws lie inside larger ones."""
    _, test = tables(settings, work, other)
    return test.sample(min(count, len(test)), Streams(0).named("attacked images"))


def folder(model: str) -> str:
    """A model's name as a part of a path."""
    return model.replace(" + ", "-").replace(" ", "-")


def pretraining(settings: Scale, model: str) -> RunConfig:
    """The run of a pretraining; its tasks need no labels."""
    tasks = {name: TaskConfig(task=name, settings=settings.tasks[name]) for name in TASKS_OF[model]}
    stages = (StageConfig(tasks=tasks, threat=settings.threat, **stage) for stage in settings.pretrain[model])
    return RunConfig(data=settings.unlabelled, trunk=settings.trunk, stages=tuple(stages))


def pretrained(settings: Scale, model: str, work: Workspace) -> TrainedRun:
    """A network that was shown no label."""
    return work.trained(f"pretrained/{folder(model)}", pretraining(settings, model))


def _weights(model: str, work: Workspace) -> Path:
    """Where the weights of a pretraining lie, or will lie."""
    return work.run_folder(f"pretrained/{folder(model)}").resolve() / WEIGHTS


def fine_tuning(settings: Scale, plan: Plan, seed: int, work: Workspace) -> RunConfig:
    """The run that follows the pretraining, or that of a control, which has none."""
    stage = dict(settings.head if plan.moves == "heads" else settings.whole)
    if plan.learnt == PERTURBED:
        stage["perturb"] = settings.perturb
    if plan.model == QUARTER:
        stage.pop("epochs", None)
        stage |= {"perturb": settings.fast, "steps": _quarter(settings, work)}
    data, column, size = settings.data, None, 0
    if plan.other:
        data, column, size = settings.other.data, settings.other.column, settings.other.size
    labels = TaskConfig(task="labels", settings={"column": column} if column else {})
    begin: dict[str, Any] = {"trunk": settings.trunk}
    if plan.model in PRETRAININGS:
        begin = {"start": str(_weights(plan.model, work))}
    return RunConfig(
        data=data,
        size=size,
        stages=(StageConfig(tasks={"labels": labels}, trainable=plan.moves, threat=settings.threat, **stage),),
        fraction=plan.share,
        seed=seed,
        **begin,
    )


def fine_tuned(settings: Scale, plan: Plan, seed: int, work: Workspace) -> TrainedRun:
    """A fine-tuned network; its pretraining is made first if it is not there."""
    if plan.model in PRETRAININGS and not _weights(plan.model, work).is_file():
        pretrained(settings, plan.model, work)
    train, _ = tables(settings, work, plan.other)
    return work.trained(f"{plan.path}/{seed}", fine_tuning(settings, plan, seed, work), train)


WORKFLOW = Plan(model=SIMCLR)
"""The source's efficient workflow: SimCLR, then the added layer on FGSM examples of all labelled images."""


def workflow_cost(settings: Scale, work: Workspace) -> tuple[TrainedRun, TrainedRun]:
    """The two runs of the source's workflow: pretraining, and adversarial fine-tuning."""
    return pretrained(settings, SIMCLR, work), fine_tuned(settings, WORKFLOW, 0, work)


def _quarter(settings: Scale, work: Workspace) -> int:
    """Steps of fast adversarial training, of two images through the network for each, at a quarter of that cost."""
    images = sum(run.model_images for run in workflow_cost(settings, work))
    return max(1, round(images / (4 * 2 * settings.whole["batch_size"])))
