"""Run as a program: what two processes find and train together, for test_processes_training to compare with one.

Forks its two children from a process that has imported everything; they meet over gloo.
"""

import contextlib
import json
import os
import socket
import sys
import warnings
from pathlib import Path

import torch
import torch._dynamo  # an optimizer's first step would import it, in every child anew
from accelerate.state import AcceleratorState
from accelerate.tracking import GeneralTracker
from tiny_runs import TRUNK, contrast, inpainting, labels, make_table, run, stage
from torch import nn

from unfool.cli import main as cli
from unfool.core.errors import UnfoolError
from unfool.core.processes import joint_batch
from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.models.weights import save_tensors
from unfool.training import train
from unfool.training.processes import make_accelerator
from unfool.training.stage import Stage

CLASSES = {"label": 4, "parity": 2}
COUNT = 12
"""Images of the joint batch."""

PERTURBED: dict = {"perturb": "pgd-2", "threat": "l2:0.5"}
"""In L2: a sign would turn rounding into whole steps."""

STILL = {
    "nt-xent": stage({"contrast": contrast(temperature=0.3)}),
    "three views": stage({"contrast": contrast(temperature=0.3, views=3, loss="multi-positive")}),
    "two tasks": stage({"labels": labels(augmentation="simclr", views=2), "contrast": contrast(loss="margin")}),
}
"""Judged on the statistics that batch norm has."""

NORMED = {
    "normed by the batch": stage({"contrast": contrast(head_norm="batch"), "labels": labels()}),
    "perturbed": stage({"contrast": contrast()}, **PERTURBED),
    "trades at perturbed weights": stage(adversarial="trades", awp=0.1, **PERTURBED),
    "dual stream": stage({"contrast": contrast()}, adversarial="dual-stream", statistics="separate", **PERTURBED),
}
"""Judged on those of the batch."""

SMALL: dict = {"optimizer": "sgd", "learning_rate": 0.02, "epochs": 1}

RUNS = {
    "labels and contrast, then another head": run(
        stage(
            {"labels": labels(augmentation="simclr", views=2), "contrast": contrast(head_norm="batch")},
            **SMALL,
            weight_decay=0.1,
        ),
        stage({"other": contrast(temperature=0.5)}, trainable="heads", **SMALL),
    ),
    "half of the labels, from a stage on, in bf16": run(
        stage(steps=2, trainable="from:block2", optimizer="sgd", learning_rate=0.02, precision="bf16"), fraction=0.5
    ),
    "the best of the average, then once more": run(
        stage(**PERTURBED, ema=0.8, held_out=12, stop_attack="pgd-1", **{**SMALL, "epochs": 2}), stage(**SMALL)
    ),
    "a queue of negatives": run(stage({"contrast": contrast(negatives="queue", bank=16)}, **SMALL)),
    "inpainting and its discriminator": run(stage({"fill": inpainting(lambda_adv=0.3, masks=2)}, **SMALL)),
    "one step of adam": run(stage({"contrast": contrast()}, steps=1)),
}

LONG = {
    "a classifier from elsewhere, with odd norms and ties of maxima, perturbed": run(
        stage(steps=50, perturb="pgd-1", threat="linf:8/255", optimizer="sgd", learning_rate=0.02),
        trunk=None,
        model="Odd",
    ),
}
"""Runs in float64, to tell another order of sums from another result."""

REFUSED = {"a batch of odd size": run(stage(batch_size=9)), "a table of odd size": run(stage(), fraction=0.1)}

TRAIN = [
    *("train", "--data", "digits", "--trunk", "convnet", "--widths", "4", "8", "8", "--fraction", "0.2"),
    *("--optimizer", "sgd", "--learning-rate", "0.02", "--steps", "1", "--device", "cpu", "--json"),
]


class OwnNorm(nn.BatchNorm2d):
    """One of a class of its own, as libraries of models have them."""


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 4, 3, 2, 1), OwnNorm(4), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(4, affine=False)),
            *(nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4, momentum=None), nn.ReLU()),
        )
        self.out = nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 4))

    def forward(self, x):
        return self.out(self.body(x).amax((2, 3)))


def odd():
    module = Odd()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(Streams(number).normal(torch.arange(1), tuple(parameter.shape))[0])
    return module


