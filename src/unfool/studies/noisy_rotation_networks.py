"""The extractors of system E, each pretrained on the same images for the same epochs, and the images they are probed
with."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from unfool.core.errors import UnfoolWarning
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.studies.noisy_rotation_scales import Pretraining, Scale
from unfool.studies.workspace import Workspace
from unfool.training import RunConfig, StageConfig, TaskConfig


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A pretrained network, and what that cost."""

    network: Network
    cpu_seconds: float = 0.0
    model_images: int = 0


def run_config(settings: Scale, plan: Pretraining) -> RunConfig:
    """The run of a pretraining that has a task."""
    if plan.task == "labels":
        data, column = settings.labels
        task = TaskConfig(task="labels", settings={"column": column})
    else:
        data, task = settings.data, TaskConfig(task="rotation", settings={"turns": "one"})
    times = settings.times if plan.longer else 1
    perturb = settings.noises[plan.noise] if plan.noise else None
    stages = tuple(
        StageConfig(
            tasks={plan.task or "": task},
            perturb=perturb,
            threat=settings.threat,
            **{**stage, "epochs": times * stage["epochs"]},
        )
        for stage in settings.pretrain
    )
    trunk = settings.half if plan.half else settings.trunk
    return RunConfig(data=data, size=settings.size, trunk=trunk, stages=stages)


def pretrained(settings: Scale, plan: Pretraining, work: Workspace) -> Extractor:
    """The extractor: trained, resumed or found; random weights are those that rotation begins with."""
    if plan.task is None:
        network = Network.build(TrunkSpec.from_dict(settings.trunk), {}, streams=Streams(0))
        return Extractor(network=network.eval().to(work.device))
    config = run_config(settings, plan)
    split = "train" if plan.task == "labels" else settings.split
    with warnings.catch_warnings():
        # That the source's steps cannot reach its budget is one of the study's findings.
        warnings.simplefilter("ignore", UnfoolWarning)
        run = work.trained(plan.path, config, work.table(config.data, split, settings.size))
    return Extractor(network=run.network, cpu_seconds=run.cpu_seconds, model_images=run.model_images)


def probed_images(settings: Scale, work: Workspace) -> tuple[Table, Table, Table]:
    """The labelled images that a probe learns from, others on which a stage is chosen, and the test images."""
    whole = work.table(settings.data, "train", settings.size)
    rest, held_out = whole.cut(settings.held_out, Streams(0).named("held out"))
    _, labelled = rest.cut(min(settings.labelled, len(rest)), Streams(0).named("labelled"))
    return labelled, held_out, work.table(settings.data, "test", settings.size)


def attacked_images(settings: Scale, work: Workspace) -> Table:
    """The test images that are attacked, the same for every extractor."""
    table = work.table(settings.data, "test", settings.size)
    return table.sample(min(settings.attacked, len(table)), Streams(0).named("attacked images"))


def described(settings: Scale, work: Workspace) -> dict[str, Any]:
    """How many images of which set did what."""
    labelled, held_out, test = probed_images(settings, work)
    supervised, _ = settings.labels
    found: dict[str, dict[str, int]] = {
        settings.data: {
            "pretraining": len(work.table(settings.data, settings.split, settings.size)),
            "train": len(labelled),
            "held out": len(held_out),
            test.split: len(test),
            "attacked": min(settings.attacked, len(test)),
        }
    }
    found.setdefault(supervised, {})["supervised pretraining"] = len(work.table(supervised, "train", settings.size))
    return found
