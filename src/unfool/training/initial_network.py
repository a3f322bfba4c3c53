"""Where a run's network comes from: fresh weights, or those of a file to start from."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import torch

from unfool.core.errors import SpecError, WeightsError
from unfool.core.streams import Streams
from unfool.models.network import NORMALISATIONS, Network
from unfool.models.trunks import TrunkSpec
from unfool.models.weights import load_network
from unfool.training.config import RunConfig


def resolve_start(config: RunConfig) -> RunConfig:
    """The same configuration with what its ``start`` file settles: identity, trunk and normalisation.

    Raises WeightsError for a file that cannot be trusted, or holds other weights than ``start_identity`` names,
    SpecError for a trunk or normalisation that is not the file's.
    """
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


def initial_network(config: RunConfig, streams: Streams) -> Network:
    """The network a resolved run begins with, its tasks' heads still to be added."""
    if config.start is not None:
        return load_network(config.start)
    normalisation = config.normalisation or "cifar10"
    return Network.build(config.trunk or TrunkSpec(), {}, normalisation=normalisation, streams=streams)


def _identity(network: Network) -> str:
    """Sixteen hex digits of architecture and weights; a file's other metadata take no part."""
    digest = hashlib.blake2b(json.dumps(network.architecture, sort_keys=True).encode(), digest_size=8)
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _normalises(network: Network, name: str) -> bool:
    channels = network.trunk.spec.channels
    return all(
        len(values) in (1, channels) and torch.equal(buffer.flatten(), torch.tensor(values).expand(channels))
        for values, buffer in zip(NORMALISATIONS[name], (network.mean, network.std), strict=True)
    )