def train_long(name, folder):
    """Train one of LONG in float64, on images that are flat here and there."""
    table = make_table()
    pixels = table.batch().images.double()
    pixels[::4] = pixels[::4].mean((2, 3), keepdim=True)
    table = Table(
        DecodedPixels(pixels),
        table.ids,
        table.columns,
        table.classes,
        label_column="label",
        name="made-up",
        split="train",
    )
    torch.set_default_dtype(torch.float64)
    try:
        train(LONG[name], table, folder, model=odd() if LONG[name].model else None)
    finally:
        torch.set_default_dtype(torch.float32)


def joint_stage(name):
    """A stage in float64, and the joint batch's images; the network has a head that the stage does not use."""
    network = Network.build(TrunkSpec.from_dict(TRUNK), {"idle": {"kind": "linear", "outputs": 3}})
    made = Stage((STILL | NORMED)[name], network, CLASSES, Streams(0)).double()
    batch = make_table().batch(torch.arange(COUNT))
    return made.train(name in NORMED), batch.with_images(batch.images.double())


def found(made, losses):
    """Losses, gradients and statistics after a step's backward pass."""
    gradients = {f"gradient/{name}": value.grad for name, value in made.named_parameters() if value.grad is not None}
    statistics = {name: value for name, value in made.named_buffers() if "running" in name}
    return {f"loss/{task}": values.detach() for task, values in losses.items()} | gradients | statistics


def joint_losses(out, number):
    accelerator = make_accelerator(torch.device("cpu"))
    rows = torch.arange(COUNT).chunk(2)[number]
    for name in STILL | NORMED:
        made, batch = joint_stage(name)
        wrapped = accelerator.prepare(made)
        with joint_batch():
            losses, _ = wrapped(batch.rows(rows), Streams(3))
            accelerator.backward(made.total(losses))
        save_tensors(out / "losses" / f"{name} {number}.safetensors", found(made, losses), {})


class Lines(GeneralTracker):
    """A tracker that keeps the steps of its lines, of this process."""

    name, requires_logging_directory, main_process_only = "lines", False, False

    def __init__(self):
        self.tracker = []
        super().__init__()

    def log(self, values, step=None, **kwargs):
        self.tracker.append(step)


class StopError(Exception):
    pass


def resumed(out):
    """The first run once more, stopped between two steps of either stage."""
    config = next(iter(RUNS.values()))

    def stop(what, done, total, note):
        if what.startswith(f"stage {unfinished}/") and done == 3:
            raise StopError

    for unfinished in (1, 2):  # noqa: B007 - read by stop
        with contextlib.suppress(StopError):
            train(config, make_table(), out / "resumed", progress=stop, checkpoint_seconds=0)
    train(config, make_table(), out / "resumed")


def child(out, number):
    torch.set_num_threads(1)
    joint_losses(out, number)
    for name, config in RUNS.items():
        train(config, make_table(), out / "runs" / name)
    for name in LONG:
        train_long(name, out / "long" / name)
    resumed(out)
    lines = Lines()
    train(RUNS["one step of adam"], make_table(), out / "tracked", track=[lines])
    (out / f"tracked {number}.json").write_text(json.dumps(lines.tracker))
    refusals = {}
    for name, config in REFUSED.items():
        try:
            train(config, make_table(), out / "refused" / name)
        except UnfoolError as error:
            refusals[name] = f"{type(error).__name__}: {error}"
    (out / f"refusals {number}.json").write_text(json.dumps(refusals))
    # The command joins a group of its own, as if it had just been launched: at another port, since the first process
    # may still listen at this one when the other comes again.
    torch.distributed.destroy_process_group()
    os.environ["MASTER_PORT"] = os.environ["SECOND_PORT"]
    AcceleratorState._reset_state(reset_partial_state=True)
    with (out / f"printed {number}.txt").open("w") as printed, contextlib.redirect_stdout(printed):
        code = cli([*TRAIN, "--out", str(out / "command")])
    if code or torch.distributed.is_initialized():
        raise SystemExit(f"unfool train ended with {code}, or has not left the group of processes")


def main(out):
    with socket.socket() as first, socket.socket() as second:
        for free in (first, second):
            free.bind(("127.0.0.1", 0))
        ports = {"MASTER_PORT": str(first.getsockname()[1]), "SECOND_PORT": str(second.getsockname()[1])}
        address = {"MASTER_ADDR": "127.0.0.1", **ports}
    # Python 3.12 warns of threads, of which the children use none.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    children = []
    for number in range(2):
        process = os.fork()
        if not process:
            os.environ.update(address, RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
            code = 1
            try:
                child(out, number)
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(process)
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in children]
    sys.exit(max(abs(code) for code in codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
