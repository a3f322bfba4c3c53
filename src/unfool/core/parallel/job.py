"""A job: a picklable call, what it waits for, what it reads and what it takes, and the place in which it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unfool.core.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a job takes of the machine that runs it: cores, GPUs (a part of one for small networks) and bytes of
    memory (0: it is not known)."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a job is called: by itself or beside others in one process, on this machine or on another one.

    ``folder`` holds what the job reads, under the names that the asker's folder has for it. What the call leaves there,
    checkpoints included, lands in the asker's folder, each file whole or not at all. ``data_dir`` and ``device`` are
    those of this machine.
    """

    folder: Path
    data_dir: Path | None = None
    device: str = "cpu"
    progress: Progress = silent
    files: Mapping[Path, Path] = field(default_factory=dict[Path, Path])

    def file(self, path: str | Path) -> Path:
        """Where a file or folder of the asker lies on this machine; ValueError for one that `Job.files` lacks."""
        if Path(path) not in self.files:
            raise ValueError(f"{path} is not among the files of the job; name it in Job.files")
        return self.files[Path(path)]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """An image set that jobs open: the ``folder`` in which it lies here, and the ``place`` below the data directory of
    another machine where its reader looks for it. ``files`` lists those of the folder that belong to it; None: all of
    them do.
    """

    folder: Path
    place: str
    files: Callable[[], Iterable[Path]] | None = None


@dataclass(frozen=True)
class CodeFile:
    """A Python file of the asker with the ``modules`` that it imports from its folder or below."""

    path: Path
    modules: tuple[Path, ...]


OPTIMIZERS = frozenset({"torch._dynamo"})
"""What the first step of a PyTorch optimizer imports, which takes as long as all else."""


def reads_nothing() -> Iterable[Path]:
    """The files of a job that reads none of the asker's folder."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """A call that leaves files in the folder of its place.

    Args:
        name: Unique among the jobs of a run; progress is shown under it.
        call: What is called, with the place. It is pickled, so it is a function of a module, or a partial of one.
        needs: Names of jobs that must be done before.
        cost: Of the jobs that could begin, the one with the longest chain of costs behind it does.
        resources: What it takes.
        reads: The files and folders of the asker's folder that it reads if they are there, its own checkpoints
            included. It is called when the job begins, in the asker's process.
        files: Files and folders of the asker elsewhere that it reads, such as weights: `Place.file` says where they
            lie.
        data: The image sets that it opens, as far as they are files of the asker.
        imports: Modules of other packages that it will import; workers of this machine share them.
    """

    name: str
    call: Callable[[Place], object]
    needs: frozenset[str] = frozenset()
    cost: float = 0.0
    resources: Resources = Resources()
    reads: Callable[[], Iterable[Path]] = reads_nothing
    files: tuple[Path | CodeFile, ...] = ()
    data: frozenset[ImageSet] = frozenset()
    imports: frozenset[str] = frozenset()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths of its ``files``."""
        return tuple(file.path if isinstance(file, CodeFile) else file for file in self.files)
