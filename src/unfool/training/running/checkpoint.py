# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Checkpoints: one safetensors file with everything a killed run needs to end with the weights it would have had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unfool.core.errors import WeightsError
from unfool.models.weights import first_of, load_tensors, save_tensors
from unfool.training.stage import Stage


@dataclass(kw_only=True)
class RunState:
    """How far a run is: ``stage``, the next ``step`` in it and its time so far, lines of the log, and the cost."""

    stage: int = 0
    step: int = 0
    stage_seconds: float = 0.0
    lines: int = 0
    cpu_seconds: float = 0.0
    model_images: int = 0


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint file: tensors, the optimizers' ``scalars`` and keys of all state, the table's fingerprint."""

    tensors: dict[str, Tensor]
    scalars: dict[str, object]
    state_keys: list[str]
    table: str | None
    run_state: RunState


def save_checkpoint(
    path: Path,
    stage: Stage,
    optimizers: Sequence[torch.optim.Optimizer],
    run_state: RunState,
    table: str,
    selection: Mapping[str, Tensor],
) -> None:
    """Write weights, task state, optimizers' state, progress and the weights selected so far, whole or not at all."""
    tensors = {f"model/{name}": value for name, value in _own(stage).items()}
    tensors |= {f"ending/{name}": value for name, value in selection.items()}
    state = {
        f"{_prefix(number)}/{index}/{slot}": value
        for number, optimizer in enumerate(optimizers)
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
    }
    tensors |= {key: value for key, value in state.items() if isinstance(value, Tensor)}
    scalars = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
    # Listed, since it cannot be derived: a parameter that no gradient has reached has no state.
    save_tensors(
        path, tensors, {"progress": asdict(run_state), "scalars": scalars, "state": list(state), "table": table}
    )


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; WeightsError if the file is not one."""
    tensors, metadata = load_tensors(path)
    try:
        progress, scalars, keys = (metadata[name] for name in ("progress", "scalars", "state"))
        if not isinstance(progress, dict) or not isinstance(scalars, dict):
            raise ValueError("progress or scalars that are no mapping")
        progress = {"stage_seconds": 0.0, **progress}  # older checkpoints have none
        counts: dict[str, Any] = {item.name: progress[item.name] for item in fields(RunState)}
        if any(
            isinstance(count, bool) or not isinstance(count, (int, float)) or count < 0 for count in counts.values()
        ):
            raise ValueError("progress that is no count")
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("state that is no list of keys")
        table = metadata.get("table")
        return Checkpoint(
            tensors=tensors,
            scalars=scalars,
            state_keys=keys,
            table=None if table is None else str(table),
            run_state=RunState(**counts),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} is not a checkpoint of this program ({error}); delete it to start the run again"
        ) from error


def restore(
    saved: Checkpoint, stage: Stage, optimizers: Sequence[torch.optim.Optimizer], selection: Mapping[str, Tensor]
) -> None:
    """Put a checkpoint's tensors back in place; WeightsError if one is missing or does not fit.

    An optimizer's state must be whole, too: without one of its keys a parameter would silently begin afresh.
    """
    _check_state(saved)
    try:
        with torch.no_grad():
            for name, value in _own(stage).items():
                value.copy_(_fitting(saved.tensors[f"model/{name}"], value))
            for name, value in selection.items():
                value.copy_(_fitting(saved.tensors[f"ending/{name}"], value))
        for number, optimizer in enumerate(optimizers):
            slots = _slots(saved, f"{_prefix(number)}/", optimizer)
            optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(
            f"the checkpoint lacks or misshapes {error}; delete the run folder to start again"
        ) from error


def _check_state(saved: Checkpoint) -> None:
    """WeightsError unless the optimizers' state in the checkpoint is all that was saved, and nothing else."""
    listed = set(saved.state_keys)
    stored = {key for key in (*saved.tensors, *saved.scalars) if key.startswith(_prefix(0))}
    faults = [
        f"{fault} {len(keys)} entries of its optimizers' state ({first_of(sorted(keys))})"
        for fault, keys in (("lacks", listed - stored), ("adds", stored - listed))
        if keys
    ]
    if faults:
        raise WeightsError(f"the checkpoint {' and '.join(faults)}; delete the run folder to start again")


def _slots(saved: Checkpoint, prefix: str, optimizer: torch.optim.Optimizer) -> dict[int, dict[str, object]]:
    """An optimizer's state by parameter number, in each parameter's own memory order, as a first step leaves it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, object]] = {}
    for key, value in {**saved.tensors, **saved.scalars}.items():
        if not key.startswith(prefix):
            continue
        number, slot = key.removeprefix(prefix).split("/")
        parameter = parameters[int(number)]
        # Adam counts the steps of each parameter; every other tensor is of the parameter's own shape.
        if isinstance(value, Tensor) and slot != "step":
            value = torch.empty_like(parameter, requires_grad=False).copy_(_fitting(value, parameter))
        state.setdefault(int(number), {})[slot] = value
    return state


def _prefix(number: int) -> str:
    """What an optimizer's state is stored under; number 0 is the stage's own."""
    return f"optimizer {number}" if number else "optimizer"


def _fitting(saved: Tensor, value: Tensor) -> Tensor:
    """The stored tensor; ValueError for one of another shape."""
    # copy_ alone would broadcast a tensor of another shape in silence.
    if saved.shape != value.shape:
        raise ValueError(f"a tensor of shape {tuple(saved.shape)} where {tuple(value.shape)} belongs")
    return saved


def _own(stage: Stage) -> dict[str, Tensor]:
    """The stage's state with every tensor once: a head that network and task share has the network's name."""
    seen: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, value in stage.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            own[name] = value.detach()
    return own
