# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What a run trains: the data, the trunk, and its stages. Written as ``config.yaml`` into the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, PlainSerializer, PlainValidator, ValidationInfo, field_validator

from unfool.attacks import make_attack
from unfool.attacks.ensemble import attack_passes
from unfool.core.borders.reading import is_folder
from unfool.core.borders.yaml_text import read_yaml
from unfool.core.config import build, configured, to_plain
from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.data.catalog import open_described
from unfool.data.table import Table
from unfool.models.network import NORMALISATIONS
from unfool.models.trunks import TrunkSpec, trunk_spec
from unfool.tasks import make_task
from unfool.training.stage_config import StageConfig, TaskConfig

SCHEMA_VERSION = 2
"""In version 1 the stage's ``trainable`` was called ``moves``."""
CLASSIFIER = "labels"
CONFIG = "config.yaml"
"""The configuration's file in a run's folder."""


TrunkField = Annotated[TrunkSpec, PlainValidator(trunk_spec), PlainSerializer(TrunkSpec.to_dict)]
"""A trunk's spec, which may be given as text or as a mapping, and is written as a mapping."""


@configured
class RunConfig:
    """A whole run: the data, the network's trunk, and its stages.

    Raises:
        SpecError: for an unknown key, a value that is not allowed, or values that contradict each other.

    Example:
        >>> from unfool.training import StageConfig, TaskConfig
        >>> stage = StageConfig(tasks={"labels": TaskConfig(task="labels")}, epochs=10)
        >>> config = RunConfig(data="digits", stages=(stage,), trunk="convnet:stem=strided")
        >>> config.trunk.name, config.normalisation
        ('convnet', 'cifar10')
    """

    data: str = Field(description="Data set, by its name in the catalog.")
    stages: tuple[StageConfig, ...] = Field(min_length=1, description="The stages, trained one after the other.")
    size: int = Field(default=0, ge=0, description="Pixels a side of the images; 0: the data set's own size.")
    crop: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of the shorter side that the centre cut to size keeps, such as 0.875; 0: nothing is cut, "
        "images are squeezed to a square.",
    )
    image: str | None = Field(
        default=None, description="Column of the images; default: the one that is declared so or has a usual name."
    )
    model: str | None = Field(
        default=None,
        description="Classifier of another library that is trained in place of a trunk, as --model names it.",
    )
    start: str | None = Field(
        default=None,
        description="Weights file to start from; its trunk, normalisation and heads are taken over.",
    )
    start_identity: str | None = Field(
        default=None,
        description="Hash of the weights in start; filled in as the run begins, and other weights are then refused.",
    )
    trunk: TrunkField | None = Field(
        default=None,
        validate_default=True,
        description="The trunk, as NAME or NAME:key=value,...; resnet18 unless start is set.",
    )
    normalisation: str | None = Field(
        default=None,
        validate_default=True,
        description="Normalisation of the images inside the network: none, symmetric (-1 to 1), cifar10, cifar100 or "
        "imagenet.",
    )
    fraction: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the labels to train on, the same of every class; other images are not seen at all, but "
        "for those that are held out, whose labels come on top.",
    )
    classifier: str = Field(default=CLASSIFIER, description="Head that gives the network's logits.")
    seed: int = Field(default=0, ge=0, description="Seed of all random draws.")
    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of the configuration's format.")

    @field_validator("start_identity")
    @classmethod
    def _of_a_file(cls, identity: str | None, info: ValidationInfo) -> str | None:
        if identity is not None and info.data.get("start") is None and info.data.get("model") is None:
            raise ValueError("it names the weights of start: set start as well, or leave it out")
        return identity

    @field_validator("trunk")
    @classmethod
    def _default(cls, trunk: TrunkSpec | None, info: ValidationInfo) -> TrunkSpec | None:
        if info.data.get("model") is not None:
            if trunk is not None or info.data.get("start") is not None:
                raise ValueError("model is trained in place of a trunk: leave trunk and start out")
            return None
        return TrunkSpec() if trunk is None and info.data.get("start") is None else trunk

    @field_validator("normalisation")
    @classmethod
    def _named(cls, normalisation: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("model") is not None:
            if normalisation is not None:
                raise ValueError("model brings its own normalisation, mean and std: leave normalisation out")
            return None
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

    def model_images(self, images: int) -> float:
        """About how many images the run sends through its network, crafting included, of a table of ``images``."""
        total = 0.0
        for stage in self.stages:
            seen = stage.steps * stage.batch_size if stage.steps else stage.epochs * images * self.fraction
            crafted = attack_passes(make_attack(stage.perturb, stage.threat).parts) if stage.perturb else 0
            total += seen * (1 + crafted + (stage.adversarial != "plain"))
        return total

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
    """Read the configuration of a run from a YAML file.

    Args:
        path: The file, or a run's folder, which holds it as ``config.yaml``.

    Returns:
        The configuration.

    Raises:
        DataError: The file cannot be read.
        SpecError: The file is not YAML, holds unknown keys or values that are not allowed, or is of a newer version.

    Example:
        >>> from pathlib import Path
        >>> from unfool.training import read_config
        >>> text = "{data: digits, trunk: convnet, stages: [{epochs: 2, tasks: {labels: {task: labels}}}]}"
        >>> _ = Path("config.yaml").write_text(text)
        >>> read_config("config.yaml").stages[0].epochs
        2
    """
    path = Path(path) / CONFIG if is_folder(path) else path
    values = read_yaml(path, "give a run folder or its config.yaml, with key: value lines")
    if not isinstance(values, Mapping):
        raise SpecError(f"{path} holds no fields of a run; write key: value lines, as config.yaml of a run has them")
    return run_config(values, str(path))


def label_columns(config: RunConfig) -> list[str]:
    """The label columns that a run's tasks learn."""
    tasks = [task for stage in config.stages for task in stage.tasks.values()]
    return list(dict.fromkeys(column for task in tasks for column in make_task(task.task, task.settings).needs))


def training_table(config: RunConfig, data_dir: Path | None = None) -> Table:
    """The training split of a run's data, framed as it says, with the label columns that its tasks learn.

    Raises SpecError for an unknown set, DataError for one that cannot be opened.
    """
    return open_described(
        config.data,
        "train",
        data_dir=data_dir,
        size=config.size or None,
        crop=config.crop,
        image=config.image,
        columns=label_columns(config),
    )
