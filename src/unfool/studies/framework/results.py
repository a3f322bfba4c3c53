"""What a study measured, to be asked by claims and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unfool.core.errors import SpecError
from unfool.evaluation import Records
from unfool.evaluation.results.published import Published, word_of
from unfool.evaluation.results.rows import Row
from unfool.report.pictures.gallery import GalleryItem, fooled_images
from unfool.studies.framework.measurements import Examples
from unfool.studies.framework.networks import NetworkSpec
from unfool.studies.framework.pieces import Measured, Measurement
from unfool.studies.framework.workspace import Piece, Workspace
from unfool.training import TrainedRun


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """All that a study measured at a scale: the rows of every measurement with their records, and what each gave.

    ``scale`` is the scale's name. Claims and charts ask by words: `select`, `by_seed`, `records`.
    """

    scale: str
    work: Workspace
    measured: Sequence[Measured]
    by_path: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def collect(
        cls, scale: str, work: Workspace, measurements: Sequence[Measurement], published: Published | None = None
    ) -> Results:
        """Make or read every measurement, and set the source's figures beside the rows."""
        by_path: dict[str, Any] = {}
        measured: list[Measured] = []
        for measurement in measurements:
            result = by_path[measurement.path] = work.get(measurement)
            measured += measurement.measured(result, work)
        if published is not None:
            measured = [
                replace(item, row=replace(row, source_value=published.of(row), source_loss=published.loss_of(row)))
                for item in measured
                for row in (item.row,)
            ]
        return cls(scale=scale, work=work, measured=measured, by_path=by_path)

    @property
    def rows(self) -> list[Row]:
        """The study's table."""
        return [item.row for item in self.measured]

    def __getitem__(self, measurement: Piece) -> Any:
        """What a measurement gave."""
        return self.by_path[measurement.path]

    def run(self, network: NetworkSpec) -> TrainedRun:
        """A trained network, its configuration, and what training it cost."""
        return self.work.get(network)

    def fooled_images(self, examples: Examples, seen_by: Sequence[NetworkSpec], count: int) -> list[GalleryItem]:
        """The first images that an attack fooled its network with, as each network sees them."""
        networks = {spec.model: self.run(spec).network for spec in seen_by}
        table, attacked = examples.images.table(self.work), self.run(examples.network).network
        return fooled_images(self.work.get(examples), table, attacked, networks, count)

    def select(self, **words: Any) -> list[Measured]:
        """Rows whose fields and settings have these values (None: not set), with their records."""
        return [item for item in self.measured if all(word_of(item.row, key) == words[key] for key in words)]

    def by_seed(self, **words: Any) -> dict[int, Records]:
        """The selected records by training seed; SpecError for two of one seed."""
        chosen = [(item.row.seed or 0, item.records) for item in self.select(**words) if item.records is not None]
        records = dict(chosen)
        if len(records) < len(chosen):
            raise SpecError(f"rows of one seed have {words} in common; name a word that tells them apart")
        return records

    def records(self, **words: Any) -> Records:
        """The records of the only row with these words; SpecError for none or several."""
        chosen = [item.records for item in self.select(**words) if item.records is not None]
        if len(chosen) != 1:
            raise SpecError(f"{len(chosen)} rows have {words}; one is needed")
        return chosen[0]

    def masking_notes(self) -> list[str]:
        """A warning where an attacked network gave no gradient on some image: none where that never happened."""
        count = sum(item.records is not None and item.records.zero_gradient > 0 for item in self.measured)
        words = "rows the attacked network gave no gradient on some image that stood: perhaps masked, not robust"
        return [f"In {count} {words}"] if count else []
