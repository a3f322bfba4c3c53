"""What ``unfool probe`` probes, opened from its options: by it, and by whoever computes some of the features for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unfool.cli.options.shared import ModelOptions
from unfool.cli.parsing.shared_out import moved_model
from unfool.cli.parsing.systems import OpenedSystem, open_system
from unfool.core.errors import SpecError, WorkerError
from unfool.core.parallel.job import CodeFile, Place
from unfool.core.streams import Streams
from unfool.data.classes.label_sets import merged_sets
from unfool.evaluation.identity import identity
from unfool.evaluation.results.rows import is_unverified
from unfool.models.foreign import ForeignClassifier
from unfool.models.foreign_network import ForeignNetwork
from unfool.models.network import Network
from unfool.training.probing.features import probed_stages
from unfool.training.probing.parts import Probed

if TYPE_CHECKING:
    from unfool.cli.commands.probe import DataOptions


@dataclass(frozen=True, kw_only=True)
class OpensProbed:
    """Opens what a command probes, wherever a job is run.

    Args:
        model: The options that name the system.
        data: The options that name its images.
        stages: Stages to probe.
        random: Whether the weights are drawn anew.
        files: What of ``model`` is a file or folder of the asker's machine, by the option.
        identity: What the asker has opened; a worker that opens another network is refused.
    """

    model: ModelOptions
    data: DataOptions
    stages: tuple[str, ...] = ()
    random: bool = False
    files: tuple[tuple[str, Path | CodeFile], ...] = ()
    identity: str = ""

    def __call__(self, place: Place) -> Probed:
        model = moved_model(self.model, self.files, place)
        data = replace(self.data, data_dir=place.data_dir or self.data.data_dir)
        _, probed = open_probed(replace(self, model=model, data=data), place.device)
        own = identity(probed.network)
        if own != self.identity and not is_unverified(own):
            raise WorkerError(
                f"a worker opened another network ({own}) than the one to probe ({self.identity}); install the same "
                "versions of unfool, PyTorch and the model's packages on all nodes"
            )
        return probed


def open_probed(options: OpensProbed, device: str) -> tuple[OpenedSystem, Probed]:
    """The system, and its network with the training and the test images; raises as their readers do."""
    data = options.data
    system = open_system(options.model, device)
    network = _network(system, options)
    train, test = (system.split(data, split) for split in ("train", "test"))
    system.check_on(test)
    if options.model.multi_label:
        train, test = (merged_sets(table, data.column) for table in (train, test))
    if data.fraction != 1:
        seed = system.config.seed if system.config is not None else 0
        train = train.fraction(data.fraction, Streams(seed), data.column)
    return system, Probed(network=network, tables={"train": train, "test": test})


def _network(system: OpenedSystem, options: OpensProbed) -> Network | ForeignClassifier:
    """What is probed, its stages checked; with ``random`` before it had learned anything."""
    network = system.network
    if options.random and isinstance(network, (ForeignClassifier, ForeignNetwork)):
        raise SpecError("--random draws weights for a trunk of unfool's own; build --model without its weights")
    if isinstance(network, ForeignClassifier):
        if not options.stages and network.feature_path is None:
            raise SpecError(network.unnamed_features)
        return network
    if isinstance(network, ForeignNetwork) and options.stages:
        return network.classifier_alone
    if not isinstance(network, Network):
        raise SpecError(f"{system.name} is a {type(network).__name__} without stages; give a run or --model")
    probed_stages(network.trunk, options.stages or None)
    if not options.random:
        return network
    seed = system.config.seed if system.config is not None else 0
    return Network.from_architecture(network.architecture, Streams(seed))
