"""Where a trained network lies: a run's folder or a weights file by its path, ``zoo:NAME``, ``hf:OWNER/NAME``."""

from __future__ import annotations

from pathlib import Path

from unfool.models.zoo import hub
from unfool.models.zoo.catalog import PREFIX, WEIGHTS, folder


def run_folder(text: str | Path) -> Path:
    """The folder of the run that a text names, fetched from the hub where it lies there.

    Raises SpecError for an unknown name of the zoo, and as `hub.download`.
    """
    prefix, colon, name = str(text).partition(":")
    if colon and prefix == PREFIX:
        return folder(name)
    if colon and prefix == hub.PREFIX:
        return hub.download(name)
    return Path(text)


def weights_file(text: str | Path) -> Path:
    """The weights file that a text names; raises as `run_folder`."""
    path = run_folder(text)
    return path if str(path) == str(text) else path / WEIGHTS
