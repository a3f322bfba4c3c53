# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Pixels of a set too large to keep decoded: encoded bytes, memory-mapped, decoded by threads on access."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unfool.core.borders.checksum import checksum
from unfool.core.borders.mapped import MappedPages
from unfool.core.errors import DataError
from unfool.data.decode import CorruptImageError, Framing, bytes_of_numbers, decode
from unfool.data.sources import Encoded


def as_bytes(encoded: Encoded) -> bytes:
    """An image as the bytes of a file; pixels are encoded without loss."""
    if isinstance(encoded, bytes):
        return encoded
    buffer = io.BytesIO()
    Image.fromarray(bytes_of_numbers(np.asarray(encoded))).save(buffer, format="PNG")
    return buffer.getvalue()


class EncodedPixels:
    """Encoded images in one file; image k lies at ``offsets[k]`` to ``offsets[k + 1]``. ``shape`` is (N, 3, H, W), and
    ``content`` a checksum of the file and its framing."""

    def __init__(
        self, path: Path, offsets: np.ndarray, shape: tuple[int, ...], framing: Framing, workers: int, content: str
    ):
        self._data = np.memmap(path, dtype=np.uint8, mode="r")
        self._pages = MappedPages(self._data.ctypes.data, self._data.nbytes)
        self._offsets = offsets
        self._shape = shape
        self._framing = framing
        self._workers = workers
        self._content = content

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def _decoded(self, row: int) -> np.ndarray:
        start, stop = self._offsets[row : row + 2]
        try:
            return decode(self._data[start:stop].tobytes(), self._framing)[0]
        except CorruptImageError as error:  # every image was decoded once when the store was built
            raise DataError(
                f"stored image {row} no longer decodes ({error}); delete the store, it is rebuilt"
            ) from error

    def take(self, rows: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) for row numbers (B,)."""
        images = np.empty((len(rows), *self._shape[1:]), dtype=np.uint8)
        with ThreadPoolExecutor(self._workers) as pool:
            for place, pixels in enumerate(pool.map(self._decoded, rows.tolist())):
                images[place] = pixels
        self._pages.read(int((self._offsets[rows.numpy() + 1] - self._offsets[rows.numpy()]).sum()))
        return torch.from_numpy(images)

    def digest(self, rows: Tensor) -> str:
        """32 hex digits over the file's content and the rows."""
        return checksum({"file": self._content}, {"rows": rows})
