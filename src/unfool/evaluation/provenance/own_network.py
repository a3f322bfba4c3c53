"""A network of unfool's own as bytes: its architecture and its weights, whatever the version of Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from torch import nn

from unfool.core.errors import SpecError
from unfool.evaluation.provenance.origin import library_of
from unfool.evaluation.provenance.parts import class_name, tensor_pieces
from unfool.evaluation.provenance.values import HOOKS, PLUMBING
from unfool.models.network import Network


def architecture_of(part: nn.Module) -> str | None:
    """The description of a Network that is as it was built but for its weights; None for anything else.

    A method or a setting of a layer that was replaced since is in no description.
    """
    if type(part) is not Network:
        return None
    for inner in part.modules():
        if library_of(type(inner).__module__) is None or any(getattr(inner, table) for table in HOOKS):
            return None
    try:
        architecture = part.architecture
        # Mean and deviation are buffers, which may hold what no network is built with.
        plain = json.dumps({**architecture, "mean": [0.0], "std": [1.0]})
        return json.dumps(architecture, sort_keys=True) if _attributes(part) == _attributes_as_built(plain) else None
    except (SpecError, RuntimeError, TypeError, ValueError):  # Tensors and arrays as attributes do not compare.
        return None


@lru_cache(maxsize=64)
def _attributes_as_built(architecture: str) -> dict[str, tuple[type, dict[str, Any]]]:
    return _attributes(Network.empty(json.loads(architecture)))


def _attributes(network: Network) -> dict[str, tuple[type, dict[str, Any]]]:
    """By name of a part its class and its attributes, but for those that every module has."""
    return {
        name: (type(part), {key: value for key, value in vars(part).items() if key not in PLUMBING})
        for name, part in network.named_modules(remove_duplicate=False)
    }


def network_pieces(name: str, part: nn.Module, architecture: str = "") -> Iterator[bytes | memoryview]:
    """Class, description, parameters and buffers of a network, part by part."""
    yield f"\n{name}:{class_name(part)}".encode()
    yield architecture.encode()
    for key, tensor in (*part._parameters.items(), *part._buffers.items()):
        yield f"\n{name}.{key}=".encode()
        if tensor is None:
            yield b"builtins.NoneType None;"
        else:
            yield from tensor_pieces(tensor)
    for key, child in part._modules.items():
        if child is not None:
            yield from network_pieces(f"{name}.{key}", child)
