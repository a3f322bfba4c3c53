# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Weights that other programs wrote, read with suspicion and fitted to a module of the user's."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unfool.core.errors import UnfoolWarning, WeightsError
from unfool.models.weights import check_finite, first_of, load_tensors

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training programs file the weights, beside epochs and optimizer states."""
_DEEPEST = 4
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What `DataParallel`, `torch.compile` and the usual wrappers put before every name."""
_REMEDY = "save model.state_dict() with the program that wrote it"


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The named tensors (CPU) of a ``.safetensors`` file of any program, or of a `torch.save` checkpoint.

    A checkpoint is read by ``torch.load(weights_only=True)``, with an UnfoolWarning; ``{"state_dict": ...}`` and the
    like are unwrapped, with another. Raises WeightsError for a safetensors file as `read_header` does, for a
    checkpoint that ``weights_only`` refuses (no other way is tried), for anything in it that is no plain tensor, and
    for NaN or infinite values.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return load_tensors(path, foreign=True)[0]
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}; check the path")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Whatever a malformed pickle or archive makes of its readers.
        raise WeightsError(f"{path} {_refusal(error)}; {_REMEDY}") from error
    note = f"{path} is a pickle; it was read with weights_only=True, which runs no code of its own"
    warnings.warn(f"{note}; make safetensors of it with unfool convert", UnfoolWarning, stacklevel=2)
    state = _unwrapped(path, checkpoint)
    for name, tensor in state.items():
        _check_plain(path, name, tensor)
    check_finite(state, str(path))
    return {name: tensor.detach() for name, tensor in state.items()}


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> dict[str, Tensor]:
    """Copy a state dict into a module, every name and shape as the module has it; the tensors by the module's names.

    One of `PREFIXES` before all names is left out, with an UnfoolWarning. Raises WeightsError that names
    what is missing, unexpected or of another shape or kind; then the module is unchanged.
    """
    wanted = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    tensors = stripped(tensors, wanted, where)
    check_fit(tensors, wanted, where, "the model", "give the weights of this model")
    try:
        module.load_state_dict(tensors, strict=True)
    except Exception as error:  # A module may have loading code of its own.
        said = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{where} cannot be loaded into the model ({said}); give the weights of this model"
        ) from error
    return tensors


def check_fit(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str | Path, what: str, remedy: str
) -> None:
    """Raise WeightsError that names what is missing, unexpected or of another shape or kind than ``what`` wants it."""
    missing = [name[:80] for name in wanted if name not in tensors]
    excess = [name[:80] for name in tensors if name not in wanted]
    if missing or excess:
        faults = [f"lacks {len(missing)}: {first_of(missing)}"] if missing else []
        faults += [f"has {len(excess)} unexpected: {first_of(excess)}"] if excess else []
        raise WeightsError(f"{where} does not fit {what}, it {' and '.join(faults)}; {remedy}")
    for name, tensor in wanted.items():
        loaded = tensors[name]
        if loaded.shape != tensor.shape or loaded.is_floating_point() != tensor.is_floating_point():
            kinds = [f"{value.dtype} {tuple(value.shape)}" for value in (loaded, tensor)]
            raise WeightsError(f"{where}: tensor {name[:80]!r} is {kinds[0]}; {what} has {kinds[1]}; {remedy}")


def _refusal(error: Exception) -> str:
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused is not None:
        return f"is refused: it needs {refused[1]}, which weights_only=True does not load"
    # PyTorch surrounds what is wrong with advice to load the file without protection.
    said = str(error).partition("WeightsUnpickler error:")[2].partition("Check the documentation")[0] or str(error)
    said = " ".join(said.split())[:100]
    return f"is refused by torch.load(weights_only=True) ({type(error).__name__}: {said})"


def _unwrapped(path: Path, checkpoint: Any) -> dict[str, Tensor]:
    """The innermost mapping, by the keys of `_WRAPPERS`."""
    keys: list[str] = []
    while isinstance(checkpoint, Mapping) and len(keys) < _DEEPEST:
        key = next((key for key in _WRAPPERS if isinstance(checkpoint.get(key), Mapping)), None)
        if key is None:
            break
        checkpoint, keys = checkpoint[key], [*keys, key]
    if keys:
        warnings.warn(f"{path}: its weights were taken from {'.'.join(keys)!r}", UnfoolWarning, stacklevel=3)
    if not isinstance(checkpoint, Mapping) or not checkpoint:
        kind = "an empty mapping" if isinstance(checkpoint, Mapping) else f"a {type(checkpoint).__name__}"
        raise WeightsError(f"{path} holds {kind}, not a state dict; {_REMEDY}")
    return dict(checkpoint)


def _check_plain(path: Path, name: Any, tensor: Any) -> None:
    """A dense CPU tensor that lies in memory as large as it is: a view can claim any size."""
    shown = str(name)[:80]
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise WeightsError(f"{path} holds a {type(tensor).__name__} under {shown!r}, not a tensor; {_REMEDY}")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise WeightsError(f"{path}: {shown!r} is sparse, quantised or without values; {_REMEDY}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise WeightsError(f"{path}: {shown!r} claims to be larger than what is stored of it; {_REMEDY}")


def stripped(tensors: Mapping[str, Tensor], wanted: Collection[str], where: str | Path) -> dict[str, Tensor]:
    """The same tensors without the prefixes that all names share, until one is wanted; an UnfoolWarning says so."""
    renamed, gone = dict(tensors), ""
    while renamed and not any(name in renamed for name in wanted):
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in renamed)), None)
        if prefix is None:
            break
        renamed, gone = {name.removeprefix(prefix): tensor for name, tensor in renamed.items()}, gone + prefix
    if gone:
        warnings.warn(f"{where}: the prefix {gone!r} before all names was left out", UnfoolWarning, stacklevel=3)
    return renamed
