"""Training in two processes against training in one: how far the weights are apart after some steps.

    python benchmarks/processes.py [--steps 1 2 5 50] [--only WORD ...] [--float32] [--json]

Each case trains alone, and again in two processes that meet over gloo and take half of every batch each. The difference
is the largest of any weight or running statistic, over the largest value of that tensor. What is computed is the same,
in another order of sums, and training multiplies that rounding. The control says by how much: one process against
itself, on pixels whose last bit is one up, and again one down; the larger difference counts.

In float64 the difference must stay below 1e-9. Where it does not, it must stay below the control after as many steps,
and the case is named with both figures: then rounding is the whole of the cause. Exit code 1 otherwise. In float32
(--float32), where the same rounding begins a billion times larger, nothing is judged.

Examples:
    python benchmarks/processes.py
    python benchmarks/processes.py --only resnet18 trades --steps 50
    python benchmarks/processes.py --float32 --json > two-processes.json
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.models.weights import load_tensors
from unfool.training import RunConfig, StageConfig, TaskConfig, train

IMAGES, BATCH, SIDE, LARGE = 48, 12, 16, 32
BOUND = 1e-9
CONTROLS = {"up": 1.0, "down": 0.0}
"""Folders of the controls, and where the last bit of their pixels is moved."""
STEPS = (1, 2, 5, 50)
CONVNET: dict[str, Any] = {"name": "convnet", "widths": [4, 8, 8]}


class Plain(nn.Module):
    """A user's classifier without batch norm; its maxima have ties where images are flat."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3), nn.ReLU())
        self.out = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.out(self.body(images).amax((2, 3)))


