"""What a run trains: the data, the trunk, and its stages. Written as ``config.yaml`` into the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationInfo, field_validator

from unfool.attacks import make_attack
from unfool.core.config import build, configured, to_plain
from unfool.core.errors import DataError, SpecError
from unfool.core.spec import unknown
from unfool.models.network import NORMALISATIONS
from unfool.models.trunks import TrunkSpec
from unfool.tasks import TASKS, make_task
from unfool.training.trainable import check_trainable

SCHEMA_VERSION = 2
"""In version 1 the stage's ``trainable`` was called ``moves``."""
CLASSIFIER = "labels"


@configured
class TaskConfig:
    """One task of a stage: its registered name, its weight in the loss and its settings.

    One that is not ``perturbed`` learns from its views as they are where the stage moves those of the others.
    """

    task: str
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    perturbed: bool = True
    settings: dict[str, Any] = Field(default_factory=dict)

    @field_validator("task")
    @classmethod
    def _known(cls, task: str) -> str:
        TASKS[task]
        return task


@configured
class StageConfig:
    """One stage: tasks by head name, how long, with which optimizer, under which perturbation, moving which parameters.

    A stage lasts so many ``epochs`` or, if ``steps`` is not 0, exactly so many steps. ``schedule`` shapes the learning
    rate over the stage: ``constant``, ``cosine`` (to 0), or ``triangle`` (up over the first fifth, then down to 0).
    ``trainable`` is ``all`` parameters, the ``heads`` alone, the trunk ``from:STAGE`` on or ``after:N`` layers (see
    `training.trainable`); what does not move keeps its batch-norm statistics too. ``precision`` bf16 computes the trunk
    in bfloat16 under autocast; weights, heads and losses stay fp32.

    ``perturb`` is an attack such as ``pgd-7`` that moves the views of all ``perturbed`` tasks uphill on the stage's own
    loss inside ``threat``, crafted in eval mode; ``adversarial`` is what is learnt from then: ``plain``, the moved
    views alone; ``one-view``, the first view of an image moved and its others clean; ``dual-stream``, the mean of the
    loss on clean and on moved views; and for labels tasks ``trades`` (which climbs the divergence from the clean
    predictions) or ``mart``, with ``beta`` for the divergence. ``statistics`` are those of batch norm: ``separate``
    ones, for one-view and dual-stream, give clean views batch norms of their own, which end with the stage; the
    network's own are then those of the moved views, and of tasks that are not perturbed.
    ``awp`` is γ of the adversarial weight perturbation (Wu et al. 2020; 0: none). ``ema`` is the decay a step of the
    running average that the stage ends with (0: its last weights). ``held_out`` images are cut from the training set
    (no stage of the run learns from them); after each epoch ``stop_attack`` inside ``threat`` judges the classifier on
    them, the stage ends with the best weights, and catastrophic overfitting is told. Without held-out images nothing
    watches for it: give some to a stage that takes single steps.
    """

    tasks: dict[str, TaskConfig]
    epochs: int = Field(default=1, ge=1)
    steps: int = Field(default=0, ge=0)
    batch_size: int = Field(default=256, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = Field(default=3e-4, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: Literal["constant", "cosine", "triangle"] = "constant"
    trainable: str = "all"
    precision: Literal["fp32", "bf16"] = "fp32"
    perturb: str | None = None
    threat: str = "linf:8/255"
    adversarial: Literal["plain", "one-view", "dual-stream", "trades", "mart"] = "plain"
    statistics: Literal["shared", "separate"] = "shared"
    beta: float = Field(default=6.0, ge=0, allow_inf_nan=False)
    awp: float = Field(default=0.0, ge=0, lt=1)
    ema: float = Field(default=0.0, ge=0, lt=1)
    held_out: int = Field(default=0, ge=0)
    stop_attack: str = "pgd-10"

    @field_validator("tasks")
    @classmethod
    def _some(cls, tasks: dict[str, TaskConfig]) -> dict[str, TaskConfig]:
        if not tasks:
            raise ValueError("a stage needs at least one task")
        return tasks

    @field_validator("steps")
    @classmethod
    def _alone(cls, steps: int, info: ValidationInfo) -> int:
        if steps and info.data.get("epochs", 1) != 1:
            raise ValueError(f"epochs={info.data['epochs']} is given too: give one of the two")
        return steps

    @field_validator("trainable")
    @classmethod
    def _described(cls, trainable: str) -> str:
        check_trainable(trainable)
        return trainable

    @field_validator("perturb", "stop_attack")
    @classmethod
    def _known(cls, attack: str | None) -> str | None:
        if attack is not None:
            make_attack(attack, "linf:8/255")
        return attack

    @field_validator("perturb")
    @classmethod
    def _perturbs_some(cls, perturb: str | None, info: ValidationInfo) -> str | None:
        tasks = info.data.get("tasks")
        if perturb is not None and tasks is not None and not any(task.perturbed for task in tasks.values()):
            raise ValueError("it moves the views of no task: set perturbed=true for one, or leave perturb out")
        return perturb

    @field_validator("threat")
    @classmethod
    def _readable(cls, threat: str) -> str:
        make_attack("fgsm", threat)
        return threat

    @field_validator("adversarial")
    @classmethod
    def _has_examples(cls, adversarial: str, info: ValidationInfo) -> str:
        if adversarial != "plain" and info.data.get("perturb", "refused") is None:
            raise ValueError("it learns from adversarial examples: set perturb, such as pgd-10")
        return adversarial

    @field_validator("statistics")
    @classmethod
    def _of_both(cls, statistics: str, info: ValidationInfo) -> str:
        kinds = ("one-view", "dual-stream")
        if statistics == "separate" and info.data.get("adversarial", kinds[0]) not in kinds:
            raise ValueError(f"it sets clean views apart from moved ones: set adversarial to {' or '.join(kinds)}")
        return statistics


@configured
class RunConfig:
    """A run: data set by catalog name (``size`` in pixels a side, 0: its own), trunk, stages, seed.

    ``classifier`` names the head that gives the network's logits (a run without a task of the default name has none,
    or that of ``start``). ``normalisation`` is one of models.network's (default: cifar10). ``start`` is a weights file
    to begin from: its trunk, normalisation and heads are taken over, so leave the first two out; ``start_identity``
    is filled in as the run begins, and a file that holds other weights is then refused. ``fraction`` is the share of
    the labels that the run has: it sees that part of every class and nothing else, drawn by the seed after held-out
    images are cut, and 1 % lies inside 10 %.
    """

    data: str
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    size: int = Field(default=0, ge=0)
    # Fields made by Field() are checked before all others, in order, and these four are checked against each other.
    start: str | None = Field(default=None)
    start_identity: str | None = Field(default=None)
    trunk: dict[str, Any] | None = Field(default=None, validate_default=True)
    normalisation: str | None = Field(default=None, validate_default=True)
    fraction: float = Field(default=1.0, gt=0, le=1)
    classifier: str = CLASSIFIER
    seed: int = Field(default=0, ge=0)
    schema_version: int = SCHEMA_VERSION

    @field_validator("start_identity")
    @classmethod
    def _of_a_file(cls, identity: str | None, info: ValidationInfo) -> str | None:
        if identity is not None and info.data.get("start") is None:
            raise ValueError("it names the weights of start: set start as well, or leave it out")
        return identity

    @field_validator("trunk")
    @classmethod
    def _buildable(cls, trunk: dict[str, Any] | None, info: ValidationInfo) -> dict[str, Any] | None:
        if trunk is None:
            return {"name": "resnet18"} if info.data.get("start") is None else None
        TrunkSpec.from_dict(trunk)
        return trunk

    @field_validator("normalisation")
    @classmethod
    def _named(cls, normalisation: str | None, info: ValidationInfo) -> str | None:
        if normalisation is None:
            return "cifar10" if info.data.get("start") is None else None
        if normalisation not in NORMALISATIONS:
            raise unknown("normalisation", normalisation, NORMALISATIONS)
        return normalisation

    @field_validator("classifier")
    @classmethod
    def _trained(cls, classifier: str, info: ValidationInfo) -> str:
        heads = {name for stage in info.data.get("stages", ()) for name in stage.tasks}
        if heads and classifier not in heads | {CLASSIFIER}:
            raise unknown("task of any stage", classifier, heads)
        return classifier

    @field_validator("schema_version")
    @classmethod
    def _readable(cls, version: int) -> int:
        if not 1 <= version <= SCHEMA_VERSION:
            raise ValueError(f"this unfool reads schema versions up to {SCHEMA_VERSION}: update unfool")
        return version

    @property
    def trunk_spec(self) -> TrunkSpec:
        """The trunk's description, checked; SpecError where only the start file knows it."""
        if self.trunk is None:
            raise SpecError(f"the trunk is that of {self.start}, which is not read here; give trunk")
        return TrunkSpec.from_dict(self.trunk)

    def to_yaml(self) -> str:
        """The configuration as YAML."""
        return yaml.safe_dump(to_plain(self), sort_keys=False)


def run_config(values: Mapping[str, Any], what: str) -> RunConfig:
    """A run from nested mappings; SpecError names ``what`` and, for a wrong key, the nearest known one."""
    version = values.get("schema_version", SCHEMA_VERSION)
    # First, since a newer file may well hold keys that this program does not know.
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise SpecError(
            f"{what} has schema version {version!r}; this unfool reads up to {SCHEMA_VERSION}: update unfool"
        )
    stages = values.get("stages")
    if version == 1:
        values = {**values, "schema_version": SCHEMA_VERSION}
    if isinstance(stages, (list, tuple)):
        if version == 1:
            stages = [_upgraded(stage) for stage in stages]
        built = [_stage(stage, f"{what}, stage {number}") for number, stage in enumerate(stages, 1)]
        values = {**values, "stages": built}
    return build(RunConfig, values, what)


def _upgraded(stage: Any) -> Any:
    """A stage of a file of schema version 1 in today's words."""
    if not isinstance(stage, Mapping):
        return stage
    return {"trainable" if key == "moves" else key: value for key, value in stage.items()}


def _stage(values: Any, what: str) -> Any:
    """One stage built from mappings; anything else is left for RunConfig to complain about."""
    if not isinstance(values, Mapping):
        return values
    tasks = values.get("tasks")
    if isinstance(tasks, Mapping):
        values = {**values, "tasks": {name: _task(task, f"{what}, task {name!r}") for name, task in tasks.items()}}
    return build(StageConfig, values, what)


def _task(values: Any, what: str) -> Any:
    if not isinstance(values, Mapping):
        return values
    config = build(TaskConfig, values, what)
    try:
        make_task(config.task, config.settings)
    except SpecError as error:
        raise SpecError(f"{what}: {error}") from error
    return config


def read_config(path: str | Path) -> RunConfig:
    """Read a run's YAML; DataError if there is no such file, SpecError for YAML or keys that are not understood."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give a run folder or its config.yaml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise SpecError(f"{path} is not YAML: {reason}; write key: value lines") from error
    if not isinstance(values, Mapping):
        raise SpecError(f"{path} holds a {type(values).__name__}; write key: value lines")
    return run_config(values, str(path))
