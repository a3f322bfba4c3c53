"""Names of a checkpoint's tensors against those of a model: prefixes on either side, counters, what is left over."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unfool.core.errors import SpecError

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What `DataParallel`, `torch.compile` and the usual wrappers put before every name."""
_BESIDE = re.compile(r"n_averaged|(.*\.)?total_(ops|params)|(.*\.)?_metadata")
"""Tensors that averaging and profiling write beside the weights."""
_ANCHORS = 8


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The tensors of a model by name, and which of them are parameters."""

    tensors: Mapping[str, Tensor]
    parameters: Collection[str]

    @classmethod
    def of(cls, module: nn.Module) -> Wanted:
        """What a module's own state dict holds."""
        tensors = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
        return cls(tensors=tensors, parameters={name for name, _ in module.named_parameters(remove_duplicate=False)})

    def may_lack(self, name: str) -> bool:
        """Counters and indices, which a model has right from the start."""
        tensor = self.tensors[name]
        return name not in self.parameters and not tensor.is_floating_point() and not tensor.is_complex()


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One way to read a checkpoint's names as a model's: ``prefix`` is left out, ``added`` is put before all names."""

    tensors: dict[str, Tensor]
    prefix: str
    added: str
    left_out: tuple[str, ...]
    own: tuple[str, ...]
    """Tensors of the model that the file does not have, and that stay as they are."""

    @property
    def notes(self) -> list[str]:
        """What to tell of it."""
        notes = [f"the prefix {self.prefix!r} before all names was left out"] if self.prefix else []
        notes += [f"the prefix {self.added!r} was put before all names"] if self.added else []
        if self.left_out:
            notes.append(f"{len(self.left_out)} other tensors were left out, such as {self.left_out[0][:80]}")
        own = [name for name in self.own if not name.endswith("num_batches_tracked")]
        if own:
            notes.append(f"{len(own)} buffers that it lacks stay as the model has them, such as {own[0][:80]}")
        return notes


def fits(state: Mapping[str, Tensor], wanted: Wanted, prefix: str | None = None) -> list[Fit]:
    """All ways in which every tensor of the model is in the state, by prefix; equal ones once, the shortest first.

    ``prefix`` is the only one that is tried, if given. Shapes are not looked at.
    """
    state = {name: tensor for name, tensor in state.items() if not _BESIDE.fullmatch(name)}
    for added in _own_prefixes(wanted):
        names = [name.removeprefix(added) for name in wanted.tensors if name.startswith(added)]
        prefixes = (
            [prefix] if prefix is not None else _prefixes(state, [n for n in names if added + n in wanted.parameters])
        )
        ways = [fit for before in prefixes if (fit := _fit(state, wanted, before, added, names)) is not None]
        if ways:
            ways.sort(key=lambda fit: ("attacker." in fit.prefix, len(fit.prefix)))
            kept: list[Fit] = []
            for way in ways:
                if not any(_same(way, other) for other in kept):
                    kept.append(way)
            return kept
    return []


def _fit(state: Mapping[str, Tensor], wanted: Wanted, prefix: str, added: str, names: list[str]) -> Fit | None:
    tensors: dict[str, Tensor] = {}
    own = [name for name in wanted.tensors if not name.startswith(added)]
    for name in names:
        if prefix + name in state:
            tensors[added + name] = _counter(state[prefix + name], wanted, added + name)
        elif wanted.may_lack(added + name):
            own.append(added + name)
        else:
            return None
    used = {prefix + name for name in names}
    rest = [name for name in state if name not in used]
    # What lies under the same prefix belongs to the same network, which is then another one.
    if not tensors or any(name.startswith(prefix) for name in rest):
        return None
    tensors |= {name: wanted.tensors[name].detach().clone() for name in own}
    ordered = {name: tensors[name] for name in wanted.tensors}
    return Fit(tensors=ordered, prefix=prefix, added=added, left_out=tuple(rest), own=tuple(own))


def _counter(loaded: Tensor, wanted: Wanted, name: str) -> Tensor:
    """A counter that was averaged with the weights, as the whole number that it is again."""
    if not loaded.is_floating_point() or not wanted.may_lack(name) or not torch.equal(loaded, loaded.round()):
        return loaded
    return loaded.to(wanted.tensors[name].dtype)


def _own_prefixes(wanted: Wanted) -> list[str]:
    """What all parameters of the model begin with: nothing, then one part more each time."""
    first = next(iter(wanted.parameters), "")
    prefixes, start = [""], 0
    while (dot := first.find(".", start)) >= 0:
        prefix, start = first[: dot + 1], dot + 1
        if not all(name.startswith(prefix) for name in wanted.parameters):
            break
        prefixes.append(prefix)
    return prefixes


def _prefixes(state: Mapping[str, Tensor], names: list[str]) -> list[str]:
    """What may stand before the names of the model in the state."""
    prefixes: dict[str, None] = {}
    for anchor in names[:_ANCHORS]:
        for name in state:
            if name == anchor or name.endswith(f".{anchor}"):
                prefixes.setdefault(name[: len(name) - len(anchor)])
    return list(prefixes)[:64]


def _same(first: Fit, second: Fit) -> bool:
    return all(
        tensor.shape == second.tensors[name].shape and torch.equal(tensor, second.tensors[name])
        for name, tensor in first.tensors.items()
    )


def dotted(prefix: str | None, state: Mapping[str, Tensor]) -> str | None:
    """A prefix that was written without its last dot, with it."""
    if not prefix or prefix.endswith(".") or not any(name.startswith(f"{prefix}.") for name in state):
        return prefix
    return f"{prefix}."


def without(prefix: str, state: Mapping[str, Tensor], where: object) -> dict[str, Tensor]:
    """The tensors whose names begin so, without it; SpecError if there are none."""
    inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not inner:
        seen = sorted({name.partition(".")[0] + "." for name in state if "." in name})
        raise SpecError(f"no name in {where} begins with {prefix[:80]!r}; they begin with {', '.join(seen[:6])}")
    return inner
