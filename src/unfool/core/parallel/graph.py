"""A graph of pieces of work: what each needs, what of it is missing, and the jobs that make what is missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from unfool.core.errors import SpecError
from unfool.core.parallel.job import Job, Place


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


def jobs_of(missing: Mapping[str, Node], work: Any, call: Callable[[str], Callable[[Place], object]]) -> list[Job]:
    """A job for each piece, its ``call`` by its path; what has no files of its own is counted in every job that needs
    it."""
    jobs: list[Job] = []
    for path, piece in missing.items():
        below = {name: need for name, need in with_needs([piece]).items() if name != path}
        inside = sum(need.cost(work) for need in below.values() if need.exists(work) is None)
        needs = frozenset(below.keys() & missing.keys())
        jobs.append(Job(name=path, call=call(path), needs=needs, cost=piece.cost(work) + inside))
    return jobs
