# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Features of a frozen trunk, computed in one pass for all stages and kept in memory.

Legend: N images, D numbers that a probe reads of a stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfool.core.errors import DataError, NonFiniteError, SpecError
from unfool.core.progress import Progress, silent
from unfool.core.spec import unknown
from unfool.data.table import Table
from unfool.models.fast import fast_copy
from unfool.models.network import Network
from unfool.models.trunks import Trunk

_AT_ONCE = 256
"""Images at a time; no feature depends on it."""
_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Split:
    """One table as a probe sees it: ``features`` by stage, each float32 (N, D), and ``labels`` (N,) int64."""

    table: Table
    features: dict[str, Tensor]
    labels: Tensor


def probed_side(trunk: Trunk, stage: str) -> int:
    """Side h = w to which a stage is averaged before it is probed: the published one, else 1."""
    return trunk.probe_sizes.get(stage, 1)


def pooled(features: Tensor, side: int) -> Tensor:
    """Features (N, channels, h, w) averaged to (N, channels · side²); those of "last" (N, D) as they are."""
    return features if features.ndim == 2 else F.adaptive_avg_pool2d(features, side).flatten(1)


def probed_stages(trunk: Trunk, stages: Sequence[str] | None) -> list[str]:
    """The stages to probe: those given, else those that were published, else all; SpecError for unknown ones."""
    chosen = list(stages) if stages is not None else list(trunk.probe_sizes or trunk.stages)
    for stage in chosen:
        if stage not in trunk.channels:
            raise unknown(f"stage of trunk {trunk.spec.name!r}", str(stage)[:80], trunk.stages)
    if not chosen or len(set(chosen)) != len(chosen):
        raise SpecError(f"stages {chosen} are not allowed; give each stage once, one or more")
    return chosen


def cached(
    network: Network,
    tables: Mapping[str, Table],
    stages: Sequence[str],
    *,
    column: str,
    precision: str = "fp32",
    memory: float,
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, Split]:
    """One pass of the frozen trunk over every table, in eval mode, with the features of all stages kept on ``device``.

    The network itself is not touched: a folded copy computes. Raises DataError for tables without images or with
    other classes than the first, SpecError for features that take more than ``memory`` GiB, NonFiniteError for
    features that are NaN or infinite.
    """
    trunk = network.trunk
    sides = {stage: probed_side(trunk, stage) for stage in stages}
    widths = {stage: trunk.channels[stage] * (1 if stage == "last" else side**2) for stage, side in sides.items()}
    images = sum(len(table) for table in tables.values())
    needed = 4 * images * sum(widths.values()) / _GIB
    if needed > memory:
        raise SpecError(
            f"features of {len(stages)} stages of {images} images take {needed:.3g} GiB, and {memory:g} are allowed; "
            "probe fewer stages or images (Table.fraction), or raise memory"
        )
    classes = next(iter(tables.values())).classes.get(column)
    # A convolution of another library's may itself be a stage: nothing is folded into it.
    model = fast_copy(network, fold=type(network) is Network, dtype=precision).to(device)
    splits: dict[str, Split] = {}
    done = 0
    for name, table in tables.items():
        labels = table.labels(column)
        if not len(table):
            raise DataError(f"the {name} table of {table.name} has no images; give a probe at least one")
        if table.classes[column] != classes:
            raise DataError(f"{table.name} {table.split} has other classes than the images trained on; give one set")
        features = {stage: torch.empty(len(table), width, device=device) for stage, width in widths.items()}
        for rows in torch.arange(len(table)).split(_AT_ONCE):
            _fill(model, table, rows, features, sides)
            done += len(rows)
            progress("features", done, images)
        splits[name] = Split(table=table, features=features, labels=labels.to(device))
    return splits


@torch.no_grad()
def _fill(
    model: nn.Module, table: Table, rows: Tensor, features: Mapping[str, Tensor], sides: Mapping[str, int]
) -> None:
    """Write the features of some rows (consecutive numbers) into their places."""
    device = next(iter(features.values())).device
    images = table.batch(rows, device).images.contiguous(memory_format=torch.channels_last)
    filled = slice(int(rows[0]), int(rows[-1]) + 1)
    for stage, values in model.features_at(images, set(sides)).items():  # type: ignore[operator]
        features[stage][filled] = pooled(values, sides[stage])
        if not torch.isfinite(features[stage][filled].sum()):
            raise NonFiniteError(f"features of stage {stage!r} are not finite; check the network's weights")
