"""The two directories on the user's disk: where data lie, and where stores and downloads are kept."""

from __future__ import annotations

import os
from pathlib import Path

from unfool.core.borders.reading import is_folder
from unfool.core.errors import DataError


def cache_folder() -> Path:
    """Where stores and downloads lie: UNFOOL_CACHE_DIR, else XDG_CACHE_HOME/unfool, else ~/.cache/unfool."""
    if chosen := os.environ.get("UNFOOL_CACHE_DIR"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unfool"
    except RuntimeError as error:  # neither HOME nor an entry of this user
        raise DataError("this user has no home folder to keep image stores in; set UNFOOL_CACHE_DIR") from error


def data_folder(data_dir: str | Path | None = None) -> Path | None:
    """The data directory: the one given, else UNFOOL_DATA_DIR, else None; DataError if it does not exist."""
    chosen = data_dir or os.environ.get("UNFOOL_DATA_DIR")
    if not chosen:
        return None
    folder = Path(chosen)
    if not is_folder(folder):
        raise DataError(f"the data directory {folder} does not exist; give one that does (UNFOOL_DATA_DIR, --data-dir)")
    return folder
