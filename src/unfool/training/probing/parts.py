"""The features of a probe computed in parts: by jobs, into a folder from which `probe` reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

from unfool.core.parallel.job import Place
from unfool.core.parallel.sharing import Part, Sharing
from unfool.core.progress import Progress, silent
from unfool.data.table import Table
from unfool.models.foreign import ForeignClassifier
from unfool.models.network import Network
from unfool.training.probing.features import FeaturePass, batches, part_path
from unfool.training.probing.probe import with_stages

PARTS = 32
"""Jobs for each split, if it has as many batches."""


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What is probed, and the images of each split, ``train`` among them."""

    network: Network | ForeignClassifier
    tables: Mapping[str, Table]


class ProbeOpener(Protocol):
    """Opens what is probed in the place of a job, as the asker did; picklable, and equal to one that opens the same."""

    def __call__(self, place: Place) -> Probed: ...


def share_features(
    sharing: Sharing,
    opens: ProbeOpener,
    tables: Mapping[str, Table],
    *,
    stages: Sequence[str] | None = None,
    precision: str = "fp32",
    progress: Progress = silent,
) -> None:
    """Compute the features of all ``tables`` in parts, which open the network and its images again.

    They land in the folder of ``sharing``. Raises the first error of a part.
    """
    parts: list[Part] = []
    for split, table in tables.items():
        cuts = batches(len(table))
        together = max(1, len(cuts) // PARTS)
        for block in (cuts[start : start + together] for start in range(0, len(cuts), together)):
            call: Callable[[Place], None] = partial(
                store_features, opens, tuple(stages) if stages is not None else None, precision, split, block
            )
            images = block[-1].stop - block[0].start
            parts.append(Part(name=f"{split} {block[0].start}", call=call, images=images, cost=images))
    sharing.run(parts, "features", progress)


def store_features(
    opens: ProbeOpener, stages: tuple[str, ...] | None, precision: str, split: str, block: Sequence[slice], place: Place
) -> None:
    """Compute the features of some batches of a split."""
    probed, passes = _opened(opens, stages, precision, tuple(sorted(place.files.items())), place.data_dir, place.device)
    for rows in block:
        if not part_path(place.folder, split, rows).is_file():
            passes.store(probed.tables[split], split, rows, place.folder)


@lru_cache(maxsize=1)
def _opened(
    opens: ProbeOpener,
    stages: tuple[str, ...] | None,
    precision: str,
    files: tuple[tuple[Path, Path], ...],
    data_dir: Path | None,
    device: str,
) -> tuple[Probed, FeaturePass]:
    """What is probed, opened once in each process."""
    probed = opens(Place(folder=Path(), data_dir=data_dir, device=device, files=dict(files)))
    network, chosen = with_stages(probed.network, probed.tables["train"], stages)
    return probed, FeaturePass(network, chosen, precision=precision, device=device)
