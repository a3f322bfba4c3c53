"""The fast copy that a defense takes its gradients on, made once and kept beside the defense, not in it.

A module's own attributes count towards its identity, its copies and its state; a fast copy belongs to none of these.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import Tensor, nn

from unfool.defenses.pretext import TaskLoss
from unfool.models.fast import fast_copy
from unfool.tasks.base import Task

_COPIES: WeakKeyDictionary[nn.Module, tuple[tuple[object, ...], TaskLoss]] = WeakKeyDictionary()


def fast_copy_of(owner: nn.Module, network: nn.Module, task: Task, precision: str) -> TaskLoss:
    """The folded, frozen, channels-last copy of network and task that belongs to ``owner``.

    It is copied again once a weight has been written, moved or converted. Raises SpecError for an unknown precision.
    """
    loss = TaskLoss(network, task)
    state = (precision, *(_state(tensor) for tensor in (*loss.parameters(), *loss.buffers())))
    known = _COPIES.get(owner)
    if known is None or known[0] != state:
        known = state, fast_copy(loss, dtype=precision)
        _COPIES[owner] = known
    return known[1]


def _state(tensor: Tensor) -> tuple[object, ...]:
    """Changes whenever the tensor's values may have."""
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, tensor.dtype, tensor.device
