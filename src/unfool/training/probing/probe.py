# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportMissingTypeStubs=false, reportUnnecessaryIsInstance=false
"""Probes: how well the classes can be read, linearly or from neighbours, at each stage of a frozen trunk."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from unfool.core.errors import SpecError
from unfool.core.parallel.memory import keep_freed_memory
from unfool.core.progress import Progress, silent
from unfool.core.spec import unknown
from unfool.data.as_table import TableLike, as_table
from unfool.data.table import Table
from unfool.models.foreign import ForeignClassifier
from unfool.models.foreign_network import probed_network
from unfool.models.heads import Head, build_head
from unfool.models.network import Network
from unfool.training.probing.features import Split, cached, pooled, probed_side, probed_stages
from unfool.training.probing.heads import Heads, ProbeScores
from unfool.training.probing.neighbours import nearest_classes
from unfool.training.probing.settings import ProbeSettings

if TYPE_CHECKING:
    from pandas import DataFrame


class StageClassifier(nn.Module):
    """A classifier made of a trunk up to one stage and a linear head: images (B, C, H, W) in [0,1] → logits (B, K).

    Args:
        network: The network whose trunk gives the features.
        stage: The stage of the trunk that the head reads, averaged to its published side or to a single value.
        head: The trained head.

    Raises:
        SpecError: The trunk has no such stage.

    Example:
        >>> network = Network.build(TrunkSpec(name="convnet", widths=(4, 8, 8)), {})
        >>> images, labels = torch.rand(32, 3, 16, 16), [0, 1] * 16
        >>> settings = ProbeSettings(epochs=1, batch_size=8)
        >>> result = probe(network, (images, labels), (images, labels), stages=["block1"], settings=settings)
        >>> result.classifier("block1")(images).shape
        torch.Size([32, 2])
    """

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
    """The linear probe of one stage and seed.

    Args:
        stage: The probed stage of the trunk.
        seed: The seed of the head's initial weights and of the order of images.
        head: The trained head, which reads features as they are.
        train_curve: Accuracy by epoch on the epoch's batches, each before its step.
        test_curve: Accuracy by epoch on the test images, after the epoch.
        scores: How the trained head classifies each split: "train", "test", and "held_out" if there is one.

    Example:
        >>> network = Network.build(TrunkSpec(name="convnet", widths=(4, 8, 8)), {})
        >>> images, labels = torch.rand(32, 3, 16, 16), [0, 1] * 16
        >>> settings = ProbeSettings(epochs=3, batch_size=8)
        >>> result = probe(network, (images, labels), (images, labels), stages=["block1"], settings=settings)
        >>> trained = result.of("block1")
        >>> len(trained.test_curve), trained.test.count
        (3, 32)
    """

    stage: str
    seed: int
    head: Head
    train_curve: list[float]
    test_curve: list[float]
    scores: dict[str, ProbeScores]

    def __repr__(self) -> str:
        return f"StageProbe({self.stage}, seed {self.seed}: {self.test.accuracy:.1%} of {self.test.count} test images)"

    @property
    def train(self) -> ProbeScores:
        """The training images, all classified after the last epoch."""
        return self.scores["train"]

    @property
    def test(self) -> ProbeScores:
        """The test images."""
        return self.scores["test"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeResult:
    """Trained probes of several stages and seeds, as `probe` returns them.

    Args:
        stages: The probed stages.
        settings: How the probes were trained.
        column: The column of the labels.
        tables: The images by split: "train", "test", and "held_out" if there is one.
        probes: The probes by stage and seed.
        neighbours: By stage, whether the nearest-neighbour probe classifies each test image correctly, (N,) bool.
        cpu_seconds: CPU time of all probes together.
        model_images: Images that went through the trunk.
        network: The probed network.

    Example:
        >>> network = Network.build(TrunkSpec(name="convnet", widths=(4, 8, 8)), {})
        >>> images, labels = torch.rand(32, 3, 16, 16), [0, 1] * 16
        >>> settings = ProbeSettings(epochs=1, batch_size=8, seeds=(0, 1))
        >>> result = probe(network, (images, labels), (images, labels), stages=["block1", "block2"], settings=settings)
        >>> len(result.to_frame())  # two stages, two seeds, training and test images
        8
        >>> result.best_stage("test") in result.stages
        True
    """

    stages: tuple[str, ...]
    settings: ProbeSettings
    column: str
    tables: dict[str, Table]
    probes: dict[tuple[str, int], StageProbe]
    neighbours: dict[str, Tensor]
    cpu_seconds: float
    model_images: int
    network: Network

    def __repr__(self) -> str:
        return f"ProbeResult({len(self.tables['test'])} test images; {', '.join(map(repr, self.probes.values()))})"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the probes."""
        return self.settings.seeds

    def of(self, stage: str, seed: int | None = None) -> StageProbe:
        """The probe of a stage and of a seed (default: the first); SpecError for one that was not trained."""
        if stage not in self.stages:
            raise unknown("probed stage", stage, self.stages)
        seed = self.seeds[0] if seed is None else seed
        if seed not in self.seeds:
            raise SpecError(f"no probe has seed {seed}; allowed: {', '.join(map(str, self.seeds))}")
        return self.probes[stage, seed]

    def best_stage(self, split: str = "held_out") -> str:
        """The stage whose probes, in the mean of the seeds, are best on a split."""
        probes = {stage: [self.of(stage, seed) for seed in self.seeds] for stage in self.stages}
        return max(probes, key=lambda stage: sum(probe.scores[split].accuracy for probe in probes[stage]))

    def curve(self, stage: str, split: str) -> list[float]:
        """Accuracy on "train" or "test" after each epoch, the mean of the seeds."""
        curves = [getattr(self.of(stage, seed), f"{split}_curve") for seed in self.seeds]
        return [round(float(share), 6) for share in np.mean(curves, axis=0)]

    def classifier(self, stage: str, seed: int | None = None) -> StageClassifier:
        """Trunk and probe as one classifier, frozen and in eval mode, to be attacked like any other; raises as `of`."""
        classifier = StageClassifier(self.network, stage, copy.deepcopy(self.of(stage, seed).head))
        return classifier.eval().requires_grad_(False)

    def to_frame(self) -> DataFrame:
        """The linear probes as a pandas table: a row for each stage, seed and split."""
        from pandas import DataFrame

        rows = [
            {"stage": item.stage, "seed": item.seed, "split": split}
            | {"accuracy": scores.accuracy, "loss": scores.loss, "n": scores.count}
            for item in self.probes.values()
            for split, scores in item.scores.items()
        ]
        return DataFrame(rows)


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
    if isinstance(network, ForeignClassifier):
        few = tables["train"].batch(torch.arange(min(2, len(tables["train"])))).images
        if stages is None and network.feature_path is not None:
            stages = [network.feature_path]
        network = probed_network(network, few, stages)
    if not isinstance(network, Network):
        raise SpecError(
            f"a {type(network).__name__} has no named stages to probe; give adapt(module, features='module.path')"
        )
    settings = settings or ProbeSettings()
    chosen = probed_stages(network.trunk, stages)
    column = column or tables["train"].label_column or ""
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
        cpu_seconds=time.process_time() - started,
        model_images=sum(len(table) for table in tables.values()),
        network=Network(copy.deepcopy(network.trunk), mean, std).to(device).eval().requires_grad_(False),
    )


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
