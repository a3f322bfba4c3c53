"""How much memory an evaluation takes, its adversarial sets included, when the images are many and large.

    python benchmarks/scale_memory.py [--images 20000] [--side 224] [--workers 1] [--attack pgd-1] [--json]

A process of its own evaluates a small network with random weights, clean and under one attack, on images that are drawn
by their number and stored nowhere; the attack's images, 12 GiB as float32 at full size, lie in shards in a temporary
folder (TMPDIR) that is removed in the end. Measured is the peak of resident memory of that process, and of the largest
of its workers. ``bound`` is what it must not exceed, 2 GiB; the exit code is 1 where it does.

* ``peak_gib``: the peak of the process that evaluates, from its start to its end;
* ``worker_peak_gib``: that of the largest worker, where ``--workers`` are more than one; else null;
* ``set_gib``: what the images of the adversarial set take on disk;
* ``cpu_seconds``, ``serial_cpu_seconds``: CPU seconds in all, and of the process that waits for workers;
* ``seconds``, ``images``, ``side``, ``workers``, ``attack``, ``accuracies``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from rich.console import Console
from torch import Tensor

from unfool import EvaluationSettings, Network, Table, TrunkSpec, evaluate
from unfool.core.parallel.job import Place
from unfool.core.parallel.local import LocalExecutor
from unfool.core.streams import Streams
from unfool.evaluation.crafting.chosen_attacks import choose_attacks
from unfool.evaluation.parts.opened import Opened
from unfool.evaluation.parts.sharing import Sharing, share_evaluation

BOUND_GIB = 2.0
GIB = 1 << 30
CLASSES = 4
THREAT = "linf:1/255"


class DrawnPixels:
    """Images of blocks of noise, uint8, that follow from their row number alone."""

    def __init__(self, count: int, side: int):
        self.shape = (count, 3, side, side)
        self._streams = Streams(0).named("drawn pixels")

    def take(self, rows: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) for row numbers (B,)."""
        side = self.shape[-1]
        coarse = self._streams.uniform(rows, (3, side // 8, side // 8)).mul(255).to(torch.uint8)
        return coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)


def drawn_table(count: int, side: int) -> Table:
    """So many images with labels, none of which is stored."""
    ids = torch.arange(count)
    labels = Streams(0).named("labels").integers(ids, CLASSES)
    return Table(
        DrawnPixels(count, side),
        ids,
        {"label": labels},
        {"label": list("abcd")},
        label_column="label",
        name="drawn",
        split="test",
    )


def network() -> Network:
    """A small network with random weights."""
    trunk = TrunkSpec(name="convnet", stem="strided", widths=(4, 8, 8))
    heads = {"labels": {"kind": "linear", "outputs": CLASSES}}
    return Network.build(trunk, heads, classifier="labels").eval()


@dataclass(frozen=True)
class OpensDrawn:
    """Opens the network and its images in a worker."""

    images: int
    side: int
    attack: str

    def __call__(self, place: Place) -> Opened:
        return Opened(
            model=network(),
            table=drawn_table(self.images, self.side),
            column=None,
            attacks=choose_attacks(self.attack, THREAT),
        )


def measure(
    images: int = 20_000, side: int = 224, *, workers: int = 1, attack: str = "pgd-1", nice: int = 10
) -> dict[str, Any]:
    """Evaluate in a process of its own, and say what it took; the keys are those above."""
    command = [sys.executable, __file__, "--inside", "--images", str(images), "--side", str(side)]
    command += ["--workers", str(workers), "--attack", attack]
    done = subprocess.run(
        ["nice", "-n", str(nice), *command], stdout=subprocess.PIPE, check=True, text=True, stdin=subprocess.DEVNULL
    )
    return json.loads(done.stdout)


def _inside(images: int, side: int, workers: int, attack: str) -> dict[str, Any]:
    """The evaluation itself, and the peak of this process."""
    torch.set_num_threads(1)
    started = time.monotonic()
    opens = OpensDrawn(images, side, attack)
    opened = opens(Place(folder=Path()))
    with tempfile.TemporaryDirectory(prefix="unfool-scale-") as temporary:
        folder = Path(temporary)
        if workers > 1:
            sharing = Sharing(executor=LocalExecutor(workers), folder=folder, console=Console(quiet=True))
            share_evaluation(sharing, opens, opened)
        settings = EvaluationSettings(threat=THREAT)
        evaluation = evaluate(opened.model, opened.table, attack, settings=settings, folder=folder)
    own, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    serial = own.ru_utime + own.ru_stime
    return {
        "images": images,
        "side": side,
        "workers": workers,
        "attack": attack,
        "accuracies": {row.attack: row.accuracy for row in evaluation.rows},
        "set_gib": round(images * 3 * side * side * 4 / GIB, 3),
        "peak_gib": round(own.ru_maxrss * 1024 / GIB, 3),
        "worker_peak_gib": round(theirs.ru_maxrss * 1024 / GIB, 3) if workers > 1 else None,
        "cpu_seconds": round(serial + theirs.ru_utime + theirs.ru_stime, 1),
        "serial_cpu_seconds": round(serial, 1),
        "seconds": round(time.monotonic() - started, 1),
        "bound": BOUND_GIB,
    }


def main() -> int:
    """Measure once, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--attack", default="pgd-1")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(_inside(options.images, options.side, options.workers, options.attack)))
        return 0
    figures = measure(options.images, options.side, workers=options.workers, attack=options.attack)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:20} {value}")
    peaks = [figures["peak_gib"], figures["worker_peak_gib"] or 0.0]
    return 0 if max(peaks) <= BOUND_GIB else 1


if __name__ == "__main__":
    sys.exit(main())
