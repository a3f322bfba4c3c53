# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""What a step of training and an attacked image cost on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from unfool.core.processes import rank_and_world_size
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.evaluation.hardening.subject import Subject
from unfool.models.modes import frozen_eval
from unfool.training import StageConfig
from unfool.training.processes import make_accelerator, training_device
from unfool.training.schedule import make_optimizer
from unfool.training.stage import Stage

_TIMED_CALLS, _TIMING_SHARE, _TIMED_IMAGES, _FEW = 4, 0.02, 32, 8


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds on this machine: of a training ``step``, and of an ``image`` forward and back."""

    step: float
    image: float


def measure(stage: StageConfig, table: Table, subject: Subject, seconds: float, device: str) -> Costs:
    """What a training step and an attacked image cost here, by a few of them on a copy, within a share of the time."""
    # What the first step would import is paid for now, so that training can be planned.
    make_accelerator(training_device(device))
    most = _TIMING_SHARE * seconds
    images = table.batch(torch.arange(min(_TIMED_IMAGES, len(table))), device).images

    def attack() -> None:
        points = images.detach().clone().requires_grad_()
        with torch.enable_grad():
            torch.autograd.grad(subject.network(points).sum(), points, allow_unused=True)

    with frozen_eval(subject.network):
        image = _mean_seconds(attack, most / 4) / len(images)
    network = subject.trainable(images)
    network.to(device, memory_format=network.memory_format)  # type: ignore[call-overload]
    timed = Stage(stage, network, {name: len(names) for name, names in table.classes.items()}, Streams(0)).train()
    optimizer = make_optimizer(stage, timed.ungrouped())
    share = max(1, min(stage.batch_size, len(table)) // rank_and_world_size()[1])

    def step(count: int) -> None:
        losses, _ = timed(table.batch(torch.arange(count), device), Streams(0))
        timed.total(losses).backward()
        timed.weight_perturbation.undo()
        optimizer.step()
        optimizer.zero_grad()

    # A few images tell whether it is worth while to time whole steps; a first step also pays for what it imports.
    few = min(_FEW, share)
    began = time.monotonic()
    step(few)
    guess = (time.monotonic() - began) * share / few
    if guess > seconds:
        return Costs(step=guess, image=image)
    return Costs(step=_mean_seconds(lambda: step(share), most), image=image)


def _mean_seconds(work: Callable[[], None], most: float) -> float:
    """The mean time of a few calls after a first one, of fewer where they would take longer than ``most``."""
    began = time.monotonic()
    work()
    first = time.monotonic() - began
    calls = min(_TIMED_CALLS, int(most / first))
    for _ in range(calls):
        work()
    return (time.monotonic() - began - first) / calls if calls else first
