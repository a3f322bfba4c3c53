"""A network of unfool's own as bytes: its architecture and its weights, whatever the version of Python."""

from __future__ import annotations

import json
from collections.abc import Iterator

from torch import nn

from unfool.core.errors import SpecError
from unfool.evaluation.provenance.origin import library_of
from unfool.evaluation.provenance.parts import class_name, tensor_pieces
from unfool.evaluation.provenance.values import HOOKS
from unfool.models.network import Network


def architecture_of(part: nn.Module) -> str | None:
    """The description of a Network all of whose parts are a library's; None for anything else."""
    if type(part) is not Network:
        return None
    for inner in part.modules():
        if library_of(type(inner).__module__) is None or any(getattr(inner, table) for table in HOOKS):
            return None
    try:
        return json.dumps(part.architecture, sort_keys=True)
    except SpecError:
        return None


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
