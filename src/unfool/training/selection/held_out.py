"""The images that a run cuts from its training set: none of its stages learns from them."""

from __future__ import annotations

from unfool.core.errors import DataError, SpecError
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.training.config import RunConfig


def cut_held_out(config: RunConfig, table: Table) -> tuple[Table, Table | None]:
    """Divide a training set into the images that a run learns from and those that it holds out.

    The images are drawn from the run's seed, so that this gives the same ones as `train`.

    Args:
        config: The run's configuration: its seed, its fraction of the labels, and ``held_out`` of its stages.
        table: The whole training set.

    Returns:
        The images that the stages learn from, and those held out (None if no stage holds any out).

    Raises:
        SpecError: Stages hold out different numbers of images.
        DataError: No image would be left to learn from.

    Example:
        >>> from unfool.training import cut_held_out
        >>> stage = StageConfig(tasks={"labels": TaskConfig(task="labels")}, held_out=3)
        >>> config = RunConfig(data="toy", trunk="convnet", stages=(stage,))
        >>> rest, held_out = cut_held_out(config, as_table((torch.rand(8, 3, 4, 4), [0, 1] * 4)))
        >>> len(rest), len(held_out)
        (5, 3)
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
