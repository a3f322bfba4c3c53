"""The folder of one attack: finished batches, and the state of an unfinished one, so that crafting can be resumed.

``crafting.json`` describes the attack, the model and the images. Each finished batch is one file; an unfinished one
stores its state after every part of the attack. Batches are the shards of a large set.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from unfool.core.borders.json_text import read_object
from unfool.core.borders.reading import is_file
from unfool.core.errors import DataError, OutputError, WeightsError
from unfool.core.files import folder_lock, write_json
from unfool.evaluation.crafting.stored_names import from_stored, to_stored
from unfool.models.weights import load_tensors, save_tensors

SCHEMA_VERSION, SCHEMA_TOGETHER = 2, 3
"""Since 2 it names the images by their pixels and labels, not by their numbers alone; it is 3 where several batches are
taken together, which an earlier version would not see."""
_MANIFEST = "crafting.json"
TOGETHER = "batches_together"
"""Where the description says how many batches are one piece of work, if it is more than one."""
_ROUNDING = 1e-4
"""Difference of two equal models' answers, relative to the largest."""


@contextmanager
def held_folder(folder: Path) -> Generator[None, None, None]:
    """Hold the folder of an attack for one process; OutputError if another holds it.

    Where an error ends the block before anything was stored, what was not there before it is removed again: an attack
    that was refused leaves no trace.
    """
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    with folder_lock(folder):
        try:
            yield
        except BaseException:
            if absent and not _stored(folder):
                for name in (_MANIFEST, ".lock"):
                    (folder / name).unlink(missing_ok=True)
                with suppress(OSError):  # Something else may have come into one of them.
                    for path in absent:
                        path.rmdir()
            raise


class BatchCheckpoint:
    """The folder in which batches are stored."""

    def __init__(self, folder: Path):
        self.folder = folder

    def claim(self, manifest: Mapping[str, Any]) -> None:
        """Write whose folder it is; OutputError if it holds batches of another attack, model or images."""
        version = SCHEMA_TOGETHER if TOGETHER in manifest else SCHEMA_VERSION
        folder, wanted = self.folder, {"schema_version": version, **manifest}
        path = folder / _MANIFEST
        if not is_file(path) or not _stored(folder):
            # Batches whose description somebody removed could be of any attack.
            for stray in _stored(folder):
                stray.unlink(missing_ok=True)
            write_json(path, wanted)
            return
        stored = read_object(path, "choose another folder or remove this one", error=OutputError)
        taken, here = stored.get(TOGETHER, 1), manifest.get(TOGETHER, 1)
        if taken != here:
            raise OutputError(
                f"{folder} was begun with {taken} batches taken together, and {here} would be here; "
                "leave the batch size out, or choose another folder"
            )
        # As JSON both: a tuple that was written comes back as a list.
        differing = [key for key, value in json.loads(json.dumps(wanted)).items() if not _agree(stored.get(key), value)]
        if differing:
            key = differing[0]
            raise OutputError(
                f"{folder} holds another evaluation: {key} is {stored.get(key)!r} there and {wanted[key]!r} here; "
                "choose another folder or remove this one"
            )

    def path(self, number: int) -> Path:
        """The file of a finished batch, which can be a shard of the set."""
        return self.folder / batch_name(number)

    def batch(self, number: int) -> tuple[dict[str, Tensor], float] | None:
        """A finished batch and its CPU seconds, None if it is not finished."""
        return self._load(self.path(number))

    def finish(self, number: int, tensors: Mapping[str, Tensor], seconds: float) -> None:
        """Store a finished batch, and remove the state of its parts."""
        save_tensors(self.path(number), to_stored(tensors), {"cpu_seconds": seconds})
        self.underway(number).unlink(missing_ok=True)

    def parts(self, number: int, seconds: Callable[[], float], part_done: Callable[[int], None]) -> PartCheckpoint:
        """Where batch ``number`` stores its state between parts."""
        return PartCheckpoint(self, number, seconds, part_done)

    def underway(self, number: int) -> Path:
        """The file with the state of an unfinished batch."""
        return self.folder / f"underway-{number:05}.safetensors"

    @staticmethod
    def _load(path: Path) -> tuple[dict[str, Tensor], float] | None:
        if not is_file(path):
            return None
        tensors, metadata = load_tensors(path)
        seconds = metadata.get("cpu_seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise WeightsError(f"{path} is no batch of an evaluation: it names no CPU seconds; remove its folder")
        return from_stored(tensors), float(seconds)


def batch_name(number: int) -> str:
    """The name of the file of a finished batch."""
    return f"batch-{number:05}.safetensors"


def _stored(folder: Path) -> list[Path]:
    """Finished batches of a folder, states of unfinished ones, and how their images were classified."""
    return [path for name in ("batch-*", "underway-*", "judged-*/*") for path in folder.glob(f"{name}.safetensors")]


def stored_batches(folder: Path) -> tuple[int, int] | None:
    """The batch size that a folder was begun with, and how many batches were taken together; None if it holds nothing.

    To resume with the same bits.
    """
    if not _stored(folder):
        return None
    try:
        stored = read_object(folder / _MANIFEST, "remove the folder")
    except DataError:
        return None
    size, together = stored.get("batch_size"), stored.get(TOGETHER, 1)
    if not (isinstance(size, int) and isinstance(together, int) and size > 0 and together > 0):
        return None
    return size, together


def _agree(stored: Any, wanted: Any) -> bool:
    """Whether two values are the same; numbers in a list up to rounding, which differs from machine to machine."""
    if stored == wanted or not isinstance(stored, list) or not isinstance(wanted, list):
        return stored == wanted
    pairs: list[tuple[Any, Any]] = list(zip(stored, wanted, strict=False))
    if len(stored) != len(wanted) or not all(isinstance(value, float) for pair in pairs for value in pair):
        return False
    largest = max(abs(value) for value in wanted)
    return all(abs(before - now) <= _ROUNDING * largest for before, now in pairs)


class PartCheckpoint:
    """One batch's state between the parts of an attack; ``spent`` are the CPU seconds of a process that was stopped."""

    def __init__(
        self, folder: BatchCheckpoint, number: int, seconds: Callable[[], float], part_done: Callable[[int], None]
    ):
        self.folder = folder
        self.number = number
        self.seconds = seconds
        self.part_done = part_done
        self.spent = 0.0

    def load(self) -> dict[str, Tensor] | None:
        """The state after the last finished part."""
        stored = self.folder._load(self.folder.underway(self.number))
        if stored is None:
            return None
        state, self.spent = stored
        return state

    def save(self, state: dict[str, Tensor]) -> None:
        """Store the state, and report how many parts are done."""
        seconds = self.spent + self.seconds()
        save_tensors(self.folder.underway(self.number), to_stored(state), {"cpu_seconds": seconds})
        self.part_done(int(state["done"]))
