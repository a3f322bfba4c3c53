# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
"""Harden a classifier within a stated time: a short adversarial training of its own weights, measured before and after.

Fine-tuning a trained classifier on examples of its own reaches much of what adversarial training from the start does
(Jeddi et al., "A simple fine-tuning is all you need: towards robust deep learning via adversarial fine-tuning", 2020).
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from unfool.core.config import configured
from unfool.core.errors import DataError, SpecError
from unfool.core.files import JsonObject, write_json
from unfool.core.progress import Progress, silent
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.as_table import TableLike, as_table
from unfool.data.table import Table
from unfool.evaluation.compare import compare
from unfool.evaluation.evaluate import evaluate
from unfool.evaluation.evaluation import Evaluation
from unfool.evaluation.settings import READ_THREAT, EvaluationSettings
from unfool.evaluation.statistics.comparison import Comparison
from unfool.models.foreign import ForeignClassifier, adapt
from unfool.models.foreign_network import copied_classifier, foreign_network
from unfool.training import RunConfig, StageConfig, TaskConfig, TrainedRun, train
from unfool.training.config import read_config
from unfool.training.folder import CONFIG, OWN_WEIGHTS
from unfool.training.stage import Stage

TRAINING_SHARE = 0.7
"""Share of the time that training is planned for; the rest is for the two evaluations."""

_TIMED_STEPS = 3
_FEWEST_STEPS, _MOST_EPOCHS = 10, 60


@configured
class HardenSettings:
    """How a classifier is hardened.

    Raises:
        SpecError: A setting that is not known or not allowed.

    Example:
        >>> from unfool import HardenSettings
        >>> settings = HardenSettings(threat="linf:2/255", minutes=15)
        >>> settings.perturb, settings.batch_size
        ('pgd-2', 128)
    """

    threat: Annotated[ThreatModel, READ_THREAT] = Field(
        default=ThreatModel.parse("linf:8/255"),
        description='Threat model that the classifier learns to withstand; also as text, such as ``"linf:2/255"``.',
    )
    minutes: float = Field(
        default=15.0, gt=0, allow_inf_nan=False, description="Minutes that training and both evaluations take, about."
    )
    steps: int = Field(default=0, ge=0, description="Training steps, in place of those that fit into minutes.")
    perturb: str = Field(default="pgd-2", description="Attack that perturbs the training images.")
    adversarial: str = Field(
        default="plain", description="What is learnt from them: plain, dual-stream, trades, mart or another method."
    )
    awp: float = Field(default=0.0, ge=0, lt=1, description="Size of the adversarial weight perturbation; 0: none.")
    learning_rate: float = Field(
        default=0.02, gt=0, allow_inf_nan=False, description="Highest learning rate of SGD, on one triangle."
    )
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False, description="L2 penalty.")
    batch_size: int = Field(default=128, ge=2, description="Images in a training step.")
    ema: float = Field(default=0.995, ge=0, lt=1, description="Decay a step of the weights' running average; 0: none.")
    augmentation: str = Field(default="crop-flip", description="Augmentation of the training images, or none.")
    held_out: int = Field(
        default=0, ge=0, description="Training images set aside, on which the best weights are chosen; 0: none."
    )
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="Number format of the network's passes.")
    attack: str = Field(default="pgd-50", description="Attack of the evaluations before and after.")
    at: Annotated[ThreatModel | None, READ_THREAT] = Field(
        default=None, description="Threat model of the evaluations; default: threat."
    )
    images: int = Field(default=500, ge=1, description="Test images of the evaluations.")
    seed: int = Field(default=0, ge=0, description="Seed of all random draws.")


@dataclass(frozen=True, kw_only=True)
class Hardened:
    """A hardened classifier, and what hardening bought and cost.

    Args:
        run: The training run; ``run.network`` is the hardened classifier.
        weights: Its weights under the classifier's own names.
        before: The evaluation of the classifier as it came.
        after: The evaluation of the hardened one, on the same images.
        comparisons: Paired tests of the two, by attack; ``"none"`` is clean.
    """

    run: TrainedRun
    weights: Path
    before: Evaluation
    after: Evaluation
    comparisons: dict[str, Comparison]

    def __repr__(self) -> str:
        gains = [f"{name} {100 * item.difference:+.1f} points" for name, item in self.comparisons.items()]
        return f"Hardened({self.weights}: {', '.join(gains)})"

    def to_json(self) -> JsonObject:
        """Both evaluations, the comparisons and the cost, as JSON takes them."""
        return {
            "weights": str(self.weights),
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "comparisons": {name: item.verdict for name, item in self.comparisons.items()},
            "cost": {"cpu_seconds": self.run.cpu_seconds, "model_images": self.run.model_images},
        }


def harden(
    model: nn.Module,
    training_images: TableLike,
    test_images: TableLike,
    folder: str | Path,
    *,
    settings: HardenSettings | None = None,
    name: str = "model",
    column: str | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> Hardened:
    """Fine-tune a classifier on adversarial examples for a stated time, and measure what that bought and cost.

    Args:
        model: The classifier, images (B, C, H, W) in [0,1] → logits, or what `adapt` wraps one in. It is copied and
            stays as it is.
        training_images: A table, or what `as_table` makes one of: the images that it is fine-tuned on.
        test_images: The same for both evaluations.
        folder: Where the run goes; the same call goes on where it was stopped. The hardened weights are
            ``model.safetensors`` in it, under the model's own names.
        settings: Threat model, time, and how it is trained and evaluated; default: ``HardenSettings()``.
        name: What the rows call the classifier.
        column: Label column of both tables; default: their own choice.
        device: A device of torch.
        progress: Called with what is being done, and how much of it is done.

    Returns:
        The run, the file of weights, both evaluations and their paired comparisons.

    Raises:
        SpecError: A classifier that cannot be trained, or settings that do not go together.
        DataError: Tables without labels, or with labels beyond the classifier's outputs.
        OutputError: A folder that belongs to another run, or that cannot be written.

    Example:
        >>> from unfool import HardenSettings, harden
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
        >>> images, labels = torch.rand(32, 3, 8, 8), [0, 1] * 16
        >>> settings = HardenSettings(threat="linf:2/255", steps=2, batch_size=8, images=8, attack="fgsm")
        >>> hardened = harden(model, (images, labels), (images, labels), "hardened", settings=settings)
        >>> sorted(hardened.comparisons), hardened.weights.name
        (['fgsm at linf:2/255', 'none'], 'model.safetensors')
    """
    settings = settings or HardenSettings()
    started = time.monotonic()
    classifier = model if isinstance(model, ForeignClassifier) else adapt(model)
    train_table, test_table = as_table(training_images, split="train"), as_table(test_images)
    label_column = column or train_table.label_column
    if label_column is None:
        raise DataError(f"{train_table.name} has no labels, and hardening needs them; name their column")
    train_table.labels(label_column)
    chosen = test_table.sample(min(settings.images, len(test_table)), Streams(0).named("attacked images"))
    evaluation = EvaluationSettings(threat=settings.at or settings.threat, seed=settings.seed)
    classifier = copied_classifier(classifier).to(device)
    evaluated = lambda network: evaluate(  # noqa: E731
        network, chosen, settings.attack, settings=evaluation, name=name, column=column, progress=progress
    )
    before = evaluated(classifier)
    config = _config(settings, train_table, label_column, Path(folder), classifier, time.monotonic() - started)
    run = train(config, train_table, folder, model=classifier, device=device, progress=progress)
    after = evaluated(run.network.to(device))
    weights = Path(folder) / OWN_WEIGHTS
    hardened = Hardened(run=run, weights=weights, before=before, after=after, comparisons=compare(after, before))
    write_json(Path(folder) / "results" / "hardened.json", hardened.to_json())
    return hardened


def _config(
    settings: HardenSettings,
    table: Table,
    column: str,
    folder: Path,
    classifier: ForeignClassifier,
    evaluation_seconds: float,
) -> RunConfig:
    """The run of the settings; a run that has begun keeps its number of steps, which the time decided then."""
    task = TaskConfig(task="labels", settings={"column": column, "augmentation": settings.augmentation})
    stage = StageConfig(
        tasks={"labels": task},
        steps=settings.steps or 1,
        batch_size=min(settings.batch_size, len(table)),
        optimizer="sgd",
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        schedule="triangle",
        precision=settings.precision,
        perturb=settings.perturb,
        threat=str(settings.threat),
        adversarial=settings.adversarial,
        awp=settings.awp,
        ema=settings.ema,
        held_out=settings.held_out,
        stop_attack="pgd-10",
    )
    if not settings.steps:
        begun = folder / CONFIG
        if begun.is_file():
            steps = read_config(begun).stages[0].steps
        else:
            seconds = max(60 * settings.minutes * TRAINING_SHARE, 60 * settings.minutes - 2.5 * evaluation_seconds)
            steps = _steps_within(min(seconds, 60 * settings.minutes * 0.9), stage, table, classifier)
        stage = dataclasses.replace(stage, steps=steps)
    return RunConfig(data=table.name, stages=(stage,), model=classifier.shown_name, seed=settings.seed)


def _steps_within(seconds: float, stage: StageConfig, table: Table, classifier: ForeignClassifier) -> int:
    """How many training steps fit into a time on this machine, by the time of a few of them on a copy."""
    network = foreign_network(classifier, table.batch(torch.arange(1)).images)
    batch = table.batch(torch.arange(stage.batch_size), next(network.parameters()).device)
    classes = {name: len(names) for name, names in table.classes.items()}
    timed = Stage(stage, network, classes, Streams(0)).train()
    spent: list[float] = []
    for step in range(_TIMED_STEPS):
        began = time.monotonic()
        losses, _ = timed(batch, Streams(step))
        timed.total(losses).backward()
        spent.append(time.monotonic() - began)
    most = _MOST_EPOCHS * max(1, len(table) // stage.batch_size)
    steps = min(most, int(seconds / max(min(spent), 1e-6)))
    if steps < _FEWEST_STEPS:
        needed = _FEWEST_STEPS * min(spent) / TRAINING_SHARE / 60
        raise SpecError(
            f"{seconds / 60:.2g} minutes are {steps} training steps here, fewer than {_FEWEST_STEPS}; give at least "
            f"{needed:.1f} minutes, or a smaller batch"
        )
    return steps
