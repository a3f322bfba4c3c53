"""Probes: how well the classes can be read, linearly or from neighbours, at each stage of a frozen trunk."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unfool.core.errors import SpecError
from unfool.core.progress import Progress, silent
from unfool.core.spec import unknown
from unfool.data.table import Table
from unfool.models.heads import Head, build_head
from unfool.models.network import Network
from unfool.training.probing.features import Split, cached, pooled, probed_side, probed_stages
from unfool.training.probing.heads import Heads, Judged
from unfool.training.probing.neighbours import nearest_classes
from unfool.training.probing.settings import ProbeSettings


class StageClassifier(nn.Module):
    """Images (B, C, H, W) in [0,1] → logits of a linear head on one stage, averaged to ``side`` × ``side``."""

    def __init__(self, network: Network, stage: str, head: Head):
        super().__init__()
        self.stage = stage
        self.side = probed_side(network.trunk, stage)
        self.network = network
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(pooled(self.network.features(images, self.stage), self.side))


@dataclass(frozen=True, kw_only=True, eq=False)
class StageProbe:
    """The linear probe of one stage and seed: accuracies by epoch, and what it makes of each split in the end.

    ``train_curve`` is the accuracy on an epoch's batches, each judged before its step, ``test_curve`` that after the
    epoch; ``judged`` are the splits by name, "train" and "test", and "held_out" if there was one.
    """

    stage: str
    seed: int
    head: Head
    train_curve: list[float]
    test_curve: list[float]
    judged: dict[str, Judged]

    @property
    def train(self) -> Judged:
        """The training images, all judged after the last epoch."""
        return self.judged["train"]

    @property
    def test(self) -> Judged:
        """The test images."""
        return self.judged["test"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeResult:
    """What the probes found, and what they cost all together: CPU seconds, and images that went through the trunk.

    ``neighbours`` holds by stage whether the nearest-neighbour probe is right on each test image, (N,) bool.
    """

    stages: tuple[str, ...]
    settings: ProbeSettings
    column: str
    tables: dict[str, Table]
    probes: dict[tuple[str, int], StageProbe]
    neighbours: dict[str, Tensor]
    cpu_seconds: float
    model_images: int
    _network: Network = field(repr=False)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the probes."""
        return self.settings.seeds

    def of(self, stage: str, seed: int | None = None) -> StageProbe:
        """The probe of a stage (and of a seed, default: the first); SpecError for one that was not made."""
        if stage not in self.stages:
            raise unknown("probed stage", stage, self.stages)
        seed = self.seeds[0] if seed is None else seed
        if seed not in self.seeds:
            raise SpecError(f"no probe has seed {seed}; allowed: {', '.join(map(str, self.seeds))}")
        return self.probes[stage, seed]

    def classifier(self, stage: str, seed: int | None = None) -> StageClassifier:
        """Trunk and probe as one classifier, frozen and in eval mode, to be attacked like any other; raises as `of`."""
        made = StageClassifier(self._network, stage, copy.deepcopy(self.of(stage, seed).head))
        return made.eval().requires_grad_(False)


def probe(
    network: Network,
    train: Table,
    test: Table,
    *,
    held_out: Table | None = None,
    stages: Sequence[str] | None = None,
    settings: ProbeSettings | None = None,
    column: str | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> ProbeResult:
    """Train linear heads on stages of a frozen trunk, and judge them on ``test`` (and ``held_out``, to choose by).

    Each stage is averaged to its published side (`Trunk.probe_sizes`; globally where there is none). All images go
    through the trunk once, whatever the number of stages and seeds; ``stages`` defaults to the published ones, else to
    all. ``column`` names the labels (default: the primary one). The network is left as it is. Raises SpecError for
    anything but a Network, for unknown stages and for features beyond ``settings.memory``, DataError for tables that
    do not fit together, NonFiniteError for features or heads that are not finite.
    """
    started = time.process_time()
    if not isinstance(network, Network):
        raise SpecError(f"a {type(network).__name__} has no named stages to probe; give a network of unfool's own")
    settings = settings or ProbeSettings()
    chosen = probed_stages(network.trunk, stages)
    tables = {"train": train, "test": test} | ({"held_out": held_out} if held_out is not None else {})
    column = column or train.label_column or ""
    splits = cached(
        network,
        tables,
        chosen,
        column=column,
        precision=settings.precision,
        memory=settings.memory,
        device=device,
        progress=progress,
    )
    classes = len(train.classes[column])
    neighbours = {stage: _by_neighbours(splits, stage, settings.neighbours, classes) for stage in chosen}
    moved = {stage: _standardised(splits, stage) for stage in chosen} if settings.standardise else {}
    probes: dict[tuple[str, int], StageProbe] = {}
    for seed in settings.seeds:
        heads = Heads(chosen, splits["train"], classes, settings, seed)
        heads.learn(splits["train"], splits["test"], progress)
        for place, stage in enumerate(chosen):
            probes[stage, seed] = StageProbe(
                stage=stage,
                seed=seed,
                head=_folded(heads.weights[place], heads.biases[place], moved.get(stage)),
                train_curve=[row[place] for row in heads.train_curve],
                test_curve=[row[place] for row in heads.test_curve],
                judged={name: heads.judge(split, stage) for name, split in splits.items()},
            )
    mean, std = (buffer.flatten().tolist() for buffer in (network.mean, network.std))
    return ProbeResult(
        stages=tuple(chosen),
        settings=settings,
        column=column,
        tables=tables,
        probes=probes,
        neighbours=neighbours if settings.neighbours else {},
        cpu_seconds=time.process_time() - started,
        model_images=sum(len(table) for table in tables.values()),
        _network=Network(copy.deepcopy(network.trunk), mean, std).to(device).eval().requires_grad_(False),
    )


def _by_neighbours(splits: dict[str, Split], stage: str, neighbours: int, classes: int) -> Tensor:
    """Whether the neighbours are right on each test image, (N,) bool."""
    if not neighbours:
        return torch.empty(0, dtype=torch.bool)
    train, test = splits["train"], splits["test"]
    found = nearest_classes(train.features[stage], train.labels, test.features[stage], neighbours, classes)
    return (found == test.labels).cpu()


def _standardised(splits: dict[str, Split], stage: str) -> tuple[Tensor, Tensor]:
    """Bring a stage's features to mean 0 and deviation 1 over the training images, in place; both, as they were."""
    features = splits["train"].features[stage]
    mean, deviation = features.mean(0), features.std(0, correction=0)
    # A feature that never changes, but for rounding, tells nothing, and stays near 0.
    deviation = torch.where(deviation > 1e-5 * mean.abs(), deviation, 1)
    for split in splits.values():
        split.features[stage].sub_(mean).div_(deviation)
    return mean, deviation


def _folded(weight: Tensor, bias: Tensor, moved: tuple[Tensor, Tensor] | None) -> Head:
    """A head that reads features as they are, and gives the logits of one that was trained on standardised ones."""
    if moved is not None:
        mean, deviation = moved
        weight = weight / deviation
        bias = bias - weight @ mean
    head = build_head({"kind": "linear", "inputs": weight.shape[1], "outputs": weight.shape[0]}).to(weight.device)
    head.load_state_dict({"0.weight": weight, "0.bias": bias})
    return head.eval()
