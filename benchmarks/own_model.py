"""What `autoattack.py --model` measures: a classifier of one's own under both ensembles, in balls of several sizes.

Keys, for each size: ``standing`` and ``differing`` images, ``only_theirs`` (those that ours misses), time and images
over pyautoattack's, and ``bf16_only_standing``, how many our search in bf16 leaves standing that the one in fp32 fools.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.catalog import open_table
from unfool.models.foreign import load_classifier
from unfool.models.outside.preparation import Adaptation

CHUNKS = 2
Variant = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, int]]
"""Images, labels, ids → adversarial images, images through the network."""
Variants = Callable[[nn.Module, ThreatModel, Tensor], dict[str, Variant]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that name the classifier, its images and the balls."""
    group = parser.add_argument_group("a classifier of one's own, in place of the six pairs")
    group.add_argument("--model", default=None, help="FILE.py:NAME, or another source that unfool --model takes")
    group.add_argument("--weights", default=None, help="its checkpoint")
    group.add_argument("--mean", default=None, help="mean of the images that it was trained on, as unfool --mean")
    group.add_argument("--std", default=None, help="their standard deviation")
    group.add_argument("--data", default="cifar10", help="data set, whose test split is attacked (default: cifar10)")
    group.add_argument("--images", type=int, default=64, help="how many of them (default: 64)")
    group.add_argument("--norm", default="linf", choices=("linf", "l2", "l1"))
    group.add_argument("--eps", nargs="+", default=["8/255"], help="sizes of the ball (default: 8/255)")
    group.add_argument("--only-fp32", action="store_true", help="leave the bf16 search out")


def compare(
    arguments: argparse.Namespace, variants: Variants, margins: Callable[..., Tensor]
) -> tuple[dict[str, Any], bool]:
    """Every eps: verdicts that differ, images that stand, time and images over pyautoattack's; and whether an image
    stands in bf16 alone under any of them."""
    network = load_classifier(
        arguments.model, arguments.weights, adaptation=Adaptation(mean=arguments.mean, std=arguments.std)
    )
    network.eval().requires_grad_(False)
    table = open_table(arguments.data, "test", data_dir=arguments.data_dir)
    batch = table.sample(min(arguments.images, len(table)), Streams(0)).batch()
    labels = batch.labels(table.label_column)
    figures: dict[str, Any] = {"data": arguments.data, "images": len(labels), "model": arguments.model}
    stands = False
    for eps in arguments.eps:
        threat = ThreatModel.parse(f"{arguments.norm}:{eps}")
        runs = variants(network, threat, batch.images[:4])
        if arguments.only_fp32:
            del runs["bf16"]
        figures[str(threat)] = _measured(network, runs, batch.images, labels, batch.ids, margins)
        for name, value in figures[str(threat)].items():
            print(f"  {threat} {name:<20}{value}", file=sys.stderr, flush=True)
        stands |= figures[str(threat)].get("bf16_only_standing", 0) > 0
    return figures, stands


def _measured(
    network: nn.Module,
    runs: dict[str, Variant],
    images: Tensor,
    labels: Tensor,
    ids: Tensor,
    margins: Callable[..., Tensor],
) -> dict[str, Any]:
    """All variants on the same images, in chunks, in turn."""
    for run in runs.values():
        # A warm-up on images that are all misclassified costs next to nothing, and compiles the kernels.
        run(images[:8], (network(images[:8]).argmax(1) + 1) % 2, ids[:8])
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    passes = dict.fromkeys(runs, 0)
    margin: dict[str, list[Tensor]] = {name: [] for name in runs}
    size = -(-len(labels) // CHUNKS)
    for number, first in enumerate(range(0, len(labels), size)):
        part = slice(first, first + size)
        for name in list(runs) if number % 2 == 0 else list(reversed(runs)):
            started = time.process_time()
            adversarial, count = runs[name](images[part], labels[part], ids[part])
            seconds[name].append(time.process_time() - started)
            passes[name] += count
            margin[name].append(margins(network, adversarial, labels[part]))
        spent = ", ".join(f"{name} {values[-1]:.0f} s" for name, values in seconds.items())
        print(f"chunk {number + 1} of {CHUNKS}: {spent}", file=sys.stderr, flush=True)
    highest = {name: torch.cat(parts).tolist() for name, parts in margin.items()}
    ours = [name for name in runs if name != "theirs"]
    differing = [
        {"id": int(ids[row]), **{name: values[row] for name, values in highest.items()}}
        for row in range(len(labels))
        if len({values[row] > 0 for values in highest.values()}) > 1
    ]
    figures: dict[str, Any] = {
        "standing": {name: sum(value <= 0 for value in values) for name, values in highest.items()},
        "only_theirs": {name: sum(item["theirs"] > 0 >= item[name] for item in differing) for name in ours},
        "cpu_seconds": {name: round(sum(values), 1) for name, values in seconds.items()},
        "time_ratio": {
            name: round(statistics.median(a / b for a, b in zip(seconds[name], seconds["theirs"], strict=True)), 3)
            for name in ours
        },
        "image_ratio": {name: round(passes[name] / passes["theirs"], 3) for name in ours},
        "differing": differing,
    }
    if "bf16" in runs:
        figures["bf16_only_standing"] = sum(item["fp32"] > 0 >= item["bf16"] for item in differing)
    return figures
