"""What probing five stages costs over probing one: the last, which takes a whole pass of the trunk by itself.

    python benchmarks/probes.py [--json] [--images N] [--rounds N]

Ratios of CPU time on one thread, each the median over rounds; in a round both probe the same images in one process, and
the order turns from round to round. Trunks have fresh weights and images are random, as neither changes the work; as
many images are judged as are learned from.

* ``five_stages_over_one_cpu``: the probe of the noisy-rotation source: a VGG-16 on images of 64 pixels, linear heads
  trained for 120 epochs in batches of 64;
* ``small_five_stages_over_one_cpu``: a quarter-width VGG-16 on images of 32 pixels, whose pass costs a fiftieth, with
  heads trained for 20 epochs in batches of 64. No limit is set to it: 120 epochs would cost more than the pass itself;
* ``…_images``: the same ratios in images that went through the trunk, counted by the trunk itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.models.network import Network
from unfool.models.trunks import Trunk, TrunkSpec
from unfool.training import ProbeSettings, probe

FIVE = ("pool1", "pool2", "pool3", "pool4", "pool5")
LIMIT = 1.3


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One trunk, its images, and how its heads are trained; ``times`` the images of the command line."""

    width: float
    side: int
    epochs: int
    times: int = 1


SETTINGS = {"": Setting(width=1.0, side=64, epochs=120), "small_": Setting(width=0.25, side=32, epochs=20, times=8)}


def noise(count: int, side: int, name: str) -> Table:
    """So many random images with random labels of ten classes."""
    ids, streams = torch.arange(count), Streams(0).named(name)
    pixels = streams.integers(ids, 256, (3, side, side)).to(torch.uint8)
    columns, classes = {"label": streams.integers(ids, 10)}, {"label": [str(label) for label in range(10)]}
    return Table(DecodedPixels(pixels), ids, columns, classes, label_column="label", name=name, split="train")


class Counted:
    """Counts the images that go through any trunk."""

    def __init__(self) -> None:
        self.images = 0
        collect = Trunk.collect

        def counting(trunk: Trunk, images: torch.Tensor, stages: Any) -> Any:
            self.images += len(images)
            return collect(trunk, images, stages)

        Trunk.collect = counting  # type: ignore[method-assign]


def measure(setting: Setting, images: int, rounds: int, counted: Counted) -> tuple[float, float]:
    """The two ratios, of images and of CPU time."""
    network = Network.build(TrunkSpec(name="vgg16", width=setting.width), {})
    tables = {name: noise(images * setting.times, setting.side, name) for name in ("train", "test")}
    settings = ProbeSettings(epochs=setting.epochs, drop_every=max(1, setting.epochs // 4))
    chosen = {"five": FIVE, "one": FIVE[-1:]}
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    passed: dict[str, int] = {}
    for number in range(-1, rounds):
        for name in list(chosen)[:: 1 if number % 2 else -1]:
            before, started = counted.images, time.process_time()
            probe(network, **tables, stages=chosen[name], settings=settings)
            taken = time.process_time() - started
            passed[name] = counted.images - before
            # The first round warms up.
            if number >= 0:
                seconds[name].append(taken)
        print(f"\rwidth {setting.width:g}, round {max(number, 0)}/{rounds} ", end="", file=sys.stderr)
    print("\r".ljust(40), end="\r", file=sys.stderr)
    ratio = statistics.median(five / one for five, one in zip(seconds["five"], seconds["one"], strict=True))
    return passed["five"] / passed["one"], ratio


def main() -> int:
    parser = argparse.ArgumentParser(description="Benchmark of unfool's probes.")
    parser.add_argument("--json", action="store_true", help="print one JSON object of medians")
    parser.add_argument("--images", type=int, default=128, help="images to learn from, and as many to judge")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, at least 5")
    arguments = parser.parse_args()
    if arguments.rounds < 5 or arguments.images < 64:
        parser.error("give at least 5 rounds and 64 images")
    torch.set_num_threads(1)
    counted = Counted()
    figures: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        images, seconds = measure(setting, arguments.images, arguments.rounds, counted)
        figures[f"{name}five_stages_over_one_images"] = round(images, 4)
        figures[f"{name}five_stages_over_one_cpu"] = round(seconds, 4)
    figures |= {"images": arguments.images, "rounds": arguments.rounds}
    if arguments.json:
        print(json.dumps(figures))
        return 0
    print("Five stages probed over the last one alone, medians")
    for key in list(figures)[: 2 * len(SETTINGS)]:
        state = "" if key.startswith("small") else f"(≤ {LIMIT:.2f}: {'met' if figures[key] <= LIMIT else 'MISSED'})"
        print(f"  {key:<36}{figures[key]:8.3f}   {state}".rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