class Normed(nn.Module):
    """A user's classifier with the kinds of batch norm that there are: of both banks, without weights, and 1d."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, 2, 1),
            nn.BatchNorm2d(6, affine=False),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, 1, 1),
            nn.BatchNorm2d(6, momentum=None),
        )
        self.out = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))

    def forward(self, images: Tensor) -> Tensor:
        return self.out(self.body(images).mean((2, 3)))


MODELS: dict[str, type[nn.Module]] = {"Plain": Plain, "Normed": Normed}


def stage(tasks: dict[str, dict[str, Any]] | None = None, **settings: Any) -> dict[str, Any]:
    """Settings of a stage; those of its tasks by name."""
    values = {"batch_size": BATCH, "optimizer": "sgd", "learning_rate": 0.02}
    return {**values, "tasks": tasks or {"labels": {}}, **settings}


CONTRAST = {"contrast": {"size": 6, "temperature": 0.3}}
INPAINTING = {"inpainting": {"width": 8, "side": LARGE, "discriminator": 4, "lambda_adv": 0.3}}
PGD: dict[str, Any] = {"perturb": "pgd-2", "threat": "linf:8/255"}
SMOOTH: dict[str, Any] = {"perturb": "pgd-2", "threat": "l2:0.5"}
"""Without signs: that of a gradient of zero is decided by rounding, and moves a pixel by a whole step."""
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "convnet": (CONVNET, stage()),
    "convnet, adam": (CONVNET, stage(optimizer="adam", learning_rate=1e-3)),
    "convnet, pgd": (CONVNET, stage(**PGD)),
    "convnet, trades at perturbed weights": (CONVNET, stage(adversarial="trades", awp=0.01, **PGD)),
    "convnet, mart, averaged": (CONVNET, stage(adversarial="mart", ema=0.9, **PGD)),
    "resnet18": ({"name": "resnet18", "width": 0.0625, "stem": "cifar"}, stage()),
    "resnet18, pgd, adam": (
        {"name": "resnet18", "width": 0.0625, "stem": "cifar"},
        stage(optimizer="adam", learning_rate=1e-3, **PGD),
    ),
    "preact-resnet18": ({"name": "preact-resnet18", "width": 0.0625}, stage()),
    "wide-resnet": ({"name": "wide-resnet", "depth": 10, "width": 0.25}, stage()),
    "vgg16": ({"name": "vgg16", "width": 0.0625}, stage()),
    "alexnet": ({"name": "alexnet", "width": 0.0625}, stage()),
    "context-encoder, inpainting": ({"name": "context-encoder", "width": 0.0625}, stage({"labels": {}, **INPAINTING})),
    "labels, contrast, rotation": (CONVNET, stage({"labels": {}, **CONTRAST, "rotation": {}})),
    "contrast, a queue, one view, separate": (
        CONVNET,
        stage(
            {"contrast": {"size": 6, "temperature": 0.3, "negatives": "queue", "bank": 16}},
            adversarial="one-view",
            statistics="separate",
            **PGD,
        ),
    ),
    "contrast, dual stream, separate": (
        CONVNET,
        stage(CONTRAST, adversarial="dual-stream", statistics="separate", **SMOOTH),
    ),
    "own classifier without batch norm": ("Plain", stage()),
    "own classifier without batch norm, pgd, adam": ("Plain", stage(optimizer="adam", **PGD)),
    "own classifier with batch norms": ("Normed", stage()),
    "own classifier with batch norms, pgd": ("Normed", stage(**PGD)),
}


def make_table(side: int, dtype: torch.dtype, towards: float | None) -> Table:
    """Images whose brightness tells the class, a quarter of them flat, so that maxima have ties.

    With ``towards`` the last bit of every pixel is moved towards that number.
    """
    ids = torch.arange(IMAGES)
    streams = Streams(0).named("two processes")
    labels = streams.integers(ids, 4)
    noise = streams.named("pixels").uniform(ids, (3, side, side)) * (ids % 4 > 0)[:, None, None, None]
    pixels = (noise * 0.4 + labels[:, None, None, None] * 0.2).to(dtype)
    if towards is not None:
        pixels = torch.nextafter(pixels, torch.full_like(pixels, towards)).clamp(0, 1)
    return Table(
        DecodedPixels(pixels),
        ids,
        {"label": labels},
        {"label": list("abcd")},
        label_column="label",
        name="made-up",
        split="train",
    )


def trained(name: str, steps: int, folder: Path, dtype: torch.dtype, towards: float | None) -> None:
    """Train one case in the folder."""
    trunk, settings = CASES[name]
    settings = copy.deepcopy(settings)
    tasks = {key: TaskConfig(task=key, settings=values) for key, values in settings.pop("tasks").items()}
    item = StageConfig(tasks=tasks, steps=steps, **settings)
    model = None
    if isinstance(trunk, str):
        torch.manual_seed(0)
        model = MODELS[trunk]()
    table = make_table(SIDE if trunk == CONVNET or model is not None else LARGE, dtype, towards)
    which: dict[str, Any] = {"model": trunk} if isinstance(trunk, str) else {"trunk": trunk}
    train(RunConfig(data="made-up", stages=(item,), **which), table, folder, model=model)


def _work(names: list[str], steps: list[int], out: Path, dtype: torch.dtype, towards: float | None = None) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(dtype)
    for name in names:
        for count in steps:
            trained(name, count, out / name / str(count), dtype, towards)


def run_both(names: list[str], steps: list[int], out: Path, dtype: torch.dtype) -> bool:
    """Train every case in one process and in two; whether all ended well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}

    def together(rank: int) -> None:
        os.environ.update(address, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
        _work(names, steps, out / "two", dtype)

    def alone(folder: str, towards: float | None) -> None:
        _work(names, steps, out / folder, dtype, towards)

    fork = multiprocessing.get_context("fork").Process
    processes = [fork(target=alone, args=(folder, towards)) for folder, towards in (("one", None), *CONTROLS.items())]
    processes += [fork(target=together, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return not any(process.exitcode for process in processes)


def difference(one: Path, two: Path, name: str, steps: int) -> tuple[float, str]:
    """The largest difference of two runs' weights, each over the largest value of its tensor, and the tensor's name."""
    ours, theirs = (load_tensors(out / name / str(steps) / "weights.safetensors")[0] for out in (one, two))
    worst, where = 0.0, ""
    for key, value in ours.items():
        other = theirs[key].double()
        off = float((value.double() - other).abs().max()) / max(float(other.abs().max()), 0.05)
        if not off <= worst:
            worst, where = off, key
    return worst, where


def main() -> int:
    """Train all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="cases whose name holds one of these")
    parser.add_argument("--float32", action="store_true", help="train in float32, where rounding grows")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    dtype = torch.float32 if options.float32 else torch.float64
    names = [name for name in CASES if any(word in name for word in options.only)]
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        if not run_both(names, options.steps, out, dtype):
            return 1
        runs = [(name, steps) for name in names for steps in options.steps]
        off = {run: difference(out / "one", out / "two", *run) for run in runs}
        control = {run: max(difference(out / "one", out / each, *run)[0] for each in CONTROLS) for run in runs}
    last = options.steps[-1]
    if options.json:
        table = {name: {steps: off[name, steps][0] for steps in options.steps} for name in names}
        beside = {name: {steps: control[name, steps] for steps in options.steps} for name in names}
        print(json.dumps({"difference": table, "control": beside}))
    else:
        width = max(map(len, names))
        print(" " * width + "".join(f"{steps:>10}" for steps in options.steps) + f"  control {last}  most in")
        for name in names:
            figures = "".join(f"{off[name, steps][0]:>10.1e}" for steps in options.steps)
            print(f"{name:<{width}}{figures}{control[name, last]:>{10 + len(str(last))}.1e}  {off[name, last][1]}")
    if options.float32:
        return 0
    above = [run for run in runs if not off[run][0] < BOUND]
    for run in above:
        print(
            _words(*run, off[run][0], control[run], control[run[0], options.steps[0]], options.steps[0]),
            file=sys.stderr,
        )
    return 1 if any(not off[run][0] <= control[run] for run in above) else 0


def _words(name: str, steps: int, off: float, control: float, early: float, first: int) -> str:
    """What is above the bound, and whether rounding explains it."""
    said = f"above {BOUND:g} after {steps} steps: {name}, {off:.1e}"
    beside = f"one process, on pixels that differ in their last bit, parts from itself by {control:.1e}"
    if not off <= control:
        return f"{said}; {beside}: rounding does not explain it"
    growth = f" ({early:.0e} after {first})" if steps > first else ""
    return f"{said}; {beside}{growth}: it is rounding, which this training multiplies"


if __name__ == "__main__":
    sys.exit(main())
