"""What a lesson of the demo shows: sentences, bars, claims, and what the page draws of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unfool.evaluation.records import Records
from unfool.evaluation.results.charts import Chart
from unfool.evaluation.results.claims import ClaimResult
from unfool.evaluation.results.ladder import LadderSection
from unfool.evaluation.results.rows import Row
from unfool.evaluation.statistics.chart_kinds import bars
from unfool.report.pictures.gallery import GalleryItem
from unfool.report.pictures.strips import Strip


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar of a lesson's picture: an accuracy (a share in [0,1]) with its 95 % interval."""

    label: str
    accuracy: float
    low: float
    high: float

    @classmethod
    def of(cls, label: str, records: Records) -> Bar:
        """The bar of records."""
        low, high = records.interval()
        return cls(label=label, accuracy=records.accuracy, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One lesson: its sentence comes first, what else is said follows, and the page shows the rest."""

    title: str
    sentences: Sequence[str]
    bars: Sequence[Bar]
    rows: Sequence[Row] = ()
    claims: Sequence[ClaimResult] = ()
    ladder: LadderSection | None = None
    gallery: Sequence[GalleryItem] = ()
    strips: Sequence[Strip] = ()

    @property
    def chart(self) -> Chart:
        """The picture as a page draws it."""
        points = [[bar.label, *(round(share, 6) for share in (bar.accuracy, bar.low, bar.high))] for bar in self.bars]
        return bars(self.title, "", "accuracy", {"accuracy": points}, " ".join(self.sentences))


def percent(share: float) -> str:
    """A share in words, ``29 %``."""
    return f"{100 * share:.0f} %"
