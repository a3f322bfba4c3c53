# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportMissingTypeStubs=false, reportUnnecessaryIsInstance=false
"""Probes: how well the classes can be read, linearly or from neighbours, at each stage of a frozen trunk."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from unfool.core.errors import SpecError
from unfool.core.parallel.memory import keep_freed_memory
from unfool.core.progress import Progress, silent
from unfool.data.as_table import TableLike, as_table
from unfool.data.table import Table
from unfool.models.foreign import ForeignClassifier
from unfool.models.foreign_network import probed_network
from unfool.models.heads import Head, build_head
from unfool.models.network import Network
from unfool.training.probing.features import Split, cached, probed_stages
from unfool.training.probing.heads import Heads
from unfool.training.probing.neighbours import nearest_classes
from unfool.training.probing.result import ProbeResult, StageProbe
from unfool.training.probing.settings import ProbeSettings


@keep_freed_memory()
def probe(
    network: Network | ForeignClassifier,
    train: TableLike,
    test: TableLike,
    *,
    held_out: TableLike | None = None,
    stages: Sequence[str] | None = None,
    settings: ProbeSettings | None = None,
    column: str | None = None,
    device: str = "cpu",
    parts: Path | None = None,
    progress: Progress = silent,
) -> ProbeResult:
    """Train linear heads on stages of a frozen trunk.

    All images go through the trunk once, whatever the number of stages and seeds. Features of a stage are averaged to
    its published side (`Trunk.probe_sizes`), or over the whole image where there is none. The network stays as it is.

    Args:
        network: The network whose trunk is probed, or a classifier of another library, as `adapt` wraps it.
        train: The images that the heads learn from; a `Table`, or what `as_table` makes one of.
        test: The images that the heads are evaluated on.
        held_out: Further images to evaluate on, from which a stage may be chosen.
        stages: The stages to probe; of a classifier of another library, paths of its submodules. Default: the
            published ones, else all; the features that `adapt` was told.
        settings: How the heads are trained. Default: ``ProbeSettings()``.
        column: The column of the labels. Default: the first one of ``train``.
        device: A device of torch, such as "cpu" or "cuda".
        parts: A folder of features that several processes have computed, for the same images and network; what it
            lacks is computed here.
        progress: Called as features are computed and heads are trained.

    Returns:
        The trained heads and how they classify each split.

    Raises:
        SpecError: Not a `Network`, an unknown stage, or features beyond ``settings.memory``.
        DataError: Tables that are empty or have different classes.
        NonFiniteError: Features or heads that are not finite.

    Example:
        >>> network = Network.build(TrunkSpec(name="convnet", widths=(4, 8, 8)), {})
        >>> images, labels = torch.rand(32, 3, 16, 16), [0, 1] * 16
        >>> settings = ProbeSettings(epochs=2, batch_size=8)
        >>> result = probe(network, (images, labels), (images[:8], labels[:8]), stages=["block2"], settings=settings)
        >>> result.of("block2").test.count
        8
        >>> result.classifier("block2")(images).shape
        torch.Size([32, 2])
    """
    started = time.process_time()
    data = {"train": train, "test": test} | ({"held_out": held_out} if held_out is not None else {})
    tables = {name: as_table(item, split=name) for name, item in data.items()}
    settings = settings or ProbeSettings()
    network, chosen = with_stages(network, tables["train"], stages)
    column = column or tables["train"].label_column or ""
    splits = cached(
        network,
        tables,
        chosen,
        column=column,
        precision=settings.precision,
        memory=settings.memory,
        device=device,
        parts=parts,
        progress=progress,
    )
    classes = len(tables["train"].classes[column])
    neighbours = {stage: _by_neighbours(splits, stage, settings.neighbours, classes) for stage in chosen}
    scales = {stage: _standardised(splits, stage) for stage in chosen} if settings.standardise else {}
    probes: dict[tuple[str, int], StageProbe] = {}
    for seed in settings.seeds:
        heads = Heads(chosen, splits["train"], classes, settings, seed)
        heads.learn(splits["train"], splits["test"], progress)
        for number, stage in enumerate(chosen):
            probes[stage, seed] = StageProbe(
                stage=stage,
                seed=seed,
                head=_folded(heads.weights[number], heads.biases[number], scales.get(stage)),
                train_curve=[row[number] for row in heads.train_curve],
                test_curve=[row[number] for row in heads.test_curve],
                scores={name: heads.evaluate(split, stage) for name, split in splits.items()},
            )
    mean, std = (buffer.flatten().tolist() for buffer in (network.mean, network.std))
    return ProbeResult(
        stages=tuple(chosen),
        settings=settings,
        column=column,
        tables=tables,
        probes=probes,
        neighbours=neighbours if settings.neighbours else {},
        cpu_seconds=time.process_time() - started + sum(split.earlier_seconds for split in splits.values()),
        model_images=sum(len(table) for table in tables.values()),
        network=Network(copy.deepcopy(network.trunk), mean, std).to(device).eval().requires_grad_(False),
    )


def with_stages(
    network: Network | ForeignClassifier, table: Table, stages: Sequence[str] | None
) -> tuple[Network, list[str]]:
    """What is probed as a network with named stages, and those to probe; SpecError for one without, and unknown ones.

    ``table`` has images that a classifier of another library is looked at with.
    """
    if isinstance(network, ForeignClassifier):
        few = table.batch(torch.arange(min(2, len(table)))).images
        if stages is None and network.feature_path is not None:
            stages = [network.feature_path]
        network = probed_network(network, few, stages)
    if not isinstance(network, Network):
        raise SpecError(
            f"a {type(network).__name__} has no named stages to probe; give adapt(module, features='module.path')"
        )
    return network, probed_stages(network.trunk, stages)


def _by_neighbours(splits: dict[str, Split], stage: str, neighbours: int, classes: int) -> Tensor:
    """Whether the nearest-neighbour probe classifies each test image correctly, (N,) bool."""
    if not neighbours:
        return torch.empty(0, dtype=torch.bool)
    train, test = splits["train"], splits["test"]
    predicted = nearest_classes(train.features[stage], train.labels, test.features[stage], neighbours, classes)
    return (predicted == test.labels).cpu()


def _standardised(splits: dict[str, Split], stage: str) -> tuple[Tensor, Tensor]:
    """Bring a stage's features to mean 0 and deviation 1 over the training images, in place; both, as they were."""
    features = splits["train"].features[stage]
    mean, deviation = features.mean(0), features.std(0, correction=0)
    # A feature that never changes, but for rounding, holds no information, and stays near 0.
    deviation = torch.where(deviation > 1e-5 * mean.abs(), deviation, 1)
    for split in splits.values():
        split.features[stage].sub_(mean).div_(deviation)
    return mean, deviation


def _folded(weight: Tensor, bias: Tensor, scale: tuple[Tensor, Tensor] | None) -> Head:
    """A head that reads features as they are, and gives the logits of one that was trained on standardised ones."""
    if scale is not None:
        mean, deviation = scale
        weight = weight / deviation
        bias = bias - weight @ mean
    head = build_head({"kind": "linear", "inputs": weight.shape[1], "outputs": weight.shape[0]}).to(weight.device)
    head.load_state_dict({"0.weight": weight, "0.bias": bias})
    return head.eval()
