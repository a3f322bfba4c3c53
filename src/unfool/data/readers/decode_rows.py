# pyright: reportUnknownMemberType=false
"""Rows of a reader, decoded in threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from unfool.core.errors import DataError
from unfool.data.decode import CorruptImageError, Framing, decode
from unfool.data.sources import Encoded, Rows

Decoded = tuple[np.ndarray, str]
"""uint8 pixels (3, H, W) and the mode that the image had, such as "RGB"."""

_AT_ONCE = 1024


def workers() -> int:
    """Decoding threads: one per core, at most eight."""
    return max(1, min(8, os.cpu_count() or 1))


def decoded_rows(rows: Rows, framing: Framing) -> Iterator[tuple[int, Encoded, Decoded | CorruptImageError]]:
    """Every row number in order with its encoded image and its pixels, or the error that decoding met."""

    def attempt(encoded: Encoded) -> Decoded | CorruptImageError:
        try:
            return decode(encoded, framing)
        except CorruptImageError as error:
            return error

    images, row = iter(rows.images), 0
    with ThreadPoolExecutor(workers()) as pool:
        while chunk := list(islice(images, _AT_ONCE)):
            for encoded, outcome in zip(chunk, pool.map(attempt, chunk), strict=True):
                yield row, encoded, outcome
                row += 1
    lengths = {row, rows.count, *(len(values) for values in rows.columns.values())}
    if len(lengths) > 1:
        raise DataError(f"{row} images came for {rows.count} rows of labels; fetch the set again")


def resident_pixels(rows: Rows, framing: Framing) -> tuple[Tensor, np.ndarray]:
    """All images as one uint8 tensor (N, 3, H, W), and their row numbers; DataError for a corrupt image."""
    images: list[np.ndarray] = []
    for row, _, outcome in decoded_rows(rows, framing):
        if isinstance(outcome, CorruptImageError):
            raise DataError(f"image {row} cannot be read ({outcome}); drop that row")
        pixels, _ = outcome
        if images and pixels.shape != images[0].shape:
            raise DataError(
                f"image {row} is {pixels.shape[2]}×{pixels.shape[1]} pixels, the first {images[0].shape[2]}×"
                f"{images[0].shape[1]}; resize them to one size first"
            )
        images.append(pixels)
    if not images:
        raise DataError("the data set is empty; give at least one image")
    return torch.from_numpy(np.stack(images)), np.arange(len(images))
