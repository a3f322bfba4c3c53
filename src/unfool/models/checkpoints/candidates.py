# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Where in a checkpoint the weights are: every state dict in it, by its key."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unfool.core.errors import SpecError, WeightsError
from unfool.core.spec import unknown
from unfool.models.checkpoints.archive import REMEDY

_DEEPEST = 4
_ASIDE = ("optim", "sched", "scaler", "rng", "history", "metric", "loss", "state_dict_optimizer", "callbacks")
"""Parts of keys under which training programs keep tensors that are no weights."""
_PLAIN = (bool, int, float, str, bytes, type(None), np.generic)


def find_states(path: Path, checkpoint: object, key: str | None = None) -> dict[str, dict[str, Tensor]]:
    """The state dicts of a checkpoint by key; "" is the whole of it. With ``key``, that one alone.

    Raises SpecError for a key that is not there, with those that are, and WeightsError if there is no state dict or
    it holds anything but dense tensors with plain numbers beside them.
    """
    states = dict(_search(checkpoint, "", 0))
    if key is None:
        if not states:
            raise WeightsError(f"{path} holds {_kind(checkpoint)}, not a state dict; {REMEDY}")
        return {name: _plain_state(path, state) for name, state in states.items()}
    part = checkpoint
    for word in key.split("."):
        if isinstance(part, Mapping) and word in part:
            part = part[word]
        elif isinstance(part, Sequence) and not isinstance(part, str) and word.isdigit() and int(word) < len(part):
            part = part[int(word)]
        else:
            raise unknown(f"key of {path}", key[:80], [name for name in states if name] or _keys(checkpoint))
    if not isinstance(part, Mapping) or not _tensors_of(part):
        raise SpecError(f"key {key!r} of {path} holds {_kind(part)}, not a state dict; it has {', '.join(states)}")
    return {key: _plain_state(path, part)}


def _search(part: object, key: str, depth: int) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The outermost mappings that hold tensors and no state dict deeper in."""
    if depth > _DEEPEST:
        return
    inner: list[tuple[str, object]] = []
    if isinstance(part, Mapping):
        inner = [(str(name), value) for name, value in part.items()]
    elif isinstance(part, (list, tuple)) and len(part) <= 64:
        inner = [(str(index), value) for index, value in enumerate(part)]
    deeper = [
        nested
        for name, value in inner
        if isinstance(value, (Mapping, list, tuple)) and not any(word in name.lower() for word in _ASIDE)
        for nested in _search(value, f"{key}.{name}" if key else name, depth + 1)
    ]
    if deeper:
        yield from deeper
    elif isinstance(part, Mapping) and _tensors_of(part):
        yield key, part


def _tensors_of(part: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, (Tensor, np.ndarray)) for value in part.values())


def _plain_state(path: Path, state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors by name, without the numbers and texts beside them; WeightsError for anything else."""
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        shown = str(name)[:80]
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            value = torch.from_numpy(value)
        if isinstance(value, _PLAIN) or (isinstance(value, (Mapping, list, tuple)) and isinstance(name, str)):
            continue
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path} holds a {type(value).__name__} under {shown!r}, not a tensor; {REMEDY}")
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise WeightsError(f"{path}: {shown!r} is sparse, quantised or without values; {REMEDY}")
        # A view can claim any size.
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise WeightsError(f"{path}: {shown!r} claims to be larger than what is stored of it; {REMEDY}")
        tensors[name] = value.detach()
    return tensors


def _kind(part: object) -> str:
    if isinstance(part, Mapping):
        return f"no tensors under {reprlib.repr(list(part)[:3])}" if part else "an empty mapping"
    return f"a {type(part).__name__}"


def _keys(part: object) -> list[str]:
    return [str(name)[:80] for name in part] if isinstance(part, Mapping) else []
