"""Files of a job as they come from a node: written beside their place as their parts come, put there all together."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from unfool.core.cluster.messages import Chunk, Message
from unfool.core.errors import WorkerError
from unfool.core.files import atomic_path


@dataclass
class _Arriving:
    """A file of which parts have come: what puts it in its place, and how much of it is written."""

    place: ExitStack
    file: BinaryIO
    size: int
    written: int = 0


@dataclass
class Landing:
    """The files of one job that are under way to ``folder``."""

    folder: Path
    _files: dict[str, _Arriving] = field(default_factory=dict[str, _Arriving])

    def take(self, message: Message) -> None:
        """Write the parts of a message; with its ``commit`` all files so far land. WorkerError for parts that are no
        file of the folder."""
        for chunk in message.chunks:
            self._write(chunk)
        if message.commit:
            short = [path for path, arriving in self._files.items() if arriving.written != arriving.size]
            if short:
                raise WorkerError(f"only parts of {', '.join(short)} came from a node; run the same command again")
            for path in list(self._files):
                arriving = self._files.pop(path)
                arriving.place.close()
        for path in message.removed:
            with suppress(FileNotFoundError):
                _below(self.folder, path).unlink()

    def abandon(self) -> None:
        """Remove what has not landed."""
        while self._files:
            _, arriving = self._files.popitem()
            # An error inside is what keeps a temporary file from its place.
            with suppress(_AbandonedError), arriving.place:
                raise _AbandonedError

    def _write(self, chunk: Chunk) -> None:
        if chunk.offset == 0 and chunk.path not in self._files:
            place = ExitStack()
            temporary = place.enter_context(atomic_path(_below(self.folder, chunk.path)))
            self._files[chunk.path] = _Arriving(place, place.enter_context(temporary.open("wb")), chunk.size)
        arriving = self._files.get(chunk.path)
        if arriving is None or arriving.written != chunk.offset:
            raise WorkerError(f"parts of {chunk.path} came out of order from a node; run the same command again")
        arriving.file.write(chunk.data.data)
        arriving.written += len(chunk.data)
        if arriving.written == arriving.size:
            arriving.file.flush()
            os.fsync(arriving.file.fileno())  # so that files which land together do so within an instant


class _AbandonedError(Exception):
    pass


def _below(folder: Path, path: str) -> Path:
    """A path that a node names, below the folder; WorkerError for one that leads out of it."""
    words = PurePosixPath(path)
    if words.is_absolute() or ".." in words.parts or not words.parts:
        raise WorkerError(f"a node sent a file {path!r}, which is not below the folder; check what runs on the cluster")
    return folder / words
