"""Small sets made on the spot for the data tests."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def encoded(pixels: np.ndarray, format: str = "PNG", mode: str | None = None) -> bytes:
    """An image file of uint8 pixels (H, W, 3) or (H, W)."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, format=format)
    return buffer.getvalue()


def pictures(count: int, height: int = 8, width: int = 8, seed: int = 0) -> np.ndarray:
    """Random uint8 pixels (count, height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def write_parquet(
    path: Path, files: Sequence[bytes | None], labels: dict[str, tuple[Sequence[int | None], list[str]]], image="image"
) -> None:
    """One shard in hub layout, with the hub's feature metadata."""
    import datasets

    features: dict[str, Any] = {image: datasets.Image()}
    columns: dict[str, Any] = {image: [{"bytes": data, "path": None} for data in files]}
    for name, (values, classes) in labels.items():
        features[name] = datasets.ClassLabel(names=classes)
        columns[name] = list(values)
    schema = datasets.Features(features).arrow_schema
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=schema), path, row_group_size=3)
