# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Images of an adversarial set that lie in shards: files of bounded size, mapped into memory while they are read.

A shard is a safetensors file with the tensor ``images``; a finished batch of an attack is one. Its checksum is that of
its header, which covers all that it holds; a set's checksum covers those of its shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unfool.core.batch import check_images
from unfool.core.borders.reading import is_file
from unfool.core.errors import DataError
from unfool.models.header import read_header
from unfool.models.weights import load_tensors, path_in_utf8

IMAGES = "images"
"""The tensor of a shard that holds its images."""
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A file with some of a set's images: how many (``count``), and the ``checksum`` that its header must have."""

    path: Path
    count: int
    checksum: str

    @classmethod
    def of(cls, path: Path) -> Shard:
        """The shard that a file is; raises WeightsError for one that is no safetensors file of unfool's."""
        header = read_header(path)
        return cls(path=path, count=header.tensors[IMAGES][1][0], checksum=header.checksum or "")

    def check(self, shape: tuple[int, int, int]) -> None:
        """Read all of the file; raises DataError unless it holds what the set says, images of this ``shape``."""
        if not is_file(self.path):
            raise DataError(f"{self.path} is not there, and its set names it; copy the whole folder, or craft it again")
        tensors, _ = load_tensors(self.path)
        images = tensors.get(IMAGES, torch.empty(0))
        if read_header(self.path).checksum != self.checksum or images.shape != (self.count, *shape):
            raise DataError(
                f"{self.path} is not the shard that its set names there: it was changed, or shards changed places; "
                "copy the whole folder, or craft it again"
            )
        check_images(images)

    def read(self, rows: slice | Tensor) -> Tensor:
        """Some of its images, by places in it, with memory of their own; only their part of the file is read."""
        try:
            with (
                open(self.path, "rb") as opened,
                safe_open(path_in_utf8(self.path, opened.fileno()), framework="pt") as file,
            ):
                mapped: Tensor = file.get_tensor(IMAGES)
                return mapped[rows].clone() if isinstance(rows, slice) else mapped.index_select(0, rows)
        except (SafetensorError, OSError) as error:
            raise DataError(f"cannot read {self.path}, which holds images of a set: {error}; craft it again") from error


class ImagesInChunks:
    """Images (N, C, H, W), float32, that ``read`` gives for row numbers: for a checksum over all, some at a time."""

    dtype = torch.float32

    def __init__(self, shape: torch.Size, read: Callable[[Tensor], Tensor]):
        self.shape = shape
        self._read = read

    def chunks(self) -> Iterator[Tensor]:
        """All images in order, a few MiB at a time."""
        each = 4 * self.shape[1:].numel()
        for rows in torch.arange(self.shape[0]).split(max(1, _CHUNK_BYTES // each)):
            yield self._read(rows)


class ShardedImages:
    """Images (N, C, H, W), float32 in [0,1], that are read from shards as they are asked for.

    ``images[rows]`` gives those of a slice, or of row numbers (B,) or a mask (N,), as a tensor of their own. A shard is
    checked as a whole before the first of its images is given. ``owner`` is kept for as long as the images are, such as
    the temporary folder of the shards; what ``checked`` says was written by this process is not read again for that.
    """

    dtype = torch.float32
    ndim = 4

    def __init__(
        self, shards: Sequence[Shard], shape: tuple[int, int, int], owner: object = None, *, checked: bool = False
    ):
        self.shards = list(shards)
        self.shape = torch.Size((sum(shard.count for shard in shards), *shape))
        self.owner = owner
        self._one = shape
        self._starts = torch.tensor([0, *(shard.count for shard in shards)]).cumsum(0)
        self._checked = set(range(len(shards))) if checked else set[int]()

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        size = "×".join(map(str, self._one))
        return f"ShardedImages({len(self)} images of {size} in {len(self.shards)} files)"

    def check(self) -> None:
        """Check every shard; raises DataError for one that is missing or not what the set says, or WeightsError."""
        for number in range(len(self.shards)):
            self._check(number)

    def _check(self, number: int) -> None:
        if number not in self._checked:
            self.shards[number].check(self._one)
            self._checked.add(number)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        if isinstance(rows, slice):
            rows = torch.arange(len(self))[rows]
        elif rows.dtype == torch.bool:
            rows = rows.nonzero().flatten()
        rows = rows.to("cpu", torch.int64)
        rows = torch.where(rows < 0, rows + len(self), rows)
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < len(self)):
            raise IndexError(f"rows {int(rows.min())} to {int(rows.max())} of {len(self)} images")
        images = torch.empty(len(rows), *self._one)
        numbers = torch.searchsorted(self._starts, rows, right=True) - 1
        for number in numbers.unique().tolist():
            self._check(number)
            places = (numbers == number).nonzero().flatten()
            images[places] = self.shards[number].read(rows[places] - self._starts[number])
        return images
