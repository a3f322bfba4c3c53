"""Made-up images and configurations small enough to train a run in a tenth of a second."""

import torch

from unfool.core.streams import Streams
from unfool.data.table import DecodedPixels, ImageTable
from unfool.training import RunConfig, StageConfig, TaskConfig

TRUNK = {"name": "convnet", "widths": [4, 8, 8]}


def make_table(count=48, seed=0, side=16):
    """Images whose brightness tells the class, so that there is something to learn."""
    ids = torch.arange(count)
    streams = Streams(seed).named("made-up table")
    labels = streams.integers(ids, 4)
    noise = streams.named("pixels").uniform(ids, (3, side, side))
    pixels = ((noise * 0.4 + labels[:, None, None, None] * 0.2) * 255).to(torch.uint8)
    classes = {"label": ["a", "b", "c", "d"], "parity": ["even", "odd"]}
    columns = {"label": labels, "parity": labels % 2}
    return ImageTable(DecodedPixels(pixels), ids, columns, classes, label_column="label", name="made-up", split="train")


def labels(**settings):
    return TaskConfig(task="labels", settings=settings)


def contrast(**settings):
    return TaskConfig(task="contrast", settings={"size": 6, **settings})


def stage(tasks=None, **settings):
    values = {"epochs": 2, "batch_size": 12, "learning_rate": 0.01, **settings}
    return StageConfig(tasks=tasks or {"labels": labels()}, **values)


def run(*stages, **settings):
    return RunConfig(**{"data": "made-up", "trunk": TRUNK, "stages": stages or (stage(),), **settings})


KILLED = {
    "adam": run(stage(schedule="cosine")),
    "sgd, a finished epoch": run(stage(optimizer="sgd", schedule="triangle", epochs=3)),
    "labels, then contrast on a frozen trunk": run(
        stage(optimizer="sgd"), stage({"contrast": contrast()}, moves="heads", batch_size=16)
    ),
    "perturbed, in parallel": run(
        stage({"labels": labels(augmentation="simclr", views=2), "contrast": contrast()}, perturb="pgd-2", epochs=1),
        stage(perturb="fgsm", epochs=1),
    ),
}
"""Runs of 8 or 12 steps, by what is special about them."""
