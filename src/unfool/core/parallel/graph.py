"""A graph of pieces of work: what each needs, what of it is missing, and the jobs that make what is missing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from unfool.core.errors import SpecError
from unfool.core.parallel.job import OPTIMIZERS, CodeFile, ImageSet, Job, Place, reads_nothing


class Node(Protocol):
    """A piece of work by its ``path``: what it ``needs``, its ``cost``, and whether it ``exists`` (None: never by
    itself, it is made by each that needs it)."""

    @property
    def path(self) -> str: ...

    def needs(self) -> Sequence[Any]: ...

    def cost(self, work: Any) -> float: ...

    def exists(self, work: Any) -> bool | None: ...


Piece = TypeVar("Piece", bound=Node)


def slug(word: object) -> str:
    """A word as a part of a path."""
    return _slug(str(word))


@lru_cache(maxsize=4096)
def _slug(word: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", word.lower()).strip("-.") or "none"


def path_of(*words: object) -> str:
    """Words as a path; empty ones are left out."""
    return "/".join(slug(word) for word in words if word not in ("", None))


def with_needs(pieces: Iterable[Piece]) -> dict[str, Piece]:
    """The pieces and all that they need, by path, each after its needs. Raises SpecError for one that needs itself
    and for two of one path."""
    ordered: dict[str, Piece] = {}

    def add(piece: Piece, above: tuple[str, ...]) -> None:
        path = piece.path
        if path in above:
            raise SpecError(f"piece {path} needs itself: {' → '.join((*above, path))}")
        if path not in ordered:
            for need in piece.needs():
                add(need, (*above, path))
            ordered[path] = piece
        elif ordered[path] is not piece and ordered[path] != piece:
            raise SpecError(f"two different pieces are called {path}; give one of them another word in its key")

    for piece in pieces:
        add(piece, ())
    return ordered


def missing_pieces(pieces: Sequence[Piece], work: Any) -> dict[str, Piece]:
    """Those that are not there, and what is missing of what they need, by path."""
    missing: dict[str, Piece] = {}

    def add(piece: Piece) -> None:
        if piece.path in missing or (exists := piece.exists(work)):
            return
        for need in piece.needs():
            add(need)
        if exists is False:
            missing[piece.path] = piece

    with_needs(pieces)  # refuses two pieces of one path
    for piece in pieces:
        add(piece)
    return missing


def jobs_of(
    missing: Mapping[str, Node],
    work: Any,
    call: Callable[[str, Place], object],
    *,
    folder: Path | None = None,
    every: Iterable[str] = (),
    files: Iterable[str | Path | CodeFile] = (),
    data: Iterable[ImageSet] = (),
) -> list[Job]:
    """A job for each piece, a ``call`` with its path; what has no files of its own is counted in every job that needs
    it.

    Each reads its own files and those of all that it needs in ``folder``, where ``every`` piece has them by its path,
    the asker's ``files`` elsewhere, and the image sets ``data``.
    """
    jobs: list[Job] = []
    paths, files, data = (
        frozenset(every),
        tuple(Path(file) if isinstance(file, str) else file for file in files if file),
        frozenset(data),
    )
    for path, piece in missing.items():
        below = {name: need for name, need in with_needs([piece]).items() if name != path}
        inside = sum(need.cost(work) for need in below.values() if need.exists(work) is None)
        needs = frozenset(below.keys() & missing.keys())
        reads = reads_nothing if folder is None else partial(files_of, folder, (path, *below), paths)
        cost = piece.cost(work) + inside
        jobs.append(
            Job(
                name=path,
                call=partial(call, path),
                needs=needs,
                cost=cost,
                reads=reads,
                files=files,
                data=data,
                imports=OPTIMIZERS,
            )
        )
    return jobs


def files_of(folder: Path, names: Iterable[str], every: frozenset[str]) -> list[Path]:
    """The files of some pieces in a folder: below each of its folders, what is called as their path, with or without
    an ending, or lies below that, unless it is that of a longer path among ``every`` piece's."""
    files: list[Path] = []
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        for name in names:
            place = kind / name
            for entry in place.parent.iterdir() if place.parent.is_dir() else ():
                if place.name == entry.name or (
                    place.name == entry.stem and entry.relative_to(kind).as_posix() not in every
                ):
                    files += [entry] if entry.is_file() else _files_below(kind, entry, every)
    return files


def _files_below(kind: Path, entry: Path, every: frozenset[str]) -> Iterator[Path]:
    """The files of a folder but for those of other pieces, whose path begins with its own."""
    for below, folders, inside in os.walk(entry):
        folders[:] = [word for word in folders if not _is_of(kind, Path(below, word), every)]
        yield from (file for word in inside if not _is_of(kind, file := Path(below, word), every))


def _is_of(kind: Path, path: Path, every: frozenset[str]) -> bool:
    """Whether a file or folder is called as the path of a piece, with or without an ending."""
    name = path.relative_to(kind)
    return not every.isdisjoint((name.as_posix(), name.with_name(name.stem).as_posix()))
