"""Run as a program: losses and gradients of every task in each of two processes, and of the joint batch in one.

``python two_processes.py OUT``; plugins are those of UNFOOL_PLUGINS. Forks its children from a process that has
imported everything; they meet over gloo.
"""

import multiprocessing
import os
import socket
import sys
from pathlib import Path

import torch
import torch._dynamo  # an optimizer's first step would import it, in every child anew

from unfool.core.batch import Batch
from unfool.core.plugins import load_listed_plugins
from unfool.core.processes import joint_batch
from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.models.weights import save_tensors
from unfool.training import StageConfig, TaskConfig
from unfool.training.adversarial.methods import ADVERSARIAL_METHODS
from unfool.training.processes import make_accelerator
from unfool.training.running.task_optimizers import TaskOptimizers
from unfool.training.stage import Stage

load_listed_plugins()

from task_cases import CASES  # noqa: E402 - of the plugins too

CLASSES = {"label": 4, "coarse": 2}
COUNT, SIDE = 6, 20
SMOOTH = {"perturb": "pgd-1", "threat": "l2:0.5"}
"""In L2: a sign would turn rounding into whole steps."""


def stages():
    """Every task alone, and every adversarial method, by a name for it."""
    common = {"steps": 1, "batch_size": COUNT, "optimizer": "sgd"}
    made = {}
    for number, (name, settings) in enumerate(CASES):
        task = {name: TaskConfig(task=name, settings=settings)}
        made[f"task {number}: {name} {settings}"] = StageConfig(tasks=task, **common)
    for name in ADVERSARIAL_METHODS:
        task = {"task": TaskConfig(task="labels" if ADVERSARIAL_METHODS[name].labels_only else "contrast")}
        made[f"method {name}"] = StageConfig(tasks=task, adversarial=name, **SMOOTH, **common)
    return made


def make_batch():
    ids = torch.arange(COUNT) * 5 + 2
    fine = Streams(0).named("labels").integers(ids, 4)
    images = Streams(0).named("images").uniform(ids, (3, SIDE, SIDE)).double()
    return Batch(images=images, ids=ids, columns={"label": fine, "coarse": fine // 2})


def make_table():
    pixels = Streams(8).uniform(torch.arange(20), (3, SIDE, SIDE)).double()
    return Table(DecodedPixels(pixels), torch.arange(20), {}, {}, label_column=None, name="noise", split="train")


def results(config, rows, wrap):
    """Losses, gradients, statistics and memory after one step on these rows of the joint batch, and what the tasks' own
    optimizers made of it."""
    network = Network.build(TrunkSpec(name="convnet", widths=(3, 4, 6)), {}, normalisation="none")
    stage = Stage(config, network, CLASSES, Streams(0)).double()
    for task in stage.tasks.values():
        task.calibrate(network, make_table(), Streams(9))
    wrapped = wrap(stage.train())  # kept until the backward pass is over
    with joint_batch():
        losses, _ = wrapped(make_batch().rows(rows), Streams(3))
        stage.total(losses).backward()
        found = {f"gradient {name}": value.grad for name, value in stage.named_parameters() if value.grad is not None}
        TaskOptimizers(stage).step(1.0, 0)
    found |= {f"turn {name}": part for name, group in stage.groups().items() for part in group.parameters[:1]}
    found |= {f"loss {name}": values.detach() for name, values in losses.items()}
    return found | {f"buffer {name}": value.double() for name, value in stage.named_buffers()}


def save(out, number, count, wrap):
    for case, config in stages().items():
        rows = torch.arange(COUNT).chunk(count)[number]
        save_tensors(out / case.partition(":")[0] / f"{number} of {count}.safetensors", results(config, rows, wrap))


def together(out, number, port):
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    save(out, number, 2, make_accelerator(torch.device("cpu")).prepare)


def main(out):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork").Process
    children = [fork(target=save, args=(out, 0, 1, lambda stage: stage))]
    children += [fork(target=together, args=(out, number, port)) for number in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    sys.exit(max(abs(child.exitcode) for child in children))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
