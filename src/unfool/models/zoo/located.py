"""Where a trained network lies: the path of a run's folder or a weights file, or that of ``zoo:NAME``."""

from __future__ import annotations

from pathlib import Path

from unfool.models.zoo.names import PREFIX, WEIGHTS, folder


def run_folder(text: str | Path) -> Path:
    """The folder of the run that a text names; SpecError for an unknown name of the zoo."""
    prefix, colon, name = str(text).partition(":")
    return folder(name) if colon and prefix == PREFIX else Path(text)


def weights_file(text: str | Path) -> Path:
    """The weights file that a text names; raises as `run_folder`."""
    path = run_folder(text)
    return path if str(path) == str(text) else path / WEIGHTS
