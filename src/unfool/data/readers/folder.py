"""Folders of images, one directory a class.

``PATH/train/CLASS/*.png`` with ``PATH/test`` or ``PATH/val`` beside it; or ``PATH/CLASS/*.png``, of which a fixed
stratified fifth is the test split, as a warning says. Hidden files and folders (names that begin with a dot, and what
operating systems leave beside files) are skipped at every depth.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from unfool.core.borders.reading import is_file, is_folder, read_bytes
from unfool.core.errors import DataError, UnfoolWarning
from unfool.data import stratify
from unfool.data.readers.shared_files import warn_of_shared_files
from unfool.data.sources import Encoded, Rows, Source, fingerprint_files, names_by_split, split_of

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})
_HIDDEN = frozenset({"__macosx", "@eadir", "$recycle.bin", "thumbs.db", "desktop.ini"})


MOST_OTHERS = 50_000
"""Files and folders below a set that are no images."""


def folder_splits(root: Path) -> Mapping[str, Source]:
    """The splits of a folder; DataError if it is missing, or holds no class directories with images.

    Warns (UnfoolWarning) of classes without an image, of a single class, of files that are skipped, of images that
    train shares with another split, and of a folder without splits, of which a fifth becomes the test split.
    """
    if not is_folder(root):
        raise DataError(f"{root} is not a directory; give folder:PATH with one directory per class")
    inside = _splits_inside(root)
    if not inside:
        classes = _classes([root])
        if len(classes) == 1:
            _warn(f"{root} has one class alone, {classes[0]}: accuracies say nothing; give one directory per class")
        files = _labelled(root, classes)
        parts = stratify.train_and_test([label for _, label in files])
        _warn(f"{root} has no splits: {stratify.in_words(parts)}; put them into train/ and test/ to choose")
        warn_of_shared_files(root, {name: [files[row][0] for row in rows] for name, rows in parts.items()})
        return {name: _source(root, files, classes, rows) for name, rows in parts.items()}
    labelled = [path for split, path in inside.items() if split != "unlabelled"]
    classes = _classes([inside["train"]] if "train" in inside else labelled)
    splits: dict[str, list[tuple[Path, int]]] = {}
    for split, path in inside.items():
        if split == "unlabelled":
            files = [(file, -1) for file in _images(path)]
            if not files:
                raise _no_images(path)
        else:
            strange = sorted({p.name for p in _directories(path) if _has_image(p)} - set(classes))
            if strange:
                raise DataError(
                    f"{path} has the class {strange[0]!r}, which train lacks; allowed: {', '.join(classes)}"
                )
            files = _labelled(path, classes)
            if lacking := sorted(set(range(len(classes))) - {label for _, label in files}):
                names = _shown([classes[label] for label in lacking])
                _warn(f"{path} has no image of {len(lacking)} of {len(classes)} classes: {names}")
        splits[split] = files
    warn_of_shared_files(root, {split: [file for file, _ in files] for split, files in splits.items()})
    return {split: _source(root, files, classes) for split, files in splits.items()}


def _splits_inside(root: Path) -> dict[str, Path]:
    """The directories that are splits: one is called train, or all are called as splits and hold directories."""
    directories = _directories(root)
    called = [path for path in directories if split_of(path.name) is not None]
    all_are = len(called) == len(directories) and all(any(map(_has_image, _directories(path))) for path in called)
    if all_are or any(split_of(path.name) == "train" for path in called):
        return {split: root / name for split, name in names_by_split(str(root), [p.name for p in called]).items()}
    if len(directories) == 1 and "train" in _splits_inside(directories[0]):
        raise DataError(f"{root} holds splits in {directories[0].name}; give folder:{directories[0]}")
    return {}


def _skipped(name: str) -> bool:
    return name.startswith(".") or name.lower() in _HIDDEN


def _directories(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not _skipped(p.name))


def _classes(paths: Sequence[Path]) -> list[str]:
    """The directories with an image in them; the others are told."""
    directories = [directory for path in paths for directory in _directories(path)]
    if not directories:
        raise DataError(f"{paths[0]} has no directories; folder:PATH wants one directory per class, with images in it")
    classes = sorted({p.name for p in directories if _has_image(p)})
    if not classes:
        raise _no_images(paths[0])
    if empty := sorted({p.name for p in directories} - set(classes)):
        _warn(f"{paths[0]}: {len(empty)} classes are empty and left out: {_shown(empty)}")
    return classes


def _has_image(path: Path) -> bool:
    return any(file.suffix.lower() in SUFFIXES for file in _files(path))


def _no_images(path: Path) -> DataError:
    return DataError(f"{path} holds no images; allowed endings: {', '.join(sorted(SUFFIXES))}")


def _files(path: Path) -> Iterator[Path]:
    """All files below a directory in a fixed order, without hidden ones; links are followed, in circles once.

    DataError after MOST_OTHERS that are no images: then this is a whole disk, or the home of a user.
    """
    seen: set[str] = set()
    others = 0
    for folder, directories, names in os.walk(path, followlinks=True):
        others += 1 + sum(os.path.splitext(name)[1].lower() not in SUFFIXES for name in names)
        if others > MOST_OTHERS:
            raise DataError(
                f"{path} holds more than the {MOST_OTHERS:,} files and folders allowed that are no images; give the "
                "folder with one directory per class"
            )
        seen.add(os.path.realpath(folder))
        linked = [name for name in directories if os.path.islink(os.path.join(folder, name))]
        circles = {name for name in linked if os.path.realpath(os.path.join(folder, name)) in seen}
        directories[:] = sorted(name for name in directories if not _skipped(name) and name not in circles)
        yield from (Path(folder, name) for name in sorted(names) if not _skipped(name))


def _images(path: Path) -> list[Path]:
    """The images below a directory; a warning counts files with other endings."""
    files = [file for file in _files(path) if is_file(file)]
    skipped = Counter(file.suffix.lower() or "none" for file in files if file.suffix.lower() not in SUFFIXES)
    if skipped:
        counts = [f"{ending} ({count})" for ending, count in sorted(skipped.items())]
        allowed = ", ".join(sorted(SUFFIXES))
        _warn(f"{path}: files with these endings are skipped: {_shown(counts)}; images end in {allowed}")
    return [file for file in files if file.suffix.lower() in SUFFIXES]


def _labelled(path: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """(file, class number) by class and then in the order of their paths; images of no class are told."""
    images = _images(path)
    number = {name: label for label, name in enumerate(classes)}
    files = [(file, number.get(file.relative_to(path).parts[0], -1)) for file in images]
    if loose := [file.name for file, label in files if label < 0]:
        _warn(f"{path}: {len(loose)} images lie in no class directory and are left out, first {loose[0]}")
    files = sorted(((file, label) for file, label in files if label >= 0), key=lambda item: (item[1], item[0]))
    if not files:
        raise _no_images(path)
    return files


def _shown(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _warn(words: str) -> None:
    warnings.warn(words, UnfoolWarning, stacklevel=2)


def _source(root: Path, files: list[tuple[Path, int]], classes: list[str], rows: np.ndarray | None = None) -> Source:
    chosen = files if rows is None else [files[row] for row in rows]

    def read() -> Rows:
        labels = np.array([label for _, label in chosen], dtype=np.int64)
        labelled = len(labels) > 0 and labels.min() >= 0
        return Rows(
            images=read_files(path for path, _ in chosen),
            count=len(chosen),
            columns={"label": labels} if labelled else {},
            classes={"label": classes} if labelled else {},
            ids=rows,
            names=[str(path.relative_to(root)) for path, _ in chosen],
        )

    # A class that is added to train renumbers those of the other splits.
    names = hashlib.blake2b("\x1f".join(classes).encode(errors="surrogateescape"), digest_size=8).hexdigest()
    return Source(fingerprint=f"{fingerprint_files(root, [path for path, _ in chosen])}-{names}", read=read)


def read_files(paths: Iterator[Path]) -> Iterator[Encoded]:
    """The bytes of files; None for one that cannot be read, which is counted with the corrupt ones."""
    for path in paths:
        try:
            yield read_bytes(path, "give an image")
        except DataError:
            yield None
