"""Made-up images and configurations small enough to train a run in a tenth of a second."""

import torch

from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
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
    return Table(DecodedPixels(pixels), ids, columns, classes, label_column="label", name="made-up", split="train")


def labels(**settings):
    return TaskConfig(task="labels", settings=settings)


def contrast(**settings):
    return TaskConfig(task="contrast", settings={"size": 6, **settings})


def inpainting(**settings):
    return TaskConfig(task="inpainting", settings={"width": 8, "side": 16, "discriminator": 4, **settings})


def stage(tasks=None, **settings):
    values = {"epochs": 1 if "steps" in settings else 2, "batch_size": 12, "learning_rate": 0.01, **settings}
    return StageConfig(tasks=tasks or {"labels": labels()}, **values)


def run(*stages, **settings):
    return RunConfig(**{"data": "made-up", "trunk": TRUNK, "stages": stages or (stage(),), **settings})


KILLED = {
    "adam": run(stage(schedule="cosine")),
    "plain momentum that drops, then a decay": run(
        stage(optimizer="sgd", nesterov=False, schedule="step", drop_every=1, drop_factor=0.5),
        stage(optimizer="sgd", schedule="exponential", decay=0.7, perturb="n-fgsm", epochs=1),
    ),
    "sgd, a finished epoch": run(stage(optimizer="sgd", schedule="triangle", epochs=3)),
    "labels, then contrast on a frozen trunk": run(
        stage(optimizer="sgd"), stage({"contrast": contrast()}, trainable="heads", batch_size=16)
    ),
    "perturbed, in parallel": run(
        stage({"labels": labels(augmentation="simclr", views=2), "contrast": contrast()}, perturb="pgd-2", epochs=1),
        stage(perturb="fgsm", epochs=1),
    ),
    "half of the labels for so many steps, from a stage on": run(
        stage(steps=9, trainable="from:block3", batch_size=8), stage(steps=2, trainable="after:3"), fraction=0.5
    ),
    "trades at perturbed weights, averaged, the best kept": run(
        stage(
            perturb="pgd-2",
            adversarial="trades",
            awp=0.01,
            ema=0.8,
            held_out=12,
            stop_attack="pgd-1",
            optimizer="sgd",
            epochs=3,
        )
    ),
    "fgsm with the best kept, then mart averaged": run(
        stage(perturb="fgsm:random_start=true,step_size=10/255", held_out=24, stop_attack="pgd-2", awp=0.01),
        stage(perturb="pgd-1", adversarial="mart", beta=5, ema=0.9, precision="bf16"),
    ),
    "contrast with a queue, one view moved, then a dual stream that decays": run(
        stage(
            {"contrast": contrast(negatives="queue", bank=50)},
            perturb="pgd-1",
            adversarial="one-view",
            statistics="separate",
            epochs=1,
        ),
        stage(
            {"contrast": contrast(decay=3)}, perturb="pgd-1", adversarial="dual-stream", statistics="separate", epochs=1
        ),
    ),
    "inpainting and its discriminator beside labels, then perturbed on a frozen trunk": run(
        stage({"labels": labels(), "inpainting": inpainting(lambda_adv=0.3)}, ema=0.5),
        stage({"fill": inpainting(masks=2)}, optimizer="sgd", trainable="heads", perturb="pgd-1", epochs=1),
    ),
}
"""Runs of 8 to 12 steps, by what is special about them."""
