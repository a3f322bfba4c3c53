"""Fixtures of the data tests: a private cache, no data directory, and small sets made on the spot."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_sets import write_parquet

REAL = os.environ.get("UNFOOL_DATA_DIR")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own; the user's data directory and cache are out of sight."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("UNFOOL_CACHE_DIR", str(folder))
    monkeypatch.delenv("UNFOOL_DATA_DIR", raising=False)
    return folder


@pytest.fixture
def real_data_dir() -> Path:
    if not REAL:
        pytest.skip("needs the real image sets: set UNFOOL_DATA_DIR to a directory in hub layout")
    return Path(REAL)


@pytest.fixture
def make_set(tmp_path: Path) -> Callable[..., Path]:
    """``make_set(name, files, labels, split)`` writes a one-shard split below a data directory, which it returns."""

    def make(name: str, files: Sequence[bytes | None], labels: Any = None, split: str = "train", image="image") -> Path:
        if labels is None:
            labels = {"label": ([row % 2 for row in range(len(files))], ["cat", "dog"])}
        root = tmp_path / "data"
        write_parquet(root / name / f"{split}-00000-of-00001.parquet", files, labels, image)
        return root

    return make
