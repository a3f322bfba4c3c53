"""What is hardened: a classifier of another library, or a network of this one; copied, and left as it is."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from unfool.core.borders.reading import is_file
from unfool.core.errors import OutputError, SpecError
from unfool.core.processes import rank_and_world_size
from unfool.data.table import Table
from unfool.evaluation.hardening.recipe import hardening_stage
from unfool.evaluation.hardening.settings import HardenSettings
from unfool.models.foreign import ForeignClassifier, adapt
from unfool.models.foreign_network import ForeignNetwork, check_trains, copied_classifier, foreign_network
from unfool.models.network import Network
from unfool.models.outside.black_box import is_black_box
from unfool.models.weights import save_network
from unfool.training import RunConfig, StageConfig
from unfool.training.config import CLASSIFIER
from unfool.training.folder import claim_folder
from unfool.training.initial_network import resolve_start
from unfool.training.schedule import first_of

START = "start.safetensors"
"""Of a run's folder: the weights that a network of this library began with."""


class Subject:
    """The copy of a model that is hardened, on its device.

    ``network`` is the classifier as it is evaluated, ``classifier`` the same if it is of another library, else None.
    """

    def __init__(self, model: nn.Module, device: str):
        if isinstance(model, ForeignNetwork):
            model = model.classifier_alone
        self.device = device
        self.network: Network | ForeignClassifier
        self.classifier: ForeignClassifier | None = None
        if isinstance(model, Network):
            if model.classifier is None:
                raise SpecError("the network has no head that classifies; train one with the task labels first")
            self.network = copy.deepcopy(model).to(device)
        else:
            classifier = model if isinstance(model, ForeignClassifier) else adapt(model)
            check_trains(classifier)
            self.network = self.classifier = copied_classifier(classifier).to(device)

    def check_trainable(self) -> None:
        """SpecError for a black box, which nothing can be learnt through."""
        if self.classifier is not None and is_black_box(self.classifier):
            raise SpecError(
                f"{self.classifier.shown_name} gives scores without a gradient, so it cannot be trained; give a module "
                "whose logits carry one"
            )

    def stage(self, settings: HardenSettings, table: Table, column: str) -> StageConfig:
        """The recipe's stage, for the head that classifies."""
        stage = hardening_stage(settings, table, column)
        head = self._head
        return replace(stage, tasks={head if name == CLASSIFIER else name: task for name, task in stage.tasks.items()})

    def config(self, described: RunConfig, folder: Path) -> RunConfig:
        """A run of this subject; a network of this library is written into the folder, to start from."""
        if self.classifier is not None:
            return replace(described, model=self.classifier.shown_name, trunk=None, normalisation=None)
        start = folder / START
        if isinstance(self.network, Network) and not is_file(start) and rank_and_world_size()[0] == 0:
            save_network(copy.deepcopy(self.network).cpu(), start)
        first_of(0.0, self.device)  # the other processes read the file, and wait for it here
        return replace(described, start=str(start), trunk=None, normalisation=None, classifier=self._head)

    def check_folder(self, described: RunConfig, folder: Path) -> None:
        """OutputError for a folder with the run of another configuration."""
        if self.classifier is None and not is_file(folder / START):
            raise OutputError(f"{folder} belongs to another run; choose another folder or delete this one")
        claim_folder(folder, resolve_start(self.config(described, folder), self.classifier))

    def trainable(self, images: Tensor) -> Network:
        """A copy that trains, to be timed on a few images."""
        if self.classifier is not None:
            return foreign_network(self.classifier, images)
        if isinstance(self.network, Network):
            return copy.deepcopy(self.network)
        raise SpecError(f"a {type(self.network).__name__} cannot be trained; give a module with weights")

    @property
    def _head(self) -> str:
        return (self.network.classifier or CLASSIFIER) if isinstance(self.network, Network) else CLASSIFIER
