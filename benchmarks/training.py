"""Training steps of unfool over those of a plain PyTorch loop: CPU time on one thread, interleaved step by step.

Both train a ResNet-18 with ImageNet stem on 32-pixel images, in bf16 and channels-last, with Adam: unfool its own trunk
by ``train``, the loop the usual one of `torch.nn` layers. It crops and flips batches that lie in memory, and attacks by
``torch.autograd.grad`` with frozen weights. It runs between unfool's steps, in a process that keeps freed memory.

    python benchmarks/training.py --json > results/benchmarks/training.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from networks import material
from torch import Tensor, nn

from unfool.data.table import Table
from unfool.training import RunConfig, StageConfig, TaskConfig, train

EPS, STEP, STEPS = 8 / 255, 2 / 255, 10
BATCH = 256
CLASSES = 10
WAYS = {"supervised": None, "adversarial": f"pgd-{STEPS}:step_size=2/255"}


class Block(nn.Module):
    """Two 3×3 convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(2))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.norms[0](self.first(features)), inplace=True)
        return F.relu(self.norms[1](self.second(inner)) + self.shortcut(features), inplace=True)


def plain_resnet18() -> nn.Module:
    """ResNet-18 with ImageNet stem (He et al., CVPR 2016, table 1)."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    blocks: list[nn.Module] = []
    inputs = 64
    for index, outputs in enumerate((64, 128, 256, 512)):
        blocks += [Block(inputs, outputs, 2 if index else 1), Block(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))


class PlainLoop:
    """Batches of images (B, 3, H, W) and labels (B,), a network and its optimizer; `step` takes one step."""

    def __init__(self, images: Tensor, labels: Tensor, attacked: bool):
        self.images, self.labels, self.attacked = images, labels, attacked
        self.network = plain_resnet18().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=3e-4, weight_decay=1e-4)
        self.generator = torch.Generator().manual_seed(0)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        images = ((images - 0.47) / 0.25).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.network(images)
        return F.cross_entropy(logits.float(), labels)

    def step(self) -> None:
        rows = torch.randint(len(self.images), (BATCH,), generator=self.generator)
        images, labels = self.cropped(self.images[rows]), self.labels[rows]
        if self.attacked:
            images = self.perturbed(images, labels)
        self.network.train()
        self.optimizer.zero_grad()
        self.loss(images, labels).backward()
        self.optimizer.step()

    def cropped(self, images: Tensor) -> Tensor:
        """One crop of the padded batch, and one flip."""
        side = images.shape[2]
        top, left, flip = torch.randint(9, (3,), generator=self.generator).tolist()
        images = F.pad(images, (4, 4, 4, 4))[:, :, top : top + side, left : left + side]
        return images.flip(3) if flip > 4 else images

    def perturbed(self, images: Tensor, labels: Tensor) -> Tensor:
        """PGD from a random start on running statistics."""
        self.network.eval().requires_grad_(False)
        low, high = (images - EPS).clamp(min=0.0), (images + EPS).clamp(max=1.0)
        points = images + EPS * (2 * torch.rand(images.shape, generator=self.generator) - 1)
        for _ in range(STEPS):
            points = points.clamp(low, high).requires_grad_()
            (gradient,) = torch.autograd.grad(self.loss(points, labels), points)
            points = points.detach() + STEP * gradient.sign()
        self.network.requires_grad_(True)
        return points.clamp(low, high)


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process for one run of ``work``."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compared(table: Table, perturb: str | None, rounds: int) -> tuple[float, float, float]:
    """Medians over rounds of (ratio, our seconds a step, theirs); the first three steps only warm up."""
    loop = PlainLoop(table.batch(torch.arange(len(table))).images, table.labels(), perturb is not None)
    pairs: list[tuple[float, float]] = []
    started = time.process_time()

    def after_step(what: str, step: int, steps: int, note: str = "") -> None:
        nonlocal started
        ours = time.process_time() - started
        pairs.append((ours, seconds(loop.step)))
        started = time.process_time()

    stage = StageConfig(
        tasks={"labels": TaskConfig(task="labels")},
        steps=rounds + 3,
        batch_size=BATCH,
        optimizer="adam",
        learning_rate=3e-4,
        weight_decay=1e-4,
        precision="bf16",
        perturb=perturb,
    )
    config = RunConfig(data=table.name, stages=(stage,), trunk="resnet18:stem=imagenet")
    with tempfile.TemporaryDirectory() as folder:
        train(config, table, Path(folder) / "run", progress=after_step)
    pairs = pairs[3:]
    return (
        statistics.median(a / b for a, b in pairs),
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Benchmark of unfool's training.")
    parser.add_argument("--json", action="store_true", help="print one JSON object of medians")
    parser.add_argument("--data-dir", default=None, help="directory with cifar10 in hub layout (else UNFOOL_DATA_DIR)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, at least 5")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rounds = max(5, arguments.rounds)
    given = material(arguments.data_dir, 1, {"robust": 2048}, {})
    table = given.training["robust"]
    figures: dict[str, object] = {"data": given.name, "rounds": rounds}
    for name, perturb in WAYS.items():
        ratio, ours, theirs = compared(table, perturb, rounds)
        figures |= {f"{name}_over_plain_loop": round(ratio, 3), f"{name}_seconds_a_step": round(ours, 3)}
        if not arguments.json:
            print(f"{name:<14}{ratio:8.3f}   ({1e3 * ours:.0f} ms over {1e3 * theirs:.0f} ms)")
    if arguments.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
