"""Folders of images, one directory a class.

``PATH/train/CLASS/*.png`` with ``PATH/test`` or ``PATH/val`` beside it; or ``PATH/CLASS/*.png``, of which a fixed
stratified fifth is the test split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from unfool.core.errors import DataError
from unfool.core.streams import Streams
from unfool.data import stratify
from unfool.data.sources import Encoded, Rows, Source, fingerprint_files, split_of

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})
TEST_SHARE = 0.2


def folder_splits(root: Path) -> Mapping[str, Source]:
    """The splits of a folder; DataError if it is missing, or holds no class directories with images."""
    if not root.is_dir():
        raise DataError(f"{root} is not a directory; give folder:PATH with one directory per class")
    inside = {split: path for path in _directories(root) if (split := split_of(path.name)) is not None}
    if "train" in inside:
        classes = _classes(inside["train"])
        return {split: _source(root, _files(path, classes, split), classes) for split, path in inside.items()}
    classes = _classes(root)
    files = _files(root, classes, "folder")
    labels = torch.tensor([label for _, label in files])
    ids = torch.arange(len(files))
    test = stratify.share_of_each(labels, ids, TEST_SHARE, Streams(0).named("folder"), "split")
    # a class of one image keeps it for training
    test &= torch.bincount(labels)[labels] > 1
    return {
        "train": _source(root, files, classes, (~test).nonzero().flatten().numpy()),
        "test": _source(root, files, classes, test.nonzero().flatten().numpy()),
    }


def _directories(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _classes(path: Path) -> list[str]:
    names = [p.name for p in _directories(path)]
    if not names:
        raise DataError(f"{path} has no directories; folder:PATH wants one directory per class, with images in it")
    return names


def _files(path: Path, classes: list[str], split: str) -> list[tuple[Path, int]]:
    """(file, class number) in a fixed order; a class that train does not know is an error, unless unlabelled."""
    if split == "unlabelled":
        files = [(p, -1) for p in sorted(path.rglob("*"))]
    else:
        strange = sorted({p.name for p in _directories(path)} - set(classes))
        if strange:
            raise DataError(f"{path} has the class {strange[0]!r}, which train lacks; allowed: {', '.join(classes)}")
        files = [(p, label) for label, name in enumerate(classes) for p in sorted((path / name).rglob("*"))]
    files = [(p, label) for p, label in files if p.suffix.lower() in SUFFIXES and p.is_file()]
    if not files:
        raise DataError(f"{path} holds no images; allowed endings: {', '.join(sorted(SUFFIXES))}")
    return files


def _source(root: Path, files: list[tuple[Path, int]], classes: list[str], rows: np.ndarray | None = None) -> Source:
    chosen = files if rows is None else [files[row] for row in rows]

    def read() -> Rows:
        labels = np.array([label for _, label in chosen], dtype=np.int64)
        labelled = len(labels) > 0 and labels.min() >= 0
        return Rows(
            images=_encoded([path for path, _ in chosen]),
            count=len(chosen),
            columns={"label": labels} if labelled else {},
            classes={"label": classes} if labelled else {},
            ids=rows,
            names=[str(path.relative_to(root)) for path, _ in chosen],
        )

    return Source(fingerprint=fingerprint_files(root, [path for path, _ in chosen]), read=read)


def _encoded(paths: list[Path]) -> Iterator[Encoded]:
    for path in paths:
        try:
            yield path.read_bytes()
        except OSError:
            yield None  # counted with the corrupt ones
