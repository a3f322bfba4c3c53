# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Features of a frozen trunk, computed in one pass for all stages and kept in memory.

Legend: N images, D numbers that a probe reads of a stage.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfool.core.borders.reading import is_file
from unfool.core.errors import DataError, NonFiniteError, SpecError
from unfool.core.progress import Progress, silent
from unfool.core.spec import unknown
from unfool.data.table import Table
from unfool.models.fast import fast_copy
from unfool.models.network import Network
from unfool.models.trunks import Trunk
from unfool.models.weights import load_tensors, save_tensors

_AT_ONCE = 256
"""Images at a time; no feature depends on it."""
_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Split:
    """One table as a probe sees it: ``features`` by stage, each float32 (N, D), and ``labels`` (N,) int64."""

    table: Table
    features: dict[str, Tensor]
    labels: Tensor
    earlier_seconds: float = 0.0
    """CPU seconds of other processes that computed features."""


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


def batches(count: int) -> list[slice]:
    """The rows of a table that go through the trunk together."""
    return [slice(start, min(start + _AT_ONCE, count)) for start in range(0, count, _AT_ONCE)]


def part_path(folder: Path, split: str, rows: slice) -> Path:
    """The file with the features of some rows of a split."""
    return folder / f"{split}-{rows.start:08}.safetensors"


class FeaturePass:
    """A frozen trunk that gives the features of its stages; ``widths`` are how many numbers each has."""

    def __init__(self, network: Network, stages: Sequence[str], *, precision: str, device: str):
        trunk = network.trunk
        self.sides = {stage: probed_side(trunk, stage) for stage in stages}
        self.widths = {
            stage: trunk.channels[stage] * (1 if stage == "last" else side**2) for stage, side in self.sides.items()
        }
        self._network, self._precision, self._device = network, precision, device

    @cached_property
    def _model(self) -> nn.Module:
        # A convolution of another library's may itself be a stage: nothing is folded into it.
        fold = type(self._network) is Network
        return fast_copy(self._network, fold=fold, dtype=self._precision).to(self._device)

    @torch.no_grad()
    def of(self, table: Table, rows: slice) -> dict[str, Tensor]:
        """The features of some rows by stage, each float32 (B, D); NonFiniteError for NaN or infinite ones."""
        images = table.batch(torch.arange(rows.start, rows.stop), self._device).images
        images = images.contiguous(memory_format=self._network.memory_format)
        values = self._model.features_at(images, set(self.sides))  # type: ignore[operator]
        features = {stage: pooled(values[stage], side).float() for stage, side in self.sides.items()}
        for stage, numbers in features.items():
            if not torch.isfinite(numbers.sum()):
                raise NonFiniteError(f"features of stage {stage!r} are not finite; check the network's weights")
        return features

    def store(self, table: Table, split: str, rows: slice, folder: Path) -> None:
        """Compute the features of some rows into a folder, for `cached` to read."""
        started = time.process_time()
        features = self.of(table, rows)
        save_tensors(part_path(folder, split, rows), features, {"cpu_seconds": time.process_time() - started})


def cached(
    network: Network,
    tables: Mapping[str, Table],
    stages: Sequence[str],
    *,
    column: str,
    precision: str = "fp32",
    memory: float,
    device: str = "cpu",
    parts: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Split]:
    """One pass of the frozen trunk over every table, in eval mode, with the features of all stages kept on ``device``.

    The network itself is not touched: a folded copy computes. What the folder ``parts`` holds of the features is read
    from there, as `FeaturePass.store` wrote it. Raises DataError for tables without images or with
    other classes than the first, SpecError for features that take more than ``memory`` GiB, NonFiniteError for
    features that are NaN or infinite.
    """
    passes = FeaturePass(network, stages, precision=precision, device=device)
    images = sum(len(table) for table in tables.values())
    needed = 4 * images * sum(passes.widths.values()) / _GIB
    if needed > memory:
        raise SpecError(
            f"features of {len(stages)} stages of {images} images take {needed:.3g} GiB, and {memory:g} are allowed; "
            "probe fewer stages or images (Table.fraction), or raise memory"
        )
    classes = next(iter(tables.values())).classes.get(column)
    splits: dict[str, Split] = {}
    done = 0
    for name, table in tables.items():
        labels = table.labels(column)
        if not len(table):
            raise DataError(f"the {name} table of {table.name} has no images; give a probe at least one")
        if table.classes[column] != classes:
            raise DataError(f"{table.name} {table.split} has other classes than the images trained on; give one set")
        features = {stage: torch.empty(len(table), width, device=device) for stage, width in passes.widths.items()}
        seconds = 0.0
        for rows in batches(len(table)):
            path = part_path(parts, name, rows) if parts is not None else None
            if path is not None and is_file(path):
                values, metadata = load_tensors(path)
                seconds += float(metadata["cpu_seconds"])
            else:
                values = passes.of(table, rows)
            for stage in stages:
                features[stage][rows] = values[stage].to(device)
            done += rows.stop - rows.start
            progress("features", done, images)
        splits[name] = Split(table=table, features=features, labels=labels.to(device), earlier_seconds=seconds)
    return splits
