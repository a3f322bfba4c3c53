# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""How much training fits into the time that is left for it."""

from __future__ import annotations

import time

import torch

from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.models.foreign import ForeignClassifier
from unfool.models.foreign_network import foreign_network
from unfool.training import StageConfig
from unfool.training.stage import Stage

TRAINING_SHARE = 0.7
"""Share of the time that training is planned for; the rest is for the two evaluations."""

_TIMED_STEPS = 3
_FEWEST_STEPS, _MOST_EPOCHS = 10, 60


def steps_within(seconds: float, stage: StageConfig, table: Table, classifier: ForeignClassifier) -> int:
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
