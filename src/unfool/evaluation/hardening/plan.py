"""What the time decided as a hardening began; the same call, made again, keeps to it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from unfool.core.borders.json_text import read_object
from unfool.core.borders.reading import is_file
from unfool.core.config import build, configured
from unfool.core.errors import OutputError, SpecError
from unfool.core.files import remove_folder, write_json
from unfool.training.folder import CONFIG

FILE, BEFORE, AFTER = "plan.json", "before", "after"
"""Of a run's folder: the plan; and the names of both evaluations."""
_VERSION = 1


@configured
class Plan:
    """The minutes of the whole, the ``images`` of both evaluations, and whether the last one's figures are checked."""

    minutes: float
    images: int
    reliability: bool

    def save(self, folder: Path) -> None:
        """Write it into the folder of the run; raises OutputError."""
        write_json(folder / FILE, {"schema_version": _VERSION, **asdict(self)})


def read_plan(folder: Path, minutes: float) -> Plan | None:
    """The plan of a folder, None if there is none; OutputError for one of other ``minutes`` or that is no plan.

    Where nothing was done by a plan, as in a hardening that was refused, other ``minutes`` are as good.
    """
    file, advice = folder / FILE, "choose another folder or delete this one"
    if is_file(folder):
        raise OutputError(f"{folder} is a file; give a folder for the run")
    if not is_file(file):
        return None
    values: Any = read_object(file, advice, error=OutputError)
    version = values.pop("schema_version", None)
    if version != _VERSION:
        raise OutputError(f"{file} has schema version {version!r}; this unfool reads {_VERSION}: update unfool")
    try:
        plan = build(Plan, values, str(file))
    except SpecError as fault:
        raise OutputError(f"{fault}; {advice}") from fault
    done = (state_of(folder, BEFORE), file_of(folder, BEFORE), folder / CONFIG)
    if plan.minutes != minutes and not any(path.exists() for path in done):
        return None
    if plan.minutes != minutes:
        raise OutputError(f"{folder} was begun with {plan.minutes:g} minutes, not {minutes:g}; give the same, {advice}")
    return plan


def state_of(folder: Path, evaluation: str) -> Path:
    """Where an evaluation stores what is done, until it is finished."""
    return folder / f"{evaluation}.state"


def file_of(folder: Path, evaluation: str) -> Path:
    """Where a finished evaluation is kept."""
    return folder / "results" / f"{evaluation}.safetensors"


def remove_plan(folder: Path) -> None:
    """Remove the plan and what the evaluation before training stored; the folder too, if nothing else is in it."""
    (folder / FILE).unlink(missing_ok=True)
    remove_folder(state_of(folder, BEFORE))
    file_of(folder, BEFORE).unlink(missing_ok=True)
    for left in (file_of(folder, BEFORE).parent, folder):
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()
