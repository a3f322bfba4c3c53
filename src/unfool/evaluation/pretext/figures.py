"""What a network learnt of its pretext tasks, in one JSON: how well each is done, and how regions are filled."""

from __future__ import annotations

from collections.abc import Mapping

from unfool.core.files import JsonObject
from unfool.data.table import Table
from unfool.evaluation.pretext.inpainting import filling_qualities
from unfool.evaluation.pretext.puzzles import task_qualities
from unfool.models.network import Network
from unfool.tasks import Task


def pretext_figures(
    network: Network, tasks: Mapping[str, Task], decoders: Mapping[str, Task], table: Table
) -> JsonObject:
    """Measure tasks that are bound to a network on a table of images, as JSON takes it.

    ``tasks`` are those of `task_qualities` by name, ``fillings`` the `filling_qualities` of each inpainting task of
    ``decoders``, part by part of the table.
    """
    qualities = task_qualities(network, tasks, table)
    fillings = {loss: filling_qualities(network, task, table) for loss, task in decoders.items()}
    return {
        "tasks": {name: quality.to_json() for name, quality in qualities.items()},
        "fillings": {loss: [part.to_json() for part in parts] for loss, parts in fillings.items()},
    }
