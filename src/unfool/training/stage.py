"""A stage at work: views collected from its tasks, perturbed if asked, and one trunk pass for each set of them.

Legend: B images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from unfool.core.batch import Batch
from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.models.modes import frozen_eval, running_statistics
from unfool.models.network import Network
from unfool.tasks import Task, make_task
from unfool.tasks.base import ParameterGroup
from unfool.tasks.gather import joint_rank_and_world_size
from unfool.training.adversarial.adversary import Adversary, ViewPair
from unfool.training.adversarial.clean_norms import CleanNorms
from unfool.training.adversarial.weight_perturbation import WeightPerturbation
from unfool.training.stage_config import StageConfig
from unfool.training.trainable import frozen_parts


class Stage(nn.Module):
    """Several weighted tasks in parallel on one trunk; the one module that is wrapped for several processes.

    ``forward`` gives the losses (B,) of every task and, beside them, its scores. Tasks whose views are the same tensor
    share a trunk pass. Where the views of a task have the images' own size, those of another size go through the
    trunk's batch norms as they will in eval mode: by the running statistics, in which they leave no trace.
    ``model_images`` counts the images that went through the network, perturbation included and in all processes of a
    joint batch. With ``awp`` the losses are those at perturbed weights: call ``weight_perturbation.undo()`` after the
    backward pass.
    """

    def __init__(self, config: StageConfig, network: Network, classes: Mapping[str, int], streams: Streams):
        super().__init__()
        self.config = config
        self.network = network
        # A tuple, so that nothing is registered twice.
        self.frozen = tuple(frozen_parts(network.trunk, config.trainable))
        self.tasks = nn.ModuleDict()
        self.weights: dict[str, float] = {}
        for name, item in config.tasks.items():
            task = make_task(item.task, item.settings)
            task.bind(network, name, classes, streams)
            _check_head(name, task, network, classes)
            self.tasks[name] = task
            self.weights[name] = item.weight
        self.adversary = Adversary(config, {name: self._task(name) for name in self.tasks}, self.weights)
        self.weight_perturbation = WeightPerturbation(config.awp)
        self.clean_norms = CleanNorms(network) if config.statistics == "separate" else None
        self.model_images = 0
        self._size: torch.Size | None = None
        self.choose_trainable()

    def choose_trainable(self) -> None:
        """Let the parameters move that this stage moves, and forget gradients of an earlier stage.

        Clean norms, where there are any, begin as the network's own are now.
        """
        self.network.requires_grad_(True)
        for part in self.frozen:
            part.requires_grad_(False)
        self.network.zero_grad(set_to_none=True)
        if self.clean_norms is not None:
            self.clean_norms.begin(self.network)

    def train(self, mode: bool = True) -> Stage:
        """Training mode; what does not move of the trunk keeps its batch-norm statistics too."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def at(self, done: float) -> None:
        """Tell the tasks which share of the stage is done, 0 ≤ done < 1; call it before each step."""
        for name in self.tasks:
            self._task(name).at(done)

    def forward(self, batch: Batch, streams: Streams) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        shown: Iterable[ViewPair] = self._shown(batch, streams)
        if self.config.awp:
            # Everything is crafted on the weights as they are, and shown again to the perturbed ones.
            shown = every = list(shown)
            self.weight_perturbation.climb(self, lambda: self.total(self._read(every)[0]))
        found = self._read(shown)
        for name in self.tasks:
            self._task(name).after_step()
        return found

    def _shown(self, batch: Batch, streams: Streams) -> Iterator[ViewPair]:
        """Sets of views one after the other, each moved when it is asked for."""
        made = {name: self._task(name).views(batch, streams) for name in self.tasks}
        own = batch.images.shape[2:]
        self._size = own if any(views.images.shape[2:] == own for views in made.values()) else None
        sets: dict[tuple[int, bool], list[str]] = {}
        for name, views in made.items():
            perturbed = self.adversary.engine is not None and self.config.tasks[name].perturbed
            sets.setdefault((id(views.images), perturbed), []).append(name)
        for (_, perturbed), names in sets.items():
            moved = clean = {name: made[name] for name in names}
            if self.adversary.engine is not None and perturbed:
                with frozen_eval(self):
                    moved = self.adversary.moved(self.adversary.engine, clean, self._outputs, batch.ids, streams)
            yield ViewPair(clean=clean, moved=moved)

    def _read(self, shown: Iterable[ViewPair]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        losses: dict[str, Tensor] = {}
        scores: dict[str, Tensor] = {}
        for group in shown:
            clean, moved = self.adversary.features(group, self._outputs)
            for name, views in group.moved.items():
                losses[name] = self.adversary.losses(name, clean, moved, views)
                # A score is a second look, and leaves no trace in the norms of a head.
                with torch.no_grad(), running_statistics(self._task(name)):
                    found = self._task(name).scores(moved[views.stage].detach(), views)
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

    def groups(self) -> dict[str, ParameterGroup]:
        """The tasks' parameters that have optimizers of their own, by ``TASK.GROUP``."""
        return {f"{name}.{group}": found for name in self.tasks for group, found in self._task(name).optimizers.items()}

    def ungrouped(self) -> list[nn.Parameter]:
        """All other parameters."""
        apart = {id(parameter) for group in self.groups().values() for parameter in group.parameters}
        return [parameter for parameter in self.parameters() if id(parameter) not in apart]

    def turn_losses(self, name: str) -> Tensor:
        """Losses (B,) that the group of that name learns from, after a step."""
        task, _, group = name.rpartition(".")
        return self._task(task).turn_losses(group)

    def _task(self, name: str) -> Task:
        task = self.tasks[name]
        if not isinstance(task, Task):
            raise SpecError(f"{name!r} is a {type(task).__name__}, not a task; register it with TASKS.add")
        return task

    def _outputs(self, images: Tensor, stages: Set[str], *, clean: bool = False) -> dict[str, Tensor]:
        """Features at some trunk stages, in one pass; ``clean`` images take the clean norms, where there are any."""
        self.model_images += len(images) * joint_rank_and_world_size()[1]
        images = images.contiguous(memory_format=torch.channels_last)
        # Tiles have other statistics than whole images. By their own, their head would learn features that nobody
        # shows it afterwards; in the running ones, they would spoil those of the classifier beside them.
        tiles = self._size is not None and images.shape[2:] != self._size
        # The trunk alone: a loss under autocast would be multiplied out in bf16 however often it asks for float32.
        with self._precision(images.device.type), running_statistics(self.network.trunk) if tiles else nullcontext():
            if clean and self.clean_norms is not None:
                return self.clean_norms.features_at(self.network, images, stages)
            return self.network.features_at(images, stages)

    def _precision(self, device: str) -> AbstractContextManager[object]:
        return torch.autocast(device, torch.bfloat16) if self.config.precision == "bf16" else nullcontext()


def _check_head(name: str, task: Task, network: Network, classes: Mapping[str, int]) -> None:
    """SpecError if a head of that name is there already, from an earlier stage, and is not the one this task needs."""
    there = getattr(task.head, "description", None)
    if there is not None and there != (wanted := task.head_for(network.trunk.channels, classes)):
        raise SpecError(
            f"two stages have a task {name!r} with different heads, {there} and {wanted}; give them different names"
        )
