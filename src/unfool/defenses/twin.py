"""The fast copy that a defense takes its gradients on, made once and kept beside the defense, not in it.

A module's own attributes count towards its identity, its copies and its state; a twin is none of these.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import Tensor, nn

from unfool.defenses.objective import Pretext
from unfool.models.fast import search_copy
from unfool.tasks.base import Task

_TWINS: WeakKeyDictionary[nn.Module, tuple[tuple[object, ...], Pretext]] = WeakKeyDictionary()


def twin_of(owner: nn.Module, network: nn.Module, task: Task, precision: str) -> Pretext:
    """The folded, frozen, channels-last copy of network and task that belongs to ``owner``.

    Made anew where a weight has been written, moved or converted since. Raises SpecError for an unknown precision.
    """
    pretext = Pretext(network, task)
    stamp = (precision, *(_stamp(tensor) for tensor in (*pretext.parameters(), *pretext.buffers())))
    known = _TWINS.get(owner)
    if known is None or known[0] != stamp:
        known = stamp, search_copy(pretext, dtype=precision)
        _TWINS[owner] = known
    return known[1]


def _stamp(tensor: Tensor) -> tuple[object, ...]:
    """Changes whenever the tensor's values may have."""
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, tensor.dtype, tensor.device
