"""A defense that the user wrote as text, around the network that was opened for a command."""

from __future__ import annotations

import warnings

from torch import nn

from unfool.cli.parsing.systems import OpenedSystem
from unfool.core.config import parse_settings
from unfool.core.errors import SpecError, UnfoolWarning
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.defenses import make_defense
from unfool.models.network import Network
from unfool.tasks import make_task
from unfool.training import cut_held_out


def with_preset(defense: str | None, preset: str | None) -> str | None:
    """The defense's text with a preset written into it; a preset alone is one of a reversal."""
    if preset is None:
        return defense
    text = defense or "reverse"
    return f"{text}{',' if ':' in text else ':'}preset={preset}"


def default_reversal(defense: str | None, preset: str | None, system: OpenedSystem) -> str:
    """The defense's text, or that of a preset, or of the run's own reversal."""
    return with_preset(defense, preset) or own_reversal(system)


def open_defense(text: str, system: OpenedSystem, table: Table, seed: int) -> nn.Module:
    """The defense of a text around a system, calibrated on training images without their labels.

    A gate is calibrated on what the run held out, if it held out anything; if not, a warning says what that means.
    Raises SpecError for a classifier that has no trunk to put a pretext task on, and what `make_defense` raises.
    """
    if not isinstance(system.network, Network):
        raise SpecError(
            f"{text.partition(':')[0]} needs the head of a pretext task, and {system.name} has none; train one on it, "
            f"unfool train --model {system.name} --features PATH --task contrast --trainable heads --out RUN, and give "
            "RUN beside --model and --features"
        )
    classes = {column: len(names) for column, names in table.classes.items()}
    if parse_settings(text)[0] == "gate":
        table = _fresh(system, table)
    return make_defense(text, system.network, classes, data=table, streams=Streams(seed).named("defense"))


def _fresh(system: OpenedSystem, table: Table) -> Table:
    """The images that a run held out, as its training cut them; all of them, with a warning, if it held out none."""
    config = system.config
    held_out = cut_held_out(config, table)[1] if config is not None else None
    if held_out is not None:
        return held_out
    warnings.warn(
        "the gate's threshold is set on images that the network may have been trained on, so that more fresh images "
        "than stated may trigger it; train with held_out for images that it has not seen",
        UnfoolWarning,
        stacklevel=3,
    )
    return table


def own_reversal(system: OpenedSystem) -> str:
    """The reversal along the pretext task that a run was trained on last; SpecError if it has none."""
    stages = system.config.stages if system.config is not None else ()
    pretext = [
        (name, item)
        for stage in stages
        for name, item in stage.tasks.items()
        if not make_task(item.task, item.settings).needs
    ]
    if not pretext:
        raise SpecError(
            f"{system.name} was trained on no pretext task, so there is no loss to reverse along; "
            "train it with --task contrast beside labels, or say which head to use with --defense"
        )
    head, item = pretext[-1]
    settings = {"task": item.task, "head": head, **item.settings}
    return "reverse:" + ",".join(f"{key}={value}" for key, value in settings.items())
