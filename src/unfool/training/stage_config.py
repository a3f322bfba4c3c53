"""What a stage of training does: its tasks, its optimizer, its perturbation, and which parameters learn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from unfool.attacks import Attack, make_attack
from unfool.attacks.base import NoFormError
from unfool.core.config import configured
from unfool.core.threat import ThreatLike, ThreatModel
from unfool.tasks import TASKS
from unfool.training.adversarial.methods import ADVERSARIAL_METHODS
from unfool.training.trainable import check_trainable


@configured
class TaskConfig:
    """One task of a stage.

    Example:
        >>> TaskConfig(task="rotation", weight=0.5).weight
        0.5
    """

    task: str = Field(description="Registered name of the task, such as labels, rotation, jigsaw or contrast.")
    weight: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="Weight of the task's loss in the stage's loss."
    )
    perturbed: bool = Field(
        default=True,
        description="Whether the stage perturbs this task's views; false: it learns from clean views.",
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="The task's own settings, by name.")

    @field_validator("task")
    @classmethod
    def _known(cls, task: str) -> str:
        return TASKS.canonical(task)


@configured
class StageConfig:
    """One stage of training: which tasks, how long, with which optimizer, under which perturbation.

    Views of all ``perturbed`` tasks are moved uphill on the stage's own loss; they are crafted in eval mode.
    ``adversarial`` names what is then learnt (see `training.adversarial.methods`). Separate statistics give clean views
    batch norms of their own, which end with the stage: the network's own are then those of the perturbed views, and of
    tasks that are not perturbed. What is not trainable keeps its batch-norm statistics too. With held-out images the
    stage ends with its best weights on them, and warns of catastrophic overfitting; without, nothing watches for it:
    give some to a stage that takes single steps.

    Raises:
        SpecError: for an unknown key, a value that is not allowed, or values that contradict each other.

    Example:
        >>> tasks = {"labels": TaskConfig(task="labels")}
        >>> StageConfig(tasks=tasks, epochs=10, perturb="pgd-10", threat=Linf(4/255)).threat
        Linf(4/255)
    """

    tasks: dict[str, TaskConfig] = Field(description="The tasks, by the name of their head.")
    epochs: int = Field(default=1, ge=1, description="Passes over the training images.")
    steps: int = Field(default=0, ge=0, description="Exact number of training steps, in place of epochs; 0: epochs.")
    minutes: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Minutes after which the stage ends, if its epochs or steps are not over by then; the schedule is "
        "that of the steps that fit in. 0: no limit. With one the weights depend on how fast the machine is.",
    )
    batch_size: int = Field(default=256, ge=1, description="Images in a training step.")
    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="Optimizer: adam, or sgd with momentum.")
    learning_rate: float = Field(
        default=3e-4, gt=0, allow_inf_nan=False, description="Highest learning rate of the schedule."
    )
    weight_decay: float = Field(
        default=1e-4, ge=0, allow_inf_nan=False, description="L2 penalty that the optimizer adds to the gradients."
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of sgd.")
    nesterov: bool = Field(default=True, description="Nesterov's form of sgd's momentum; off: plain momentum.")
    schedule: Literal["constant", "cosine", "triangle", "step", "exponential"] = Field(
        default="constant",
        description="Learning rate over the stage: constant, cosine (falls to 0), triangle (rises over the first "
        "fifth, then falls to 0), step (drops every so many epochs) or exponential (falls by a factor an epoch).",
    )
    warmup_epochs: int = Field(
        default=0,
        ge=0,
        description="Epochs in which the learning rate first rises, step by step, to what the schedule says; 0: none.",
    )
    constant_epochs: int = Field(
        default=0,
        ge=0,
        description="Epochs at the full rate before cosine falls, epoch by epoch; 0: it falls step by step at once.",
    )
    cosine_epochs: int = Field(
        default=0, ge=0, description="Epochs of cosine's fall to 0, where it stays, after constant_epochs; 0: all left."
    )
    drop_every: int = Field(default=30, ge=1, description="Epochs between two drops of schedule step.")
    drop_factor: float = Field(
        default=0.1, gt=0, le=1, description="What each drop of schedule step multiplies the learning rate by."
    )
    decay: float = Field(
        default=0.95, gt=0, le=1, description="What schedule exponential multiplies the learning rate by an epoch."
    )
    trainable: str = Field(
        default="all",
        description="Which parameters learn: all, heads, from:STAGE (the trunk from that stage on) or after:N (all but "
        "the trunk's first N layers).",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="Number format of the trunk's passes; with bf16 weights, heads and losses stay fp32.",
    )
    perturb: str | None = Field(
        default=None,
        description="Attack that perturbs the training views, such as pgd-10 or fgsm; none: views stay clean.",
    )
    threat: ThreatLike = Field(
        default=ThreatModel.parse("linf:8/255"),
        validate_default=True,
        description="Threat model of perturb and stop_attack, such as linf:8/255 or l2:0.5.",
    )
    adversarial: str = Field(
        default="plain",
        description="What is learnt from perturbed views: plain (they alone), one-view (one beside clean "
        "ones), dual-stream (the mean of clean and perturbed losses), and for labels tasks trades or mart.",
    )
    statistics: Literal["shared", "separate"] = Field(
        default="shared",
        description="Batch norm: shared by clean and perturbed views, or separate (one-view and dual-stream only).",
    )
    beta: float = Field(
        default=6.0, ge=0, allow_inf_nan=False, description="Weight of the divergence in trades and mart."
    )
    awp: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Size of the adversarial weight perturbation, as a share of each layer's norm; 0: none.",
    )
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="Decay a step of the running average of the weights; 0: last weights."
    )
    held_out: int = Field(
        default=0, ge=0, description="Training images set aside for early stopping on robust accuracy; 0: none."
    )
    stop_attack: str = Field(default="pgd-10", description="Attack that early stopping measures robustness with.")

    @field_validator("tasks", mode="before")
    @classmethod
    def _by_head(cls, tasks: object) -> object:
        if not hasattr(tasks, "items"):
            raise ValueError("give the tasks by their heads, such as {'labels': TaskConfig(task='labels')}")
        return tasks

    @field_validator("tasks")
    @classmethod
    def _some(cls, tasks: dict[str, TaskConfig]) -> dict[str, TaskConfig]:
        if not tasks:
            raise ValueError("a stage needs at least one task")
        for head in tasks:
            try:
                nn.ModuleDict().add_module(head, None)
            except KeyError:
                raise ValueError(
                    f"a head cannot be called {head!r}: give it a name without a dot that torch.nn.ModuleDict has no "
                    f"attribute of, such as {tasks[head].task!r}"
                ) from None
        return tasks

    @field_validator("steps")
    @classmethod
    def _alone(cls, steps: int, info: ValidationInfo) -> int:
        if steps and info.data.get("epochs", 1) != 1:
            raise ValueError(f"epochs={info.data['epochs']} is given too: give one of the two")
        return steps

    @field_validator("constant_epochs", "cosine_epochs")
    @classmethod
    def _of_cosine(cls, epochs: int, info: ValidationInfo) -> int:
        if epochs and info.data.get("schedule", "cosine") != "cosine":
            raise ValueError(f"schedule {info.data['schedule']!r} has none: set schedule to cosine, or leave it out")
        if epochs and info.field_name == "cosine_epochs" and not info.data.get("constant_epochs", 1):
            raise ValueError("it begins after constant_epochs: set them too, or leave it out")
        return epochs

    @field_validator("trainable")
    @classmethod
    def _described(cls, trainable: str) -> str:
        check_trainable(trainable)
        return trainable

    @field_validator("perturb", "stop_attack", mode="before")
    @classmethod
    def _as_text(cls, attack: object) -> object:
        if isinstance(attack, Attack):
            raise ValueError(f"write the attack as text, such as 'pgd-10', and give threat={attack.threat!r}")
        return attack

    @field_validator("perturb", "stop_attack")
    @classmethod
    def _known(cls, attack: str | None) -> str | None:
        if attack is not None:
            with suppress(NoFormError):  # The stage's own threat model decides, below.
                make_attack(attack, "linf:8/255")
        return attack

    @field_validator("threat")
    @classmethod
    def _perturb_has_form(cls, threat: ThreatModel, info: ValidationInfo) -> ThreatModel:
        if info.data.get("perturb") is not None:
            make_attack(info.data["perturb"], threat)
        return threat

    @field_validator("stop_attack")
    @classmethod
    def _stop_attack_has_form(cls, attack: str | None, info: ValidationInfo) -> str | None:
        if attack is not None and "threat" in info.data:
            make_attack(attack, info.data["threat"])
        return attack

    @field_validator("perturb")
    @classmethod
    def _perturbs_some(cls, perturb: str | None, info: ValidationInfo) -> str | None:
        tasks = info.data.get("tasks")
        if perturb is not None and tasks is not None and not any(task.perturbed for task in tasks.values()):
            raise ValueError("it perturbs the views of no task: set perturbed=true for one, or leave perturb out")
        return perturb

    @field_validator("adversarial")
    @classmethod
    def _has_examples(cls, adversarial: str, info: ValidationInfo) -> str:
        adversarial = ADVERSARIAL_METHODS.canonical(adversarial)
        if adversarial != "plain" and info.data.get("perturb", "refused") is None:
            raise ValueError("it learns from adversarial examples: set perturb, such as pgd-10")
        return adversarial

    @field_validator("statistics")
    @classmethod
    def _of_both(cls, statistics: str, info: ValidationInfo) -> str:
        method = info.data.get("adversarial")
        if statistics == "separate" and method is not None and not ADVERSARIAL_METHODS[method].may_separate:
            kinds = [name for name in ADVERSARIAL_METHODS if ADVERSARIAL_METHODS[name].may_separate]
            raise ValueError(f"it sets clean views apart from perturbed ones: set adversarial to {', '.join(kinds)}")
        return statistics

    def idle(self, field: str) -> str | None:
        """Why a field does nothing in this stage, in words that follow its name; None for one that does something.

        Whoever states a field is refused by this. The stage itself takes such values: a run's file holds all fields,
        and a stage is often made of another one.
        """
        reason, does_something = _WAITING.get(field, ("", lambda stage: True))
        return None if does_something(self) else reason


_Rule = tuple[str, Callable[[StageConfig], bool]]
_SGD: _Rule = ("without optimizer sgd; give both, or neither", lambda stage: stage.optimizer == "sgd")
_STEP: _Rule = ("without schedule step; give both, or neither", lambda stage: stage.schedule == "step")
_WAITING: dict[str, _Rule] = {
    "epochs": ("beside steps; give one of the two", lambda stage: not stage.steps),
    "momentum": _SGD,
    "nesterov": _SGD,
    "drop_every": _STEP,
    "drop_factor": _STEP,
    "decay": ("without schedule exponential; give both, or neither", lambda stage: stage.schedule == "exponential"),
    "threat": (
        "without perturb, such as pgd-10, or held_out; give one of them too, or leave it out",
        lambda stage: stage.perturb is not None or stage.held_out > 0,
    ),
    "beta": (
        "without adversarial trades or mart; give both, or neither",
        lambda stage: ADVERSARIAL_METHODS[stage.adversarial].labels_only,
    ),
    "stop_attack": ("without held_out images; give both, or neither", lambda stage: stage.held_out > 0),
}
"""Fields that do nothing by themselves: why, where they do nothing, and whether they do something in a stage."""
