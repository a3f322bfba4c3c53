"""The run that the options of ``unfool train`` describe, or its YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from unfool.cli.options.from_settings import explicit
from unfool.cli.parsing.systems import open_foreign, open_outside
from unfool.cli.parsing.tasks import read_tasks
from unfool.cli.parsing.threats import read_threat
from unfool.core.config import build, parse_settings
from unfool.core.errors import SpecError
from unfool.data.catalog import open_described
from unfool.data.table import Table
from unfool.models.foreign import ForeignClassifier
from unfool.models.trunks import TRUNKS, TrunkSpec
from unfool.models.trunks.settings import read_texts
from unfool.tasks import make_task
from unfool.training import RunConfig, StageConfig, in_regime
from unfool.training.config import read_config, training_table

if TYPE_CHECKING:
    from unfool.cli.commands.train import TrainCommand

_TRUNK = {"trunk": "name", "stem": "stem", "width": "width", "widths": "widths", "depth": "depth"}
"""Options of the trunk, and the keys of `TrunkSpec` that they set."""


def read_classifier(command: TrainCommand) -> ForeignClassifier | None:
    """The classifier of --model; SpecError for options that belong to one without it, or that it replaces."""
    beside = {name for name in explicit(command.outside) if name != "model"}
    if command.outside.model is None:
        if beside:
            raise SpecError(
                f"--{min(beside)} belongs to --model FILE.py:NAME; name the classifier too, or leave it out"
            )
        return None
    if command.outside.model.partition(":")[0] in TRUNKS:
        raise SpecError(
            f"--model takes a classifier from outside, as FILE.py:NAME; write --trunk {command.outside.model} for the "
            "trunk of that name"
        )
    if replaced := sorted(explicit(command.model)):
        raise SpecError(f"--{replaced[0]} and --model cannot be combined; --model is trained in place of a trunk")
    return open_outside(command.outside)


def look(command: TrainCommand, classifier: ForeignClassifier, table: Table) -> Table:
    """Look at what the classifier makes of a few training images; the table with labels that its outputs stand for.

    Raises as `check_classifier` and `OpenedSystem.labelled` do.
    """
    opened = open_foreign(command.outside, classifier)
    outputs = opened.check_on(table, command.training.batch_size)
    return opened.labelled(table, outputs, command.data.label)


def read_run(command: TrainCommand, classifier: ForeignClassifier | None = None) -> tuple[RunConfig, Table]:
    """The run's configuration and its training images; SpecError for options that do not go together."""
    if command.config is not None:
        return _from_file(command)
    if command.data.data is None:
        raise SpecError("no data set was given; give --data NAME (unfool doctor lists them) or --config FILE")
    model = explicit(command.model)
    trunk = {key: model.pop(option) for option, key in _TRUNK.items() if option in model}
    if "name" in trunk:
        name, settings = parse_settings(str(trunk["name"]))
        trunk = {**read_texts(settings), **trunk, "name": name}
    fresh = command.model.start is None and classifier is None
    described = TrunkSpec.from_dict(trunk).to_dict() if trunk or fresh else None
    texts = command.task.task or ("labels",)
    size = command.data.size or (classifier.size if classifier is not None else None) or 0
    label, data = command.data.label, explicit(command.data, without=["data_dir", "label"])
    # Read before the data, which may take minutes to fetch, and again with the data's own label column.
    written = read_tasks(texts, label).values()
    table = open_described(
        command.data.data,
        "train",
        data_dir=command.data.data_dir,
        size=size or None,
        crop=1.0 if command.data.crop is None else command.data.crop,
        image=command.data.image,
        columns=[label, *(column for task in written for column in make_task(task.task, task.settings).needs)],
    )
    tasks = read_tasks(texts, label or table.label_column)
    stated = _stage(command)
    stage = build(StageConfig, {"tasks": tasks, **stated}, "the run")
    for field in stated:
        if (reason := stage.idle(field)) is not None:
            raise SpecError(f"the run: {field}={getattr(stage, field)} does nothing {reason}")
    heads = [name for name, task in tasks.items() if task.task == "labels"]
    values = {
        **data,
        **({"size": size} if size else {}),
        **({"model": command.outside.model} if classifier is not None else {}),
        **model,
        **explicit(command.machine, without=["device"]),
        "stages": in_regime(command.task.regime, stage),
        "trunk": described,
        "classifier": command.task.classifier or next(iter(heads), "labels"),
    }
    return build(RunConfig, values, "the run"), table


def _stage(command: TrainCommand) -> Mapping[str, object]:
    """The settings of the run's one stage that were given."""
    options = command.perturbation
    values = {**explicit(command.training), **explicit(options, without=["norm", "eps"]), **explicit(command.selection)}
    if options.norm is not None or options.eps is not None:
        values["threat"] = str(read_threat(options.threat, options.norm, options.eps))
    return values


def _from_file(command: TrainCommand) -> tuple[RunConfig, Table]:
    """The run of --config, which leaves nothing for the other options to say."""
    groups = (command.data, command.model, command.task, command.machine)
    said = {name for group in groups for name in explicit(group, without=["data_dir", "device"])} | {*_stage(command)}
    if said or command.config is None:
        options = ", ".join("--" + name.replace("_", "-") for name in sorted(said))
        raise SpecError(f"{options} and --config cannot be combined; write it into {command.config}")
    config = read_config(command.config)
    return config, training_table(config, command.data.data_dir)
