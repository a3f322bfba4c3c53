# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Linear heads of several stages trained side by side on cached features.

The gradient of cross-entropy by a linear head's logits is softmax minus the label, so no graph is built: a step is one
product forward and one back for each stage, and one update of all heads, whose weights lie in one vector.

Legend: N images, B of them in a batch, S stages, C classes, D numbers that a head reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unfool.core.errors import NonFiniteError
from unfool.core.progress import Progress, silent
from unfool.core.streams import Streams
from unfool.models.heads import build_head
from unfool.training.probing.features import Split
from unfool.training.probing.settings import ProbeSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeScores:
    """How a probe classifies a split: ``correct`` (N,) bool and cross-entropy ``losses`` (N,), both on the CPU."""

    correct: Tensor
    losses: Tensor

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.correct)

    @property
    def accuracy(self) -> float:
        """Share of images classified correctly."""
        return float(self.correct.double().mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(self.losses.double().mean())


class Heads:
    """One linear head for each stage, trained together; ``train_curve`` and ``test_curve`` have a row an epoch.

    A row holds an accuracy for each stage: in training over the epoch's batches, each before its step, in test
    after the epoch. The head of a stage does not depend on which others are trained beside it.
    """

    def __init__(self, stages: Sequence[str], train: Split, classes: int, settings: ProbeSettings, seed: int):
        self.stages, self.settings, self.classes = list(stages), settings, classes
        self.streams = Streams(seed).named("probe")
        inputs = [train.features[stage].shape[1] for stage in stages]
        sizes = [{"kind": "linear", "inputs": size, "outputs": classes} for size in inputs]
        fresh = [build_head(size, self.streams.named(s)).parameters() for s, size in zip(stages, sizes, strict=True)]
        weights, biases = zip(*([values.detach().flatten() for values in head] for head in fresh), strict=True)
        self.values = torch.cat([*weights, *biases]).to(train.labels.device)
        self.weights, self.biases = self._views(self.values, inputs)
        self.train_curve: list[list[float]] = []
        self.test_curve: list[list[float]] = []

    def _views(self, flat: Tensor, inputs: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """The weights of each stage, (C, D), and all biases, (S, C), as views of one vector."""
        parts = flat.split([*(self.classes * size for size in inputs), self.classes * len(inputs)])
        weights = [part.view(self.classes, size) for part, size in zip(parts, inputs, strict=False)]
        return weights, parts[-1].view(len(inputs), self.classes)

    @torch.no_grad()
    def learn(self, train: Split, test: Split, progress: Progress = silent) -> None:
        """Train from start to end: SGD with momentum, the rate divided by 10 every ``drop_every`` epochs.

        Raises NonFiniteError where the weights run away.
        """
        settings, device = self.settings, self.values.device
        features = [train.features[stage] for stage in self.stages]
        count, size = len(features), min(settings.batch_size, len(train.labels))
        # Every step writes into the same memory.
        inputs = [torch.empty(size, values.shape[1], device=device) for values in features]
        shares = torch.empty(count, self.classes, size, device=device)
        minus = torch.full((count, 1, size), -1 / size, device=device)
        right = torch.empty(len(train.labels) // size, count, 1, size, dtype=torch.bool, device=device)
        velocity = torch.zeros_like(self.values)
        velocities, bias_velocities = self._views(velocity, [values.shape[1] for values in features])
        for epoch in range(settings.epochs):
            rate = settings.learning_rate * 0.1 ** (epoch // settings.drop_every)
            order = torch.argsort(self.streams.named("order").at(epoch).bits(train.table.ids), stable=True).to(device)
            for rows, hits in zip(order.split(size), right, strict=False):
                own = train.labels.index_select(0, rows).expand(count, 1, size)
                for weights, values, taken, logits in zip(self.weights, features, inputs, shares, strict=True):
                    torch.index_select(values, 0, rows, out=taken)
                    torch.mm(weights, taken.T, out=logits)
                highest = shares.add_(self.biases[:, :, None]).amax(1, keepdim=True)
                torch.eq(shares.gather(1, own), highest, out=hits)
                shares.sub_(highest).exp_()
                shares.div_(shares.sum(1, keepdim=True).mul_(size)).scatter_add_(1, own, minus)
                # Backwards: the inputs that were read last are still in the cache.
                for number in reversed(range(count)):
                    velocities[number].addmm_(shares[number], inputs[number], beta=settings.momentum)
                bias_velocities.mul_(settings.momentum).add_(shares.sum(2))
                velocity.add_(self.values, alpha=settings.weight_decay)
                self.values.add_(velocity, alpha=-rate)
            if not math.isfinite(float(self.values.sum())):
                raise NonFiniteError(
                    f"the probe's weights are not finite after epoch {epoch + 1}; lower learning_rate, or standardise"
                )
            self.train_curve.append(right.double().mean((0, 2, 3)).tolist())
            self.test_curve.append([self._accuracy(test, stage) for stage in self.stages])
            progress(f"heads of seed {self.streams.seed}", epoch + 1, settings.epochs)

    def _logits(self, split: Split, stage: str) -> Tensor:
        """Logits of one stage's head, (C, N)."""
        number = self.stages.index(stage)
        return torch.mm(self.weights[number], split.features[stage].T).add_(self.biases[number, :, None])

    def _accuracy(self, split: Split, stage: str) -> float:
        """Share of a split whose own class has the highest logit; several times as fast as finding the highest."""
        logits = self._logits(split, stage)
        return float((logits.gather(0, split.labels[None]) == logits.amax(0)).double().mean())

    @torch.no_grad()
    def evaluate(self, split: Split, stage: str) -> ProbeScores:
        """How the head of a stage classifies every image of a split."""
        logits = self._logits(split, stage).T
        losses = F.cross_entropy(logits, split.labels, reduction="none")
        return ProbeScores(correct=(logits.argmax(1) == split.labels).cpu(), losses=losses.cpu())
