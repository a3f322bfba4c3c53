"""Where a run's network comes from: fresh weights, or those of a file to start from."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import torch
from torch import Tensor, nn

from unfool.core.errors import DataError, SpecError, WeightsError
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.models.foreign import ForeignClassifier
from unfool.models.foreign_network import CLASSIFIER as FOREIGN_HEAD
from unfool.models.foreign_network import ForeignNetwork, check_trains, foreign_network
from unfool.models.network import NORMALISATIONS, Network
from unfool.models.trunks import TrunkSpec
from unfool.models.weights import load_network
from unfool.training.config import RunConfig


def resolve_start(config: RunConfig, classifier: ForeignClassifier | None = None) -> RunConfig:
    """The same configuration with what its ``start`` file settles: identity, trunk and normalisation.

    A ``classifier`` of another library settles the identity alone. Raises WeightsError for a file that cannot be
    trusted, or holds other weights than ``start_identity`` names, SpecError for a trunk or normalisation that is not
    the file's, and for a configuration of a classifier that is not given.
    """
    if classifier is not None:
        check_trains(classifier)
        if config.model is None:
            if config.trunk is not None and config.trunk != TrunkSpec():
                raise SpecError(
                    f"the configuration names the trunk {config.trunk.name}, and {classifier.shown_name} is trained in "
                    "its place; leave trunk out, or the model"
                )
            config = dataclasses.replace(config, model=classifier.shown_name, trunk=None, normalisation=None)
        return dataclasses.replace(
            config, start_identity=_identity_of(classifier, type(classifier.module).__qualname__)
        )
    if config.model is not None:
        raise SpecError(
            f"this run trains the classifier {config.model}, whose code is not in its folder; give that too, with "
            "--model on the command line or model= in Python"
        )
    if config.start is None:
        return config
    network = load_network(config.start)
    identity, trunk = _identity(network), network.trunk.spec
    if config.start_identity not in (None, identity):
        raise WeightsError(
            f"{config.start} holds other weights ({identity}) than the configuration names "
            f"({config.start_identity}); give those, or leave start_identity out for a new run"
        )
    if config.trunk is not None and config.trunk != trunk:
        raise SpecError(f"trunk {config.trunk} is not that of {config.start}, {trunk}; leave it out")
    own = [name for name in NORMALISATIONS if _normalises(network, name)]
    if config.normalisation is not None and config.normalisation not in own:
        words = " or ".join(own) or "a mean and deviation of its own"
        raise SpecError(f"normalisation {config.normalisation!r} is not that of {config.start}, {words}; leave it out")
    normalisation = own[0] if own else None
    return dataclasses.replace(config, start_identity=identity, trunk=trunk, normalisation=normalisation)


def initial_network(
    config: RunConfig, streams: Streams, classifier: ForeignClassifier | None = None, images: Tensor | None = None
) -> Network:
    """The network a resolved run begins with, its tasks' heads still to be added.

    Of a ``classifier`` of another library it is a copy, which is run once on a few ``images``.
    """
    if classifier is not None and images is not None:
        return foreign_network(classifier, images)
    if config.start is not None:
        return load_network(config.start)
    normalisation = config.normalisation or "cifar10"
    return Network.build(config.trunk or TrunkSpec(), {}, normalisation=normalisation, streams=streams)


def check_outputs(network: ForeignNetwork, table: Table, config: RunConfig) -> None:
    """DataError if labels that a classifier of another library learns lie beyond its own outputs."""
    outputs = network.trunk.channels["logits"]
    for stage in config.stages:
        task = stage.tasks.get(FOREIGN_HEAD)
        column = task.settings.get("column", "label") if task is not None else None
        if task is None or task.task != "labels" or column is None:
            continue
        highest = int(table.labels(str(column)).max())
        if highest >= outputs:
            raise DataError(
                f"{table.name} has label {highest} in column {column!r}, and the classifier has {outputs} outputs; "
                "give the data that it was made for, or --classes with the names of its outputs"
            )


def _identity(network: Network) -> str:
    """Sixteen hex digits of architecture and weights; a file's other metadata take no part."""
    return _identity_of(network, json.dumps(network.architecture, sort_keys=True))


def _identity_of(module: nn.Module, words: str) -> str:
    digest = hashlib.blake2b(words.encode(), digest_size=8)
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _normalises(network: Network, name: str) -> bool:
    channels = network.trunk.spec.channels
    return all(
        len(values) in (1, channels) and torch.equal(buffer.flatten(), torch.tensor(values).expand(channels))
        for values, buffer in zip(NORMALISATIONS[name], (network.mean, network.std), strict=True)
    )
