# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Weights that other programs wrote, read with suspicion and fitted to a module of the user's."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from unfool.core.errors import SpecError, UnfoolWarning, WeightsError
from unfool.models.checkpoints.archive import read_archive
from unfool.models.checkpoints.candidates import find_states, is_average
from unfool.models.checkpoints.kinds import check_kind, is_safetensors
from unfool.models.checkpoints.names import PREFIXES, Fit, Wanted, dotted, fits, without
from unfool.models.checkpoints.several_files import read_arrays, read_parts
from unfool.models.weights import check_finite, first_of, load_tensors

States = dict[str, dict[str, Tensor]]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_states(path: str | Path, key: str | None = None) -> States:
    """The state dicts (CPU) in a safetensors file of any program, the ``.index.json`` of several, a `torch.save`
    checkpoint, a TorchScript file or a ``.npz`` archive.

    By key, "" being the whole file; with ``key``, such as ``model_ema`` or ``0.state_dict``, that one alone. Raises
    WeightsError for a safetensors file as `read_header` does, for a checkpoint that ``weights_only=True`` refuses (no
    other way is tried), for anything in it that is no plain tensor and for a file of another kind; SpecError for a key
    that is not there.
    """
    path = Path(path)
    check_kind(path)
    if path.name.endswith(".index.json"):
        return find_states(path, read_parts(path), key)
    if path.suffix == ".npz":
        return find_states(path, read_arrays(path), key)
    if is_safetensors(path):
        if key is not None:
            raise SpecError(f"{path} is safetensors, which has no keys; leave --key {key} out")
        return {"": load_tensors(path, foreign=True)[0]}
    return find_states(path, read_archive(path), key)


def read_state(path: str | Path, *, key: str | None = None, prefix: str | None = None) -> dict[str, Tensor]:
    """The one state dict of a file, its tensors by the file's names without ``prefix``.

    Raises as `read_states` does, SpecError where the file holds several and no key says which, and WeightsError for
    NaN or infinite values.
    """
    states = read_states(path, key)
    if len(states) > 1:
        raise SpecError(f"{_several(path, states)}; choose with --key, or give the model that it belongs to")
    [(own_key, state)] = states.items()
    _tell_key(path, own_key, key)
    prefix = dotted(prefix, state)
    state = state if prefix is None else without(prefix, state, path)
    _check_types(state, path)
    check_finite(state, str(path))
    return state


def load_weights(
    module: nn.Module, path: str | Path, *, key: str | None = None, prefix: str | None = None
) -> dict[str, Tensor]:
    """Read the weights of a module from a file and copy them into it; the tensors by the module's names.

    Of several state dicts in the file, that which fits the module is taken. Raises SpecError where several fit and
    differ, such as weights and their average, and as `read_states` and `load_state` do; then the module is unchanged.
    """
    states = read_states(path, key)
    wanted = Wanted.of(module)
    fitting = {name: state for name, state in states.items() if _fitting(state, wanted, prefix)}
    for state in fitting.values():
        _check_types(state, path)
    distinct = _distinct(fitting)
    if len(distinct) > 1:
        raise SpecError(f"{_several(path, distinct)}, which all fit the model; choose one with --key")
    own_key = next(iter(distinct or states))
    if not distinct and len(states) > 1:
        raise WeightsError(f"{_several(path, states)}, none of which fits the model: {_reason(module, states, prefix)}")
    _tell_key(path, own_key, key)
    if averages := [name for name in states if name not in fitting and is_average(name)]:
        warnings.warn(f"{path}: {averages[0]!r} does not fit the model and is not read", UnfoolWarning, stacklevel=2)
    return load_state(module, states[own_key], path, prefix=prefix)


