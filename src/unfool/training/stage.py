"""A stage at work: views collected from its tasks, perturbed where the stage says so, and one trunk pass for each set.

Legend: B images.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from unfool.core.batch import Batch
from unfool.core.errors import ImagesError, SpecError
from unfool.core.processes import joint_rank_and_world_size
from unfool.core.streams import Streams
from unfool.models.modes import frozen_eval
from unfool.models.network import Network
from unfool.models.norms import CleanBanks, norm_context
from unfool.tasks import Task, make_task
from unfool.tasks.base import ParameterGroup
from unfool.training.adversarial.adversary import Adversary, ViewPair
from unfool.training.adversarial.weight_perturbation import WeightPerturbation
from unfool.training.norm_policy import Pass, context_of
from unfool.training.stage_config import StageConfig
from unfool.training.trainable import frozen_parameters, frozen_parts


class Stage(nn.Module):
    """Several weighted tasks in parallel on one trunk; the one module that is wrapped for several processes.

    ``forward`` gives the losses (B,) of every task and, beside them, its scores. Tasks whose views are the same tensor
    share a trunk pass; by which statistics each pass normalises says `training.norm_policy`. ``model_images`` counts
    the images that went through the network, perturbation included and in all processes of a joint batch. With ``awp``
    the losses are those at perturbed weights: call ``weight_perturbation.undo()`` after the backward pass.
    """

    def __init__(self, config: StageConfig, network: Network, classes: Mapping[str, int], streams: Streams):
        super().__init__()
        self.config = config
        self.network = network
        # A tuple, so that nothing is registered twice.
        self.frozen = tuple(frozen_parts(network.trunk, config.trainable))
        self._frozen_parameters = tuple(frozen_parameters(network.trunk, config.trainable))
        self.tasks = nn.ModuleDict()
        self.weights: dict[str, float] = {}
        for name, item in config.tasks.items():
            task = make_task(item.task, item.settings)
            task.bind(network, name, classes, streams)
            _check_head(name, task, network, classes)
            self.tasks[name] = task
            self.weights[name] = item.weight
        self.adversary = Adversary(
            {name: self._task(name) for name in self.tasks},
            self.weights,
            perturbed={name for name, item in config.tasks.items() if item.perturbed},
            perturb=config.perturb,
            threat=config.threat,
            adversarial=config.adversarial,
            beta=config.beta,
            separate=config.statistics == "separate",
        )
        self.weight_perturbation = WeightPerturbation(config.awp)
        self.clean_norms = CleanBanks(network.trunk) if config.statistics == "separate" else None
        self.model_images = 0
        self.choose_trainable()

    def choose_trainable(self) -> None:
        """Let the parameters learn that this stage trains, and drop gradients of an earlier stage.

        Clean banks, where there are any, begin as the network's own batch norms are now.
        """
        self.network.requires_grad_(True)
        for part in self.frozen:
            part.requires_grad_(False)
        for parameter in self._frozen_parameters:
            parameter.requires_grad_(False)
        self.network.zero_grad(set_to_none=True)
        if self.clean_norms is not None:
            self.clean_norms.begin(self.network.trunk)

    def train(self, mode: bool = True) -> Stage:
        """Training mode; the frozen part of the trunk stays in eval mode."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def at(self, done: float) -> None:
        """Tell the tasks which share of the stage is done, 0 ≤ done < 1; call it before each step."""
        for name in self.tasks:
            self._task(name).at(done)

    def forward(self, batch: Batch, streams: Streams) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        pairs: Iterable[ViewPair] = self._view_pairs(batch, streams)
        if self.config.awp:
            # Everything is crafted on the weights as they are, and shown again to the perturbed ones.
            pairs = crafted = list(pairs)
            self.weight_perturbation.climb(self, lambda: self.total(self._losses_and_scores(crafted)[0]))
        losses, scores = self._losses_and_scores(pairs)
        for name in self.tasks:
            self._task(name).after_step()
        return losses, scores

    def _view_pairs(self, batch: Batch, streams: Streams) -> Iterator[ViewPair]:
        """Sets of views one after the other, each perturbed when the generator gets to it."""
        views = {name: self._task(name).views(batch, streams) for name in self.tasks}
        images_too = not all(item.tiles for item in views.values())
        groups: dict[tuple[int, bool], list[str]] = {}
        engine = self.adversary.engine
        for name, item in views.items():
            is_perturbed = engine is not None and self.config.tasks[name].perturbed
            groups.setdefault((id(item.images), is_perturbed), []).append(name)
        for (_, is_perturbed), names in groups.items():
            perturbed = clean = {name: views[name] for name in names}
            if engine is not None and is_perturbed:
                with frozen_eval(self), self._heads(Pass.CRAFTING_HEADS):
                    perturbed = self.adversary.perturbed(engine, clean, self._trunk, batch.ids, streams)
            beside_images = images_too and views[names[0]].tiles
            yield ViewPair(clean=clean, perturbed=perturbed, beside_images=beside_images)

    def _losses_and_scores(self, pairs: Iterable[ViewPair]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        losses: dict[str, Tensor] = {}
        scores: dict[str, Tensor] = {}
        for pair in pairs:
            clean, perturbed = self.adversary.features(pair, self._trunk)
            for name, views in pair.perturbed.items():
                with self._heads(Pass.HEADS):
                    losses[name] = self.adversary.losses(name, clean, perturbed, views)
                with torch.no_grad(), self._heads(Pass.SCORES):
                    figures = self._task(name).scores(perturbed[views.stage].detach(), views)
                _check_scores(name, self._task(name), figures)
                scores.update({f"{score}/{name}": values for score, values in figures.items()})
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
        optimizers = {name: self._task(name).optimizers for name in self.tasks}
        return {f"{name}.{key}": group for name, groups in optimizers.items() for key, group in groups.items()}

    def score_columns(self) -> list[str]:
        """What the tasks' scores are called in the log, ``SCORE/TASK``."""
        return [f"{score}/{name}" for name in self.tasks for score in self._task(name).score_names]

    def ungrouped(self) -> list[nn.Parameter]:
        """All other parameters."""
        apart = {id(parameter) for group in self.groups().values() for parameter in group.parameters}
        return [parameter for parameter in self.parameters() if id(parameter) not in apart]

    def turn_losses(self, name: str) -> Tensor:
        """Losses (B,) that the group of that name learns from, after a step."""
        task, _, group = name.rpartition(".")
        with self._heads(Pass.HEADS):
            return self._task(task).turn_losses(group)

    def _task(self, name: str) -> Task:
        task = self.tasks[name]
        if not isinstance(task, Task):
            raise SpecError(f"{name!r} is a {type(task).__name__}, not a task; register it with TASKS.add")
        return task

    def _trunk(self, images: Tensor, stages: Set[str], purpose: Pass) -> dict[str, Tensor]:
        """Features at some trunk stages, in one pass for a purpose that names its statistics."""
        self.model_images += len(images) * joint_rank_and_world_size()[1]
        images = images.contiguous(memory_format=self.network.memory_format)
        context = context_of(purpose, separate=self.clean_norms is not None, training=self.training)
        # The trunk alone: a loss under autocast would be multiplied out in bf16 even where it casts to float32.
        with self._precision(images.device.type), norm_context(self.network.trunk, context, self.frozen):
            return self.network.features_at(images, stages)

    @contextmanager
    def _heads(self, purpose: Pass) -> Generator[None, None, None]:
        """Inside, heads normalise as the purpose says, and the tasks know whether their losses are learnt."""
        learning = self.training and purpose is Pass.HEADS
        for name in self.tasks:
            self._task(name).learning = learning
        try:
            with norm_context(self.tasks, context_of(purpose, training=self.training)):
                yield
        finally:
            for name in self.tasks:
                self._task(name).learning = False

    def _precision(self, device: str) -> AbstractContextManager[object]:
        return torch.autocast(device, torch.bfloat16) if self.config.precision == "bf16" else nullcontext()


def _check_head(name: str, task: Task, network: Network, classes: Mapping[str, int]) -> None:
    """SpecError if the network has a head of that name, from an earlier stage, that is not the one this task needs."""
    described = getattr(task.head, "description", None)
    if described is not None and described != (wanted := task.head_for(network.trunk.channels, classes)):
        raise SpecError(
            f"two stages have a task {name!r} with different heads, {described} and {wanted}; give them different names"
        )


def _check_scores(name: str, task: Task, scores: Mapping[str, Tensor]) -> None:
    """SpecError for a score that the task does not declare: the log would have no column for it."""
    if strange := sorted(scores.keys() - set(task.score_names)):
        raise SpecError(
            f"task {name!r} gives the score {strange[0]!r} and declares {', '.join(task.score_names) or 'none'}; add "
            f"it to score_names of {type(task).__name__}"
        )
