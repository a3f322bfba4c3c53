# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Where in a checkpoint the weights are: every state dict in it, by its key."""

from __future__ import annotations

import re
import reprlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unfool.core.batch import tensor_of_array
from unfool.core.errors import SpecError, UnfoolWarning, WeightsError
from unfool.core.spec import unknown
from unfool.models.checkpoints.archive import REMEDY

_DEEPEST = 4
_ASIDE = ("optim", "sched", "scaler", "rng", "history", "metric", "loss", "state_dict_optimizer", "callbacks")
"""Parts of keys under which training programs keep tensors that are no weights."""
_AVERAGE = re.compile(r"ema|averag|swa|shadow")
_PLAIN = (bool, int, float, str, bytes, type(None), np.generic)


def find_states(path: Path, checkpoint: object, key: str | None = None) -> dict[str, dict[str, Tensor]]:
    """The state dicts of a checkpoint by key; "" is the whole of it. With ``key``, that one alone.

    Raises SpecError for a key that is not there, with those that are, and WeightsError if there is no state dict or
    it holds anything but dense tensors with plain numbers beside them.
    """
    states = dict(_search(checkpoint, "", 0, set()))
    if key is None:
        if not states:
            raise WeightsError(f"{path} holds {_kind(checkpoint)}, not a state dict; {REMEDY}")
        _tell_averages(path, checkpoint, states)
        return {name: _plain_state(path, state) for name, state in states.items()}
    try:
        part = _at(checkpoint, key)
    except KeyError:
        raise unknown(f"key of {path}", key[:80], [name for name in states if name] or _keys(checkpoint)) from None
    if isinstance(part, Mapping) and _tensors_of(part):
        return {key: _plain_state(path, part)}
    inner = dict(_search(part, key, 0, set()))
    if not inner:
        raise SpecError(f"key {key!r} of {path} holds {_kind(part)}, not a state dict; it has {', '.join(states)}")
    return {name: _plain_state(path, state) for name, state in inner.items()}


def _at(part: object, key: str) -> object:
    """What lies under a key, whose names may hold dots themselves; KeyError if nothing does."""
    if isinstance(part, Mapping):
        for name, value in part.items():
            word = str(name)
            if key == word:
                return value
            if key.startswith(f"{word}."):
                with suppress(KeyError):
                    return _at(value, key[len(word) + 1 :])
    elif isinstance(part, (list, tuple)):
        word, _, rest = key.partition(".")
        if word.isdecimal() and int(word) < len(part):
            return _at(part[int(word)], rest) if rest else part[int(word)]
    raise KeyError(key)


def _tell_averages(path: Path, checkpoint: object, states: Mapping[str, Any]) -> None:
    """Tell of averages beside the weights that are kept in a form without names."""
    if not isinstance(checkpoint, Mapping):
        return
    unread = [
        str(name)[:80]
        for name, value in checkpoint.items()
        if is_average(str(name))
        and not isinstance(value, Tensor)
        and _holds_tensors(value, 0)
        and not any(key.startswith(str(name)) for key in states)
    ]
    if unread and states:
        note = f"{path}: beside the weights, {unread[0]!r} holds tensors without names, perhaps their average"
        warnings.warn(f"{note}, which is not read", UnfoolWarning, stacklevel=4)


def is_average(key: str) -> bool:
    """Whether a key is called as averages of weights are."""
    return _AVERAGE.search(key.lower()) is not None


def _holds_tensors(part: object, depth: int) -> bool:
    if isinstance(part, Tensor):
        return True
    values = list(part.values()) if isinstance(part, Mapping) else part if isinstance(part, (list, tuple)) else []
    return depth < 2 and any(_holds_tensors(value, depth + 1) for value in values[:64])


def _search(part: object, key: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The outermost mappings that hold tensors and no state dict deeper in; what lies at several places once."""
    if depth > _DEEPEST or id(part) in seen:
        return
    seen.add(id(part))
    inner: list[tuple[str, object]] = []
    if isinstance(part, Mapping):
        inner = [(str(name), value) for name, value in part.items()]
    elif isinstance(part, (list, tuple)) and len(part) <= 64:
        inner = [(str(index), value) for index, value in enumerate(part)]
    deeper = [
        nested
        for name, value in inner
        if isinstance(value, (Mapping, list, tuple)) and not any(word in name.lower() for word in _ASIDE)
        for nested in _search(value, f"{key}.{name}" if key else name, depth + 1, seen)
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
            value = tensor_of_array(value, f"{path}: {shown!r} is", WeightsError, REMEDY)
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
