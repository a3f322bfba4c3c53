"""Work that is shared out: parts about some images each, done by an executor, with one count of what is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unfool.core.parallel.executor import Executor
from unfool.core.parallel.job import CodeFile, ImageSet, Job, Place
from unfool.core.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of some work: what is called, how many ``images`` it is about, and what it ``reads`` of the folder.

    ``cost`` is its weight in the order of parts, ``needs`` names those that must be done before.
    """

    name: str
    call: Callable[[Place], None]
    images: int
    cost: float
    needs: frozenset[str] = frozenset()
    reads: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """Who shares out a command's work, where it lands, and what its parts read of the asker's machine.

    Args:
        executor: What runs the parts.
        folder: Where everything lands.
        console: Where the executor says what went wrong on its way.
        files: Files and folders that parts read.
        data: The image sets that they open.
        data_dir: Folder of the image sets of this machine.
    """

    executor: Executor
    folder: Path
    console: Console
    files: tuple[Path | CodeFile, ...] = ()
    data: frozenset[ImageSet] = frozenset()
    data_dir: Path | None = None

    def run(self, parts: Sequence[Part], title: str, progress: Progress) -> None:
        """Do the parts, showing under the title of how many images each is; raises the first error of a part, or an
        interrupt, which end all."""
        images = {part.name: part.images for part in parts}
        total, done = sum(images.values()), 0

        def count(name: str) -> Iterable[Job]:
            nonlocal done
            done += images[name]
            progress(title, done, total)
            return ()

        if parts:
            progress(title, 0, total)
            jobs = [self._job(part) for part in parts]
            self.executor.run(jobs, self.folder, self.console, data_dir=self.data_dir, more=count)

    def _job(self, part: Part) -> Job:
        """The job of a part, for an executor."""
        return Job(
            name=part.name,
            call=part.call,
            needs=part.needs,
            cost=part.cost,
            reads=lambda: [path for path in part.reads if path.exists()],
            files=self.files,
            data=self.data,
        )
