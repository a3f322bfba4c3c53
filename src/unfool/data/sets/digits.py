"""``digits``: the 1,797 handwritten digits that come with scikit-learn, so that nothing has to be fetched.

8×8 pixels of 17 greys (a half of the UCI optical digits, Alpaydin & Kaynak 1998), shown here as 32×32 RGB.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unfool.core.streams import Streams
from unfool.data import stratify
from unfool.data.sources import SETS, DataSet, Rows, Source

SIDE = 32
TEST_COUNT = 397


def _read(test: bool) -> Rows:
    pixels, labels = _pixels_and_labels()
    ids = torch.arange(len(labels))
    chosen = stratify.exactly(torch.from_numpy(labels), ids, TEST_COUNT, Streams(0).named("digits"), "split")
    rows = ids[chosen if test else ~chosen].numpy()
    greys = np.rint(pixels[rows].reshape(-1, 8, 8) * (255.0 / 16.0)).astype(np.uint8)
    return Rows(
        images=(np.asarray(_enlarged(grey)) for grey in greys),
        count=len(rows),
        columns={"label": labels[rows], "parity": labels[rows] % 2},
        classes={"label": [str(digit) for digit in range(10)], "parity": ["even", "odd"]},
        ids=rows,
    )


def _pixels_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 64) from 0 to 16 and labels (N,), from scikit-learn's file where it lies as usual.

    Importing scikit-learn takes longer than all else that opens this set.
    """
    library = find_spec("sklearn")
    file = Path(str(library and library.origin)).with_name("datasets") / "data" / "digits.csv.gz"
    if file.is_file():
        table = np.loadtxt(file, delimiter=",")
        return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    return np.asarray(pixels), np.asarray(targets, dtype=np.int64)


def _enlarged(grey: np.ndarray) -> Image.Image:
    return Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR).convert("RGB")


def _splits(data_dir: Path | None) -> Mapping[str, Source]:
    return {
        "train": Source(fingerprint="digits", read=lambda: _read(test=False), resident=True),
        "test": Source(fingerprint="digits", read=lambda: _read(test=True), resident=True),
    }


SETS.add("digits")(
    DataSet(
        name="digits",
        source="embedded (scikit-learn)",
        size=SIDE,
        label_columns=("label", "parity"),
        splits=_splits,
    )
)
