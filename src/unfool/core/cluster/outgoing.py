"""The workspace of a job on a node: what it reads is brought in, and what changes in it is sent out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unfool.core.cluster.messages import CHUNK, Bytes, Chunk, Digest, Input, Message, parts_of

Stamp = tuple[int, int, int]
"""Inode, size and time of change of a file."""


@dataclass(frozen=True)
class _Held:
    stamp: Stamp
    digest: str


@dataclass
class NodeFolder:
    """A folder on a node in which one job after the other works; ``outbox`` is a folder beside it, on the same disk.

    ``asker`` is the folder that it stands for. It holds what the job at work reads and makes, and nothing else. What
    stays from one job to the next is not brought in again.
    """

    folder: Path
    outbox: Path
    asker: Path
    _held: dict[str, _Held] = field(default_factory=dict[str, _Held])

    def bring_in(self, inputs: Iterable[Input], fetch: Callable[[object], Bytes]) -> None:
        """Make the folder hold these files; ``fetch`` gives the bytes of a part."""
        wanted = {item.path: item for item in inputs}
        present = self._stamps()
        for path in present.keys() - wanted.keys():
            (self.folder / path).unlink()
        for path, item in wanted.items():
            held = self._held.get(path)
            if held is None or held.digest != item.digest or held.stamp != present.get(path):
                self._write(item, fetch)
        self._held = {path: _Held(_stamp(self.folder / path), item.digest) for path, item in wanted.items()}
        for place, folders, _ in os.walk(self.folder, topdown=False):
            for name in folders:
                if not any((Path(place) / name).iterdir()):
                    (Path(place) / name).rmdir()

    def messages(self, *, last: bool = False) -> Iterator[Message]:
        """What has changed since the last time; with ``last`` also what has gone, in any case a commit at the end.

        Files are linked before any is read: one that is always replaced as a whole, as checkpoints are, is sent as it
        was at that moment, and one that grows, as logs do, is sent with all that it had then. The growing ones land
        first, the others in the order of their making, so that what lands fits together whenever that is cut short.
        """
        stamps = self._stamps()
        changed = [path for path, stamp in stamps.items() if path not in self._held or self._held[path].stamp != stamp]
        gone = tuple(sorted(self._held.keys() - stamps.keys())) if last else ()
        self.outbox.mkdir(exist_ok=True)
        linked: list[tuple[str, Path]] = []
        for number, path in enumerate(
            sorted(changed, key=lambda path: (not self._grows(path, stamps[path]), *stamps[path][:0:-1]))
        ):
            link = self.outbox / str(number)
            try:
                os.link(self.folder / path, link)
            except FileNotFoundError:  # gone or replaced meanwhile; the next time tells
                continue
            linked.append((path, link))
        yield from self._packed(linked, gone, last)

    def _packed(self, linked: list[tuple[str, Path]], gone: tuple[str, ...], last: bool) -> Iterator[Message]:
        """The files in as few messages as hold them."""
        waiting: list[Chunk] = []
        for path, link in linked:
            stamp, digest, offset = _stamp(link), Digest(), 0
            parts, size = self._content(path, link, stamp[1])
            for part in digest.passing(parts):
                part = part[: size - offset]  # a log may have grown
                if waiting and sum(len(chunk.data) for chunk in waiting) + len(part) > CHUNK:
                    yield Message(chunks=tuple(waiting))
                    waiting = []
                waiting.append(Chunk(path=path, offset=offset, size=size, data=part))
                offset += len(part)
            link.unlink()
            self._held[path] = _Held(stamp, digest.text())
        for path in gone:
            del self._held[path]
        if waiting or gone or last:
            yield Message(chunks=tuple(waiting), commit=True, removed=gone, done=last)

    def _content(self, path: str, link: Path, size: int) -> tuple[Iterator[Bytes], int]:
        """The bytes of a file and how many they are; settings that name this folder name the asker's."""
        if not path.endswith(".yaml") or size > CHUNK:
            return parts_of(link), size
        text = link.read_bytes().replace(os.fsencode(self.folder), os.fsencode(self.asker))
        return iter([np.frombuffer(text, np.uint8)]), len(text)

    def _grows(self, path: str, stamp: Stamp) -> bool:
        """Whether a file that has changed is still the same one."""
        return path in self._held and self._held[path].stamp[0] == stamp[0]

    def _write(self, item: Input, fetch: Callable[[object], Bytes]) -> None:
        file = self.folder / item.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        with open(file, "wb") as opened:
            for part in item.parts:
                opened.write(fetch(part).data)

    def _stamps(self) -> dict[str, Stamp]:
        """Every file that is whole; hidden ones are locks and what is being written."""
        stamps: dict[str, Stamp] = {}
        for place, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                file = Path(place) / name
                if not name.startswith("."):
                    try:
                        stamps[file.relative_to(self.folder).as_posix()] = _stamp(file)
                    except FileNotFoundError:
                        continue
        return stamps


def _stamp(file: Path) -> Stamp:
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def empty_folder(folder: Path) -> Path:
    """The folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
