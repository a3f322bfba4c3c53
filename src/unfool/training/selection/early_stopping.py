"""Early stopping on robust accuracy, and a watch for catastrophic overfitting.

After each epoch the images that were cut from the training set are attacked with ``stop_attack``; the stage ends with
the weights of the highest robust accuracy, of equals those with the higher clean accuracy, then the earliest (Rice et
al., "Overfitting in adversarially robust deep learning", ICML 2020). The schedule runs to its end all the same: the
best weights may come after a fall of the learning rate.

A network overfits catastrophically (Wong et al., "Fast is better than free", ICLR 2020) when it learns to defeat one
gradient step and no more: at least half of the held-out images that it classifies correctly survive one step (the
stage's own perturbation if that is one full step, else FGSM), but of those, beyond chance, fewer than half survive
``stop_attack``. An UnfoolWarning says so once.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from unfool.attacks import Attack, ProxySettings, make_attack
from unfool.attacks.engines.projected_gradient import ProjectedGradient
from unfool.core.batch import Batch
from unfool.core.errors import SpecError, UnfoolWarning
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.models.modes import frozen_eval
from unfool.models.network import memory_format_of
from unfool.models.norms import norm_context
from unfool.tasks.labels import Labels
from unfool.training.norm_policy import Pass, context_of
from unfool.training.selection.averaging import snapshot
from unfool.training.stage import Stage

CHANCE = 0.001
"""Probability below which fewer than half of the images is no accident."""

COLUMNS = ("held_out/clean", "held_out/single_step", "held_out/robust")
"""Accuracies in metrics.csv: clean; clean and after one step (perturbed stages only); clean and after stop_attack."""


class EarlyStopping:
    """Keeps the weights of a stage that are best on held-out images; ``tensors`` is its whole state, by name.

    ``streams`` give the attacks' draws, the same after every epoch. Raises SpecError for a stage that does not train
    the network's classifier.
    """

    def __init__(self, stage: Stage, table: Table, streams: Streams, device: torch.device):
        config = stage.config
        self.network, self.table, self.streams, self.device = stage.network, table, streams, device
        self.column = classifier_column(stage)
        self.size = config.batch_size
        self.proxy = ProxySettings(dtype=config.precision)
        self.attacks: dict[str, Attack] = {"robust": make_attack(config.stop_attack, config.threat)}
        if config.perturb is not None:
            own = make_attack(config.perturb, config.threat)
            engine = own.engine
            full = isinstance(engine, ProjectedGradient) and engine.steps == 1 and engine.step_size >= own.threat.eps
            self.attacks["single_step"] = own if full else make_attack("fgsm", config.threat)
        self.best = snapshot(self.network)
        self.accuracy = torch.tensor([-1.0, -1.0], dtype=torch.float64)
        self.epoch = torch.tensor(0)
        self.warned = torch.tensor(False)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""
        best = {f"best/{name}": value for name, value in self.best.items()}
        return {**best, "accuracy": self.accuracy, "epoch": self.epoch, "warned": self.warned}

    def evaluate(self, epoch: int) -> tuple[dict[str, float], int]:
        """Accuracies of the network as it is after ``epoch`` epochs, `COLUMNS` by name; and the model images of it."""
        proxy_model = self.proxy.copy(self.network)
        parts: list[dict[str, Tensor]] = []
        cost = 0
        for rows in torch.arange(len(self.table)).split(self.size):
            part, images = self._correct(self.table.batch(rows, self.device), proxy_model)
            parts.append(part)
            cost += images
        correct = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        accuracy = torch.stack([correct[name].double().mean() for name in ("robust", "clean")]).cpu()
        if accuracy.tolist() > self.accuracy.tolist():
            self.best = snapshot(self.network)
            self.accuracy.copy_(accuracy)
            self.epoch.fill_(epoch)
        if "single_step" in correct:
            self._watch(correct["clean"], correct["single_step"], correct["robust"], epoch)
        return {f"held_out/{name}": float(values.double().mean()) for name, values in correct.items()}, cost

    def _correct(self, batch: Batch, proxy_model: nn.Module) -> tuple[dict[str, Tensor], int]:
        """Which images (B,) are classified correctly, clean and after each attack too; and the model images it cost."""
        labels = batch.labels(self.column)
        context = context_of(Pass.EARLY_STOPPING)
        with frozen_eval(self.network), norm_context(self.network, context), torch.no_grad():
            clean = self.network(batch.images.to(memory_format=memory_format_of(self.network))).argmax(1) == labels
        correct, cost = {"clean": clean}, len(clean)
        rows = clean.nonzero().squeeze(1)
        for name, attack in self.attacks.items():
            correct[name] = clean.clone()
            if len(rows):
                attacked = batch.rows(rows)
                result = attack(
                    self.network,
                    attacked.images,
                    attacked.labels(self.column),
                    ids=attacked.ids,
                    streams=self.streams.named(name),
                    proxy=self.proxy,
                    proxy_model=proxy_model,
                )
                correct[name][rows] = ~result.fooled
                cost += result.model_images
        return correct, cost

    def _watch(self, clean: Tensor, single: Tensor, robust: Tensor, epoch: int) -> None:
        """Warn once of a network that survives one gradient step and no more."""
        from scipy.special import bdtr  # here, because it takes long to import

        right, survivors, left = int(clean.sum()), int(single.sum()), int((single & robust).sum())
        if bool(self.warned) or 2 * survivors < right or bdtr(left, survivors, 0.5) > CHANCE:
            return
        self.warned.fill_(True)
        attack = self.attacks["robust"].name
        warnings.warn(
            f"catastrophic overfitting in epoch {epoch}: {survivors} of {right} correct held-out images survive "
            f"one gradient step, and {left} of those survive {attack}; the best weights so far are kept (epoch "
            f"{int(self.epoch)}, {float(self.accuracy[0]):.1%} robust); perturb with more steps (pgd-2), a smaller "
            "step_size or a lower learning rate",
            UnfoolWarning,
            stacklevel=2,
        )


def classifier_column(stage: Stage) -> str:
    """The label column of the network's classifier; SpecError if the stage does not train it."""
    name = stage.network.classifier
    task = stage.tasks[name] if name is not None and name in stage.tasks else None
    if not isinstance(task, Labels):
        raise SpecError(
            f"held_out={stage.config.held_out} evaluates the network's classifier, and the stage trains "
            f"{', '.join(stage.tasks)}; train a labels task under the classifier's name, or set held_out to 0"
        )
    return task.settings.column