def load_state(
    module: nn.Module, tensors: Mapping[str, Tensor], where: str | Path, *, prefix: str | None = None
) -> dict[str, Tensor]:
    """Copy a state dict into a module, every name and shape as the module has it; the tensors by the module's names.

    A prefix before all names, on either side, is left out or added, with an UnfoolWarning; counters that it lacks stay
    as they are. Raises WeightsError that names what is missing, unexpected or of another shape or kind, SpecError
    where several prefixes fit with different values; then the module is unchanged.
    """
    _check_types(tensors, where)
    check_finite(tensors, str(where))
    wanted, prefix = Wanted.of(module), dotted(prefix, tensors)
    ways = fits(tensors, wanted, prefix)
    # Names alone fit easily once a prefix is put before them.
    ways = [way for way in ways if _fits_shapes([way], wanted)] or [way for way in ways if not way.added]
    if len(ways) > 1:
        names = ", ".join(repr(way.prefix) for way in ways[:6])
        raise SpecError(f"{where} holds the weights under {names}, with different values; choose with --prefix")
    if ways:
        for note in ways[0].notes:
            warnings.warn(f"{where}: {note}", UnfoolWarning, stacklevel=2)
        tensors = ways[0].tensors
    else:
        tensors = without(prefix, tensors, where) if prefix else stripped(tensors, wanted.tensors, where)
    check_fit(tensors, wanted.tensors, where, "the model", "give the weights of this model")
    _check_range(tensors, wanted.tensors, where)
    try:
        module.load_state_dict(tensors, strict=True)
    except Exception as error:  # A module may have loading code of its own.
        said = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{where} cannot be loaded into the model ({said}); give the weights of this model"
        ) from error
    return dict(tensors)


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
    unlike = [name for name, tensor in wanted.items() if not _alike(tensors[name], tensor)]
    for name in unlike[:1]:
        kinds = [f"{value.dtype} {tuple(value.shape)}" for value in (tensors[name], wanted[name])]
        others = f" ({len(unlike) - 1} more differ: {first_of(unlike[1:])})" if len(unlike) > 1 else ""
        raise WeightsError(f"{where}: tensor {name[:80]!r} is {kinds[0]}; {what} has {kinds[1]}{others}; {remedy}")


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


def _check_types(tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """WeightsError for numbers that PyTorch only stores, such as float8."""
    for name, tensor in tensors.items():
        if tensor.is_quantized or (tensor.is_floating_point() and tensor.dtype not in _FLOATS):
            raise WeightsError(
                f"{where}: tensor {name[:80]!r} is {tensor.dtype}, which cannot be computed with; allowed: "
                f"{', '.join(map(str, _FLOATS))}; save it again after .dequantize() or .float()"
            )


def _check_range(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str | Path) -> None:
    """WeightsError for values that are other numbers in the type that the model has."""
    for name, own in wanted.items():
        tensor = tensors[name]
        cast = tensor.to(own.dtype)
        if not (torch.isfinite(cast).all() if cast.is_floating_point() else torch.equal(cast.to(tensor.dtype), tensor)):
            raise WeightsError(
                f"{where}: tensor {name[:80]!r} is {tensor.dtype} and holds values beyond {own.dtype}, which the model "
                "has; give the weights of this model"
            )


def _alike(loaded: Tensor, tensor: Tensor) -> bool:
    """Same shape and kind of numbers: whole, floating or complex; a lazy layer takes any shape."""
    if isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer)):
        return True
    return loaded.shape == tensor.shape and all(
        kind(loaded) == kind(tensor) for kind in (torch.is_floating_point, torch.is_complex)
    )


def _fits_shapes(ways: list[Fit], wanted: Wanted) -> bool:
    return any(all(_alike(way.tensors[name], tensor) for name, tensor in wanted.tensors.items()) for way in ways)


def _fitting(state: Mapping[str, Tensor], wanted: Wanted, prefix: str | None) -> bool:
    return _fits_shapes(fits(state, wanted, dotted(prefix, state)), wanted)


def _distinct(states: States) -> States:
    """The state dicts without those that repeat an earlier one."""
    kept: States = {}
    for name, state in states.items():
        if not any(_equal(state, other) for other in kept.values()):
            kept[name] = state
    return kept


def _equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _several(path: str | Path, states: States) -> str:
    names = [repr(name) for name in states]
    return f"{path} holds {len(names)} sets of weights: {', '.join(names[:6])}{', …' if len(names) > 6 else ''}"


def _reason(module: nn.Module, states: States, prefix: str | None) -> str:
    """Why the largest of several state dicts does not fit."""
    key = max(states, key=lambda name: len(states[name]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnfoolWarning)
            load_state(module, states[key], repr(key), prefix=prefix)
    except (WeightsError, SpecError) as error:
        return str(error)
    return "give the weights of this model"


def _tell_key(path: str | Path, own_key: str, key: str | None) -> None:
    if own_key and own_key != key:
        warnings.warn(f"{path}: its weights were taken from {own_key!r}", UnfoolWarning, stacklevel=3)
