"""What a page says of the command that gave its results."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unfool.evaluation.results.run_details import RunDetails

_ARGUMENTS: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())


def remember(arguments: Sequence[str]) -> None:
    """Keep the arguments of the command that is run, for `run_details`."""
    _ARGUMENTS.set(tuple(arguments))


def run_details(device: object) -> RunDetails:
    """The command that is run, the time in UTC, and the device."""
    import torch

    from unfool.evaluation.results.run_details import RunDetails

    chosen = torch.device(str(device))
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else ""
    return RunDetails(
        command=shlex.join(["unfool", *_ARGUMENTS.get()]) if _ARGUMENTS.get() else "",
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        device=f"{chosen} ({name})" if name else str(chosen),
    )
