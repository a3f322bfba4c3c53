"""A stage at work: views collected from its tasks, perturbed if asked, and one trunk pass for each set of them.

Legend: B images, V views of each (N = V·B, view-major).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from unfool.attacks import make_attack
from unfool.attacks.objective import Reading
from unfool.attacks.projected_gradient import ProjectedGradient
from unfool.core.batch import Batch, Views
from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.models.modes import untouched
from unfool.models.network import Network
from unfool.tasks import Task, make_task
from unfool.training.config import StageConfig


class Stage(nn.Module):
    """Several weighted tasks in parallel on one trunk; the one module that is wrapped for several processes.

    ``forward`` gives the losses (B,) of every task and, beside them, its scores. Tasks whose views are the same tensor
    share a trunk pass. ``model_images`` counts the images that went through the network, perturbation included.
    """

    def __init__(self, config: StageConfig, network: Network, classes: Mapping[str, int], streams: Streams):
        super().__init__()
        self.config = config
        self.network = network
        self.tasks = nn.ModuleDict()
        self.weights: dict[str, float] = {}
        for name, item in config.tasks.items():
            task = make_task(item.task, item.settings)
            task.bind(network, name, classes, streams)
            _check_head(name, task, network, classes)
            self.tasks[name] = task
            self.weights[name] = item.weight
        self.engine = _engine(config)
        self.model_images = 0
        self.choose_moving()

    def choose_moving(self) -> None:
        """Let the parameters move that this stage moves, and forget gradients of an earlier stage."""
        self.network.requires_grad_(True)
        self.network.trunk.requires_grad_(self.config.moves == "all")
        self.network.zero_grad(set_to_none=True)

    def train(self, mode: bool = True) -> Stage:
        """Training mode; a trunk that does not move keeps its batch-norm statistics too."""
        super().train(mode)
        if self.config.moves == "heads":
            self.network.trunk.eval()
        return self

    def forward(self, batch: Batch, streams: Streams) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        shown = {name: self._task(name).views(batch, streams) for name in self.tasks}
        sets: dict[int, list[str]] = {}
        for name, views in shown.items():
            sets.setdefault(id(views.images), []).append(name)
        losses: dict[str, Tensor] = {}
        scores: dict[str, Tensor] = {}
        for names in sets.values():
            group = {name: shown[name] for name in names}
            if self.engine is not None:
                group = self._perturbed(group, batch, streams)
            outputs = self._outputs(group)
            for name, views in group.items():
                losses[name] = self._task(name).losses(outputs[views.stage], views)
                with torch.no_grad():
                    found = self._task(name).scores(outputs[views.stage].detach(), views)
                scores.update({f"{score}/{name}": values for score, values in found.items()})
        return losses, scores

    def check_batch(self, size: int) -> None:
        """ImagesError if a task needs batch-mates and ``size`` images a step give none."""
        coupled = [name for name in self.tasks if self._task(name).coupled]
        if coupled and size < 2:
            raise ImagesError(
                f"task {coupled[0]!r} compares the images of a batch with each other, and got {size}; give at least 2"
            )

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the tasks' mean losses."""
        return torch.stack([self.weights[name] * values.mean() for name, values in losses.items()]).sum()

    def _task(self, name: str) -> Task:
        task = self.tasks[name]
        if not isinstance(task, Task):
            raise SpecError(f"{name!r} is a {type(task).__name__}, not a task; register it with TASKS.add")
        return task

    def _outputs(self, group: Mapping[str, Views]) -> dict[str, Tensor]:
        """Features at every stage that the group reads, in one pass over its common images."""
        images = next(iter(group.values())).images
        self.model_images += len(images)
        memory = torch.channels_last
        wanted = {views.stage for views in group.values()}
        # The trunk alone: a loss under autocast would be multiplied out in bf16 however often it asks for float32.
        with self._precision(images.device.type):
            return self.network.features_at(images.contiguous(memory_format=memory), wanted)

    def _precision(self, device: str) -> AbstractContextManager[object]:
        return torch.autocast(device, torch.bfloat16) if self.config.precision == "bf16" else nullcontext()

    def _perturbed(self, group: dict[str, Views], batch: Batch, streams: Streams) -> dict[str, Views]:
        """The group's views moved uphill on its own weighted loss, crafted on eval-mode batch norm."""
        first = next(iter(group.values()))
        count = first.count

        def objective(images: Tensor, rows: Tensor) -> Reading:
            moved = {name: views.with_images(images) for name, views in group.items()}
            outputs = self._outputs(moved)
            parts = [
                self.weights[name] * self._task(name).losses(outputs[views.stage], views)
                for name, views in moved.items()
            ]
            # Each view carries its share of the image's loss, so that the sum over views is the image's.
            return Reading(losses=torch.stack(parts).sum(0).repeat(count) / count)

        if self.engine is None:
            return group
        # Views of one image draw apart: V views of id i are ids i·V .. i·V + V-1.
        ids = (batch.ids[None, :] * count + torch.arange(count, device=batch.ids.device)[:, None]).reshape(-1)
        draws = streams.named("perturb").named(" + ".join(group))
        with untouched(self):
            found = self.engine.run(objective, first.images.detach(), ids, draws)
        return {name: views.with_images(found.images) for name, views in group.items()}


def _check_head(name: str, task: Task, network: Network, classes: Mapping[str, int]) -> None:
    """SpecError if a head of that name is there already, from an earlier stage, and is not the one this task needs."""
    there = getattr(task.head, "description", None)
    if there is not None and there != (wanted := task.head_for(network.trunk.channels, classes)):
        raise SpecError(
            f"two stages have a task {name!r} with different heads, {there} and {wanted}; give them different names"
        )


def _engine(config: StageConfig) -> ProjectedGradient | None:
    """The stage's perturbation: an attack's engine whose last iterate is taken without a further look."""
    if config.perturb is None:
        return None
    engine = make_attack(config.perturb, config.threat).engine
    if not isinstance(engine, ProjectedGradient):
        raise SpecError(f"a stage cannot be perturbed by {config.perturb!r}; choose fgsm or pgd")
    return dataclasses.replace(engine, goal="unjudged")
