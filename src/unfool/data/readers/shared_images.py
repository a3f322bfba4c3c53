"""Images that are equal in content, within a split of a set and across its splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from unfool.data.decode import CorruptImageError, Framing
from unfool.data.readers.decode_rows import decoded_rows
from unfool.data.sources import Columns, Source


@dataclass(frozen=True, kw_only=True)
class SplitImages:
    """One split: its readable ``images``, how many repeat an earlier one of it, and how many are in ``train`` too."""

    split: str
    images: int
    repeated: int
    in_train: int


def compare_splits(sources: Mapping[str, Source]) -> list[SplitImages]:
    """Count images of equal pixels in all splits of a set, train first; every image is decoded, at its own size."""
    train: set[bytes] = set()
    counts: list[SplitImages] = []
    for split in sorted(sources, key=lambda split: (split != "train", split)):
        seen: set[bytes] = set()
        images = in_train = 0
        for _, _, outcome in decoded_rows(sources[split].rows(Columns()), Framing()):
            if isinstance(outcome, CorruptImageError):
                continue
            pixels, _ = outcome
            digest = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()
            seen.add(digest)
            images += 1
            in_train += digest in train
        if split == "train":
            train = seen
        counts.append(SplitImages(split=split, images=images, repeated=images - len(seen), in_train=in_train))
    return counts
