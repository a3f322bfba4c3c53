"""Where a trained network lies: a run's folder or a weights file by its path, ``zoo:NAME``, ``hf:OWNER/NAME``."""

from __future__ import annotations

import os
from pathlib import Path

from unfool.core.errors import SpecError
from unfool.core.spec import nearest
from unfool.models.zoo import hub
from unfool.models.zoo.catalog import PREFIX, WEIGHTS, folder, names


def run_folder(text: str | Path) -> Path:
    """The folder of the run that a text names, fetched from the hub where it lies there.

    Raises SpecError for an unknown name of the zoo or one without its prefix, and as `hub.download`.
    """
    if (named := _by_name(str(text))) is not None:
        return named
    path = Path(text)
    if len(path.parts) == 1 and not os.path.exists(path) and (near := nearest(str(text), names())) is not None:
        raise SpecError(f"there is no {str(text)!r} here; did you mean {PREFIX}:{near}? unfool models lists all")
    return path


def weights_file(text: str | Path) -> Path:
    """The weights file that a text names; raises as `run_folder`."""
    named = _by_name(str(text))
    return run_folder(text) if named is None else named / WEIGHTS


def _by_name(text: str) -> Path | None:
    """The folder that ``zoo:NAME`` or ``hf:OWNER/NAME`` stands for; None for a path."""
    prefix, colon, name = text.partition(":")
    if colon and prefix == PREFIX:
        return folder(name)
    return hub.download(name) if colon and prefix == hub.PREFIX else None
