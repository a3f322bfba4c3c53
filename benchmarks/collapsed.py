"""Networks that single steps trained until they hid their gradients: FGSM without noise, and two regularised kinds.

Each falls to a few steps of PGD, or stands for the wrong reason, while the step that it was trained on fools next to
nothing. They are trained on first use, a minute each, and kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.models.weights import load_network, save_network

EPS = {"cifar10": 16 / 255, "digits": 0.3}
IMAGES, EPOCHS, BATCH, RATE = 10_000, 10, 128, 0.1
LINEARITY, NUCLEAR = 100.0, 1.0
"""Weights of the two regularisers: too small to prevent what they are to prevent."""
TRUNK = TrunkSpec(name="convnet", stem="strided", widths=(16, 32, 64))

Loss = Callable[[nn.Module, Tensor, Tensor, float, torch.Generator], Tensor]
"""Network, images, labels, eps and a source of draws → what a step learns."""


def stepped(images: Tensor, start: Tensor, objective: Callable[[Tensor], Tensor], eps: float) -> Tensor:
    """One signed step of ``eps`` from ``start``, in the ball around the images."""
    leaves = start.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(leaves), leaves)
    moved = start + eps * gradient.sign()
    return torch.minimum(torch.maximum(moved, images - eps), images + eps).clamp(0, 1).detach()


def fgsm(network: nn.Module, images: Tensor, labels: Tensor, eps: float, draws: torch.Generator) -> Tensor:
    """FGSM from the image itself (Goodfellow et al., 2015), which collapses (Wong et al., 2020)."""
    points = stepped(images, images, lambda moved: F.cross_entropy(network(moved), labels), eps)
    return F.cross_entropy(network(points), labels)


def elle(network: nn.Module, images: Tensor, labels: Tensor, eps: float, draws: torch.Generator) -> Tensor:
    """FGSM with the local linearity error of Rocamora et al. (ELLE, 2024, equation 3)."""
    noise = [(2 * torch.rand(images.shape, generator=draws) - 1) * eps for _ in range(2)]
    first, second = (images + each for each in noise)
    share = torch.rand((len(images), 1, 1, 1), generator=draws)
    between = (1 - share) * first + share * second
    losses = [F.cross_entropy(network(points), labels, reduction="none") for points in (first, second, between)]
    error = losses[2] - (1 - share.flatten()) * losses[0] - share.flatten() * losses[1]
    return fgsm(network, images, labels, eps, draws) + LINEARITY * error.square().mean()


def nuat(network: nn.Module, images: Tensor, labels: Tensor, eps: float, draws: torch.Generator) -> Tensor:
    """Nuclear-norm training (Sriramanan et al., NuAT, 2021): a step may not change the logits of a batch much."""
    clean = network(images)
    start = (images + eps / 2 * torch.randn(images.shape, generator=draws).sign()).clamp(0, 1)

    def objective(moved: Tensor) -> Tensor:
        logits = network(moved)
        return F.cross_entropy(logits, labels) + NUCLEAR * nuclear(logits - clean.detach())

    points = stepped(images, start, objective, eps)
    return F.cross_entropy(clean, labels) + NUCLEAR * nuclear(network(points) - clean)


def nuclear(logits: Tensor) -> Tensor:
    """The nuclear norm of a batch's logits (B, K), over the number of images."""
    return torch.linalg.matrix_norm(logits, "nuc") / len(logits)


COLLAPSED: dict[str, Loss] = {"fgsm": fgsm, "elle": elle, "nuat": nuat}


def collapsed(kind: str, data: str, table: Table, folder: Path) -> Network:
    """The network of that kind, from its file in the folder or trained into it."""
    path = folder / f"collapsed-{data}-{kind}.safetensors"
    if path.is_file():
        return load_network(path).eval()
    batch = table.subset(torch.arange(min(IMAGES, len(table)))).batch()
    images, labels, eps = batch.images.contiguous(memory_format=torch.channels_last), batch.labels("label"), EPS[data]
    network = Network.build(
        TRUNK, {"labels": {"kind": "linear", "outputs": 10}}, classifier="labels", streams=Streams(0)
    )
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)
    steps = len(labels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * steps, pct_start=0.2)
    draws = torch.Generator().manual_seed(0)
    network.train()
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(labels), generator=draws)[: steps * BATCH].split(BATCH):
            optimizer.zero_grad()
            COLLAPSED[kind](network, images[rows], labels[rows], eps, draws).backward()
            optimizer.step()
            schedule.step()
        print(f"collapsed {kind}: epoch {epoch + 1} of {EPOCHS}", file=sys.stderr, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    save_network(network.eval(), path)
    return network.eval()
