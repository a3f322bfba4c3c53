"""What the time decided as a hardening began; the same call, made again, keeps to it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unfool.core.errors import OutputError
from unfool.core.files import write_json

FILE, BEFORE, AFTER = "plan.json", "before", "after"
"""Of a run's folder: the plan, and the states of both evaluations while they are made."""
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The minutes of the whole, the ``images`` of both evaluations, and whether the last one's figures are checked."""

    minutes: float
    images: int
    reliability: bool

    def save(self, folder: Path) -> None:
        """Write it into the folder of the run; raises OutputError."""
        write_json(folder / FILE, {"schema_version": _VERSION, **asdict(self)})


def read_plan(folder: Path, minutes: float) -> Plan | None:
    """The plan of a folder, None if there is none; OutputError for one of other ``minutes`` or that is no plan."""
    try:
        values: Any = json.loads((folder / FILE).read_text(encoding="utf-8"))
        version = values.pop("schema_version")
        plan = Plan(**values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise OutputError(f"{folder / FILE} is no plan of hardening ({error}); choose another folder") from error
    if version != _VERSION:
        raise OutputError(
            f"{folder / FILE} has schema version {version!r}; this unfool reads {_VERSION}: update unfool"
        )
    if plan.minutes != minutes:
        raise OutputError(
            f"{folder} was begun with {plan.minutes:g} minutes, not {minutes:g}; give the same, choose another folder "
            "or delete this one"
        )
    return plan


def remove_plan(folder: Path) -> None:
    """Remove the plan and what the evaluation before training stored; the folder too, if nothing else is in it."""
    (folder / FILE).unlink(missing_ok=True)
    shutil.rmtree(folder / BEFORE, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
