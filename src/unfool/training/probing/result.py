# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportMissingTypeStubs=false, reportUnnecessaryIsInstance=false
"""What probing gives: a trained head for each stage and seed, their accuracies, and classifiers made of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.data.table import Table
from unfool.models.heads import Head
from unfool.models.network import Network
from unfool.training.probing.features import pooled, probed_side
from unfool.training.probing.heads import ProbeScores
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
