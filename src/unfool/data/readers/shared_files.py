"""Files that two splits of a set share: by path, through links, or by content."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from unfool.core.errors import UnfoolWarning

MOST_COMPARED = 20_000
"""In a larger set files are compared by path and link alone; ``unfool doctor --data`` compares its pixels."""
_BEGINNING = 4096


def warn_of_shared_files(root: Path, splits: Mapping[str, Sequence[Path]]) -> None:
    """Count the files of test and validation that are trained on too, in an UnfoolWarning; links count.

    Files of equal size are compared by content where there are at most `MOST_COMPARED` of all.
    """
    contents = sum(map(len, splits.values())) <= MOST_COMPARED
    for split in ("test", "validation"):
        for other in ("train", "unlabelled"):
            files = splits.get(split, ())
            count = shared_files(splits.get(other, ()), files, contents)
            if count:
                warnings.warn(
                    f"{root}: {count} of {len(files)} images of {split} are in {other} too, so accuracy on {split} "
                    "is not that on new images; keep each image in one split",
                    UnfoolWarning,
                    stacklevel=3,
                )


def shared_files(first: Sequence[Path], second: Sequence[Path], contents: bool = True) -> int:
    """How many files of the second are in the first: the same file, or, with ``contents``, an equal one."""
    known, others = _by_place(first), [_status(path) for path in second]
    shared = {number for number, status in enumerate(others) if status is not None and _place(status) in known}
    if contents:
        sizes = {status.st_size for _, status in known.values()} - {0}
        rest = {
            number: second[number]
            for number, status in enumerate(others)
            if number not in shared and status is not None and status.st_size in sizes
        }
        wanted = {status.st_size for number in rest if (status := others[number]) is not None}
        candidates = [path for path, status in known.values() if status.st_size in wanted]
        for most in (_BEGINNING, -1):  # of most pairs the beginning differs already
            digests = {number: _digest(path, most) for number, path in rest.items()}
            theirs = {path: _digest(path, most) for path in candidates}
            equal = set(digests.values()) & set(theirs.values()) - {None}
            rest = {number: path for number, path in rest.items() if digests[number] in equal}
            candidates = [path for path in candidates if theirs[path] in equal]
        shared |= set(rest)
    return len(shared)


def _by_place(paths: Sequence[Path]) -> dict[tuple[int, int], tuple[Path, os.stat_result]]:
    statuses = [(path, _status(path)) for path in paths]
    return {_place(status): (path, status) for path, status in statuses if status is not None}


def _place(status: os.stat_result) -> tuple[int, int]:
    """What is the same for all names of a file."""
    return status.st_dev, status.st_ino


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):  # ValueError: a name with a NUL
        return None


def _digest(path: Path, most: int) -> bytes | None:
    """Of the first ``most`` bytes, -1 for all."""
    try:
        with open(path, "rb") as file:
            return hashlib.blake2b(file.read(most), digest_size=16).digest()
    except OSError:
        return None
