"""Checkpoints: one safetensors file with everything a killed run needs to end with the weights it would have had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unfool.core.errors import WeightsError
from unfool.models.weights import load_tensors, save_tensors
from unfool.training.stage import Stage


@dataclass(kw_only=True)
class Progress:
    """How far a run is: ``stage``, the next ``step`` in it, lines of the log, and what it has cost so far."""

    stage: int = 0
    step: int = 0
    lines: int = 0
    cpu_seconds: float = 0.0
    model_images: int = 0


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint file holds; ``metadata`` has the optimizers' ``scalars`` and the ``table``'s fingerprint."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    progress: Progress


def save_checkpoint(
    path: Path,
    stage: Stage,
    optimizers: Sequence[torch.optim.Optimizer],
    progress: Progress,
    table: str,
    ending: Mapping[str, Tensor],
) -> None:
    """Write weights, task state, optimizers' state, progress and what the stage will end with, whole or not at all."""
    tensors = {f"model/{name}": value for name, value in _own(stage).items()}
    tensors |= {f"ending/{name}": value for name, value in ending.items()}
    scalars: dict[str, Any] = {}
    for place, optimizer in enumerate(optimizers):
        for index, slots in optimizer.state_dict()["state"].items():
            for slot, value in slots.items():
                kept = tensors if isinstance(value, Tensor) else scalars
                kept[f"{_named(place)}/{index}/{slot}"] = value
    save_tensors(path, tensors, {"progress": asdict(progress), "scalars": scalars, "table": table})


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; WeightsError if the file is not one."""
    tensors, metadata = load_tensors(path)
    try:
        values = {item.name: metadata["progress"][item.name] for item in fields(Progress)}
        if any(
            isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0 for value in values.values()
        ):
            raise ValueError("progress that is no count")
        if not isinstance(metadata["scalars"], dict):
            raise ValueError("scalars that are no mapping")
        return Checkpoint(tensors=tensors, metadata=metadata, progress=Progress(**values))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} is not a checkpoint of this program ({error}); delete it to start the run again"
        ) from error


def restore(
    saved: Checkpoint, stage: Stage, optimizers: Sequence[torch.optim.Optimizer], ending: Mapping[str, Tensor]
) -> None:
    """Put a checkpoint's tensors back in place; WeightsError if one is missing or does not fit."""
    try:
        with torch.no_grad():
            for name, value in _own(stage).items():
                value.copy_(_fitting(saved.tensors[f"model/{name}"], value))
            for name, value in ending.items():
                value.copy_(_fitting(saved.tensors[f"ending/{name}"], value))
        for place, optimizer in enumerate(optimizers):
            slots = _slots(saved, f"{_named(place)}/", optimizer)
            optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(
            f"the checkpoint lacks or misshapes {error}; delete the run folder to start again"
        ) from error


def _slots(saved: Checkpoint, prefix: str, optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """An optimizer's state by parameter number, in each parameter's own memory order, as a first step leaves it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**saved.tensors, **saved.metadata["scalars"]}.items():
        if not key.startswith(prefix):
            continue
        number, slot = key.removeprefix(prefix).split("/")
        parameter = parameters[int(number)]
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        state.setdefault(int(number), {})[slot] = value
    return state


def _named(place: int) -> str:
    """What the state of an optimizer is kept under: the stage's own comes first."""
    return f"optimizer {place}" if place else "optimizer"


def _fitting(saved: Tensor, value: Tensor) -> Tensor:
    # copy_ alone would broadcast a tensor of another shape in silence.
    if saved.shape != value.shape:
        raise ValueError(f"a tensor of shape {tuple(saved.shape)} where {tuple(value.shape)} belongs")
    return saved


def _own(stage: Stage) -> dict[str, Tensor]:
    """The stage's state with every tensor once: a task's head is the network's, and is kept under the latter's name."""
    seen: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, value in stage.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            own[name] = value.detach()
    return own
