"""What a reversal costs, over the passes that it cannot do without and over a loop as the reference writes it.

    python benchmarks/reverse.py [--json] [--images N] [--steps N] [--rounds N]

Ratios of CPU time on one thread, each the median over rounds; in a round every variant in turn reverses the same images
in one process, and the order turns from round to round. The network is a ResNet-18 with CIFAR stem at half width and a
projection head, with fresh weights, as weights do not change the work; images are random.

* ``reverse_over_floor``: one reversal with the default bank of negatives, two views, over as many forward and
  input-backward passes of all views through the same fp32 network with frozen parameters (the floor);
* ``reverse_bf16_over_floor``: the same in bf16;
* ``reverse_over_reference``: a reversal with the reference's loss and in-batch negatives over a literal loop: each view
  augmented and passed through the network by a call of its own, parameters with gradients, NT-Xent gathered by
  booleans, the loss read out at every step. Both draw the same views, and ``same_pixels`` is the share of pixel values
  on which their results agree to 1e-5.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from torch import Tensor

from unfool.core.errors import UnfoolWarning
from unfool.core.streams import Streams
from unfool.data.augment import AUGMENTATIONS
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.defenses import make_defense
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec

TRUNK = {"name": "resnet18", "stem": "cifar", "width": 0.5}
HEADS = {"labels": {"kind": "linear", "outputs": 10}, "contrast": {"kind": "mlp", "hidden": 256, "outputs": 128}}
VIEWS, TEMPERATURE, STEP, EPS = 2, 0.2, 2 / 255, 16 / 255
LIMITS = {"reverse_over_floor": 1.08, "reverse_bf16_over_floor": 0.58, "reverse_over_reference": 0.70}

Variant = Callable[[Tensor], Tensor]


def noise(count: int, name: str) -> Table:
    """So many random images of CIFAR's size."""
    ids = torch.arange(count)
    pixels = (Streams(0).named(name).uniform(ids, (3, 32, 32)) * 255).to(torch.uint8)
    return Table(DecodedPixels(pixels), ids, {}, {}, label_column=None, name=name, split="train")


def gathered_loss(z_ND: Tensor, count: int) -> Tensor:
    """The first positive against everything else, by boolean gathers, averaged over all anchors."""
    z_ND = F.normalize(z_ND, dim=1)
    owners = torch.arange(len(z_ND) // count).repeat(count)
    same = (owners[:, None] == owners[None, :]).float()
    similarity = z_ND @ z_ND.T
    others = ~torch.eye(len(z_ND), dtype=torch.bool)
    same, similarity = same[others].view(len(z_ND), -1), similarity[others].view(len(z_ND), -1)
    positives = similarity[same.bool()].view(len(z_ND), -1)
    negatives = similarity[~same.bool()].view(len(z_ND), -1)
    logits = torch.cat([positives, negatives], dim=1) / TEMPERATURE
    return F.cross_entropy(logits, torch.zeros(len(z_ND), dtype=torch.int64))


def variants(network: Network, steps: int) -> dict[str, Variant]:
    """Every way of reversing that is measured: images → reversed images (the floor: nothing of use)."""
    table, ids_of = noise(512, "bank"), (lambda images: torch.zeros(len(images), dtype=torch.int64))
    settings = {"steps": steps, "views": VIEWS, "temperature": TEMPERATURE}
    mine: dict[str, Any] = {
        "reverse": make_defense("reverse:precision=fp32", network, {}, data=table, settings=settings),
        "bf16": make_defense("reverse:precision=bf16", network, {}, data=table, settings=settings),
    }
    with warnings.catch_warnings():
        # In-batch negatives are what is compared here.
        warnings.simplefilter("ignore", UnfoolWarning)
        mine["in_batch"] = make_defense(f"reverse:preset=mao2021,steps={steps},views={VIEWS}", network, {})
    threat = mine["in_batch"].threat

    def floor(images: Tensor) -> Tensor:
        network.requires_grad_(False)
        views = images.repeat(VIEWS, 1, 1, 1)
        for _ in range(steps):
            moving = views.detach().requires_grad_()
            torch.autograd.grad(network.heads["contrast"](network.features(moving)).sum(), moving)
        network.requires_grad_(True)
        return images

    def reference(images: Tensor) -> Tensor:
        streams, ids = Streams(0).named("reverse").at(0), ids_of(images)
        points = threat.sample(images, ids, streams.named("start").at(0))
        for step in range(steps):
            points = points.detach().requires_grad_()
            draws = streams.named("views").at(step)
            projected = []
            for view in range(VIEWS):
                shown = AUGMENTATIONS["mao2021"](points, ids, draws.named("view").at(view))
                projected.append(network.heads["contrast"](network.features(shown)))
            loss = gathered_loss(torch.cat(projected), VIEWS)
            network.zero_grad()
            loss.backward()
            loss.item()
            if points.grad is None:
                raise SystemExit("the reference loop lost its gradient")
            moved = points.detach() - STEP * points.grad.sign()
            points = (images + (moved - images).clamp(-EPS, EPS)).clamp(0, 1)
        return points

    reversals = {
        name: (lambda images, defense=defense: defense.purified_images(images)) for name, defense in mine.items()
    }
    reversals = {
        name: (lambda images, defense=defense: defense.purified_images(images)) for name, defense in mine.items()
    }
    return {"floor": floor, **reversals, "reference": reference}


def main() -> int:
    parser = argparse.ArgumentParser(description="Benchmark of unfool's reverse attack.")
    parser.add_argument("--json", action="store_true", help="print one JSON object of medians")
    parser.add_argument("--images", type=int, default=64, help="images of a batch")
    parser.add_argument("--steps", type=int, default=5, help="steps of a reversal")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, at least 5")
    arguments = parser.parse_args()
    if arguments.rounds < 5 or arguments.images < 2 or arguments.steps < 1:
        parser.error("give at least 5 rounds, 2 images and 1 step")
    torch.set_num_threads(1)
    network = Network.build(TrunkSpec.from_dict(TRUNK), HEADS, classifier="labels").eval()
    runs = variants(network, arguments.steps)
    batch = noise(arguments.images, "judged").batch().images
    results = {name: run(batch) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(arguments.rounds):
        order = list(runs)
        turn = round_number % len(order)
        for name in order[turn:] + order[:turn]:
            before = time.process_time()
            runs[name](batch)
            seconds[name].append(time.process_time() - before)
        print(f"\rround {round_number + 1}/{arguments.rounds} ", end="", file=sys.stderr)
    print("\r".ljust(40), end="\r", file=sys.stderr)

    def ratio(ours: str, theirs: str) -> float:
        return round(statistics.median(a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True)), 4)

    figures: dict[str, Any] = {
        "reverse_over_floor": ratio("reverse", "floor"),
        "reverse_bf16_over_floor": ratio("bf16", "floor"),
        "reverse_over_reference": ratio("in_batch", "reference"),
    }
    figures["same_pixels"] = round(float(((results["in_batch"] - results["reference"]).abs() < 1e-5).float().mean()), 5)
    figures |= {"images": arguments.images, "views": VIEWS, "steps": arguments.steps, "rounds": arguments.rounds}
    if arguments.json:
        print(json.dumps(figures))
        return 0
    print(f"Reversal of {arguments.images} images, {arguments.steps} steps × {VIEWS} views, CPU time, medians")
    for name, limit in LIMITS.items():
        state = "met" if figures[name] <= limit else "MISSED"
        print(f"  {name:<26}{figures[name]:8.3f}   (≤ {limit:.2f}: {state})")
    print(f"  pixels on which reversal and reference agree: {figures['same_pixels']:.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
