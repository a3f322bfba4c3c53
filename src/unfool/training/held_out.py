"""The images that a run cuts from its training set: none of its stages learns from them."""

from __future__ import annotations

from unfool.core.errors import DataError, SpecError
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.training.config import RunConfig


def cut_held_out(config: RunConfig, table: Table) -> tuple[Table, Table | None]:
    """The images that a run's stages learn from, and those held out (None if no stage holds any out).

    ``table`` is the run's whole training set; its fraction of the labels is drawn from what is left of it. Raises
    SpecError for stages that hold out different numbers, DataError for as many images as there are.
    """
    count = max(stage.held_out for stage in config.stages)
    different = {stage.held_out for stage in config.stages} - {0, count}
    if different:
        raise SpecError(f"stages hold out {count} and {different.pop()} images; give one number for the run")
    if count >= len(table):
        raise DataError(
            f"held_out={count} leaves none of the {len(table)} images of {table.name} to train on; hold out fewer"
        )
    streams = Streams(config.seed)
    rest, held_out = table.cut(count, streams.named("held out")) if count else (table, None)
    return rest if config.fraction == 1.0 else rest.fraction(config.fraction, streams), held_out
